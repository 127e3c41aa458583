"""A configuration in which something is wrong is refused at its key, whatever it is."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from sensegate.config import parse
from sensegate.errors import ConfigError
from sensegate.normalise.clocks import TimeChecks
from tests.spoil import UNWRITABLE, in_tree

ROOT = Path(__file__).parents[2] / "config"
EACH = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 97
TIMES = {"late_s": 60, "stale_h": 24, "future_s": 60, "future_max_h": 24}


def written(tree: Any) -> bytes:
    text: str = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    return text.encode()


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["centre.yaml", "node.yaml"])
def test_any_setting_is_taken_or_refused_by_its_key(name: str) -> None:
    source = {**yaml.safe_load((ROOT / name).read_text(encoding="utf-8")), "time": TIMES}
    for fault, make in islice(in_tree(source, written), 0, None, EACH):
        try:
            text = make().decode()
        except (*UNWRITABLE, yaml.YAMLError):
            continue
        try:
            TimeChecks(parse(text).time)
        except ConfigError:
            continue
        except Exception as why:
            raise AssertionError(fault) from why


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time:\n  late_s: .nan\n", ":2: time.late_s: must be a number up to 1e+12"),
        ("time:\n  stale_h: 1.0e+308\n", ":2: time.stale_h: must be a number up to 1e+12"),
        ("ingest:\n  stall_timeout_s: .inf\n", ":2: ingest.stall_timeout_s: must be a number up to 1e+12"),
        ('directory: "\\ud800"\n', ":1: directory: contains half of a character"),
    ],
)
def test_what_no_setting_may_be(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, file="x")
    assert message in str(caught.value)
