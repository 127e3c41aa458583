"""Features register themselves: what they say of themselves exists, and nothing of them is missing."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from sensegate import flow
from sensegate.cli.registry import COMMANDS
from sensegate.config import Config
from sensegate.feature import FeatureSpec, Place, Task
from sensegate.web.app import CORE_ROUTES
from tests.house import graph

OWN_LINES_MAX = 353
SPECS = pytest.mark.parametrize("spec", flow.FEATURES, ids=lambda spec: spec.name)


@SPECS
def test_settings_and_commands_exist(spec: FeatureSpec) -> None:
    """Each section is one of the configuration, each command a group of the command line."""
    sections = {field.name for field in msgspec.structs.fields(Config)}
    groups = {entry.name for entry in COMMANDS}
    assert set(spec.config) <= sections
    assert set(spec.commands) <= groups


def test_no_two_features_share_a_name_a_bucket_or_a_route() -> None:
    """What belongs to a feature belongs to it alone; the settings of a tier are those of both of its sides."""
    names = [spec.name for spec in flow.FEATURES]
    buckets = [bucket for spec in flow.FEATURES for bucket in spec.buckets]
    routes = [(route.method, route.path) for route in flow.ROUTES]
    for values in (names, buckets, routes):
        assert len(set(values)) == len(values)
    assert len(flow.ROUTES) > len(CORE_ROUTES)


def test_every_feature_of_the_package_is_listed() -> None:
    """A module that defines a feature stands in the list; control: there are such modules."""
    modules = [
        module for module, path in graph.modules().items() if "\nFEATURE = FeatureSpec(" in path.read_text("utf-8")
    ]
    assert len(modules) == len(flow.FEATURES) > 0


def test_the_page_of_wiring_is_one_page() -> None:
    """What builds a gateway is read in one go, beside the import and the line of each feature."""
    # The lease of a node with a standby is taken before everything and held beside it: 15 lines. The token files of
    # outlets are one, the threshold of the collector six; the import of errors has a line a name since the task group
    # is ours: eight. The pipeline hears of delivery that is behind: one line; sharing of the prefixes: one.
    lines = Path(flow.__file__).read_text("utf-8").splitlines()
    own = [line for line in lines if not re.fullmatch(r"from \S+ import feature as \w+|    \w+\.FEATURE,", line)]
    assert len(own) <= OWN_LINES_MAX


def test_ids_of_push_subscriptions_are_of_one_owner() -> None:
    """A prefix is no beginning of another one, of the id of a webhook (w) or of a grant (g), and 16 digits."""
    prefixes = [prefix for feature in flow.FEATURES for prefix in feature.subscription_prefixes]
    assert prefixes
    for prefix in prefixes:
        assert not re.match(r"[gw][0-9a-f]*$", prefix)
        assert [other for other in prefixes if other.startswith(prefix)] == [prefix]


def test_a_task_runs_where_the_log_is_written_unless_it_says_otherwise() -> None:
    """A task that is not known to be harmless elsewhere stays with the owner of the log."""

    async def run() -> None:
        return

    assert Task(run).place is Place.OWNER
