"""Old keys of the configuration: refused, with the new one named."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sensegate.config import parse, settings
from sensegate.config.renamed import REMOVED, RENAMED
from sensegate.errors import ConfigError

KEYS = {setting.key.removesuffix("[]") for setting in settings()}


def document(key: str) -> str:
    """Return a configuration that holds only a key, given as ``section.list[].key``."""
    tree: Any = 1
    for part in reversed(key.split(".")):
        name = part.removesuffix("[]")
        tree = {name: [tree]} if part.endswith("[]") else {name: tree}
    return yaml.safe_dump(tree)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_refused_with_the_new_one_named(old: str) -> None:
    """The error names file, line, the old key and its new name, also within lists of records."""
    with pytest.raises(ConfigError) as refused:
        parse(document(old), file="node.yaml")
    assert refused.value.remedy == f"it is called '{RENAMED[old]}' now"
    assert refused.value.key.endswith(old.rpartition(".")[2])


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_new_name_exists_and_the_old_one_does_not(old: str, new: str) -> None:
    """The table names only keys that the configuration has, or sections of it."""
    parent = old.rpartition(".")[0]
    replacement = f"{parent}.{new}" if parent else new
    assert any(key == replacement or key.startswith((f"{replacement}.", f"{replacement}[]")) for key in KEYS)
    assert old not in KEYS


@pytest.mark.parametrize("old", REMOVED)
def test_a_removed_key_is_refused_with_the_reason(old: str) -> None:
    """A key without a successor is not ignored: what it asked for no longer happens."""
    with pytest.raises(ConfigError) as refused:
        parse(document(old))
    assert refused.value.remedy == f"remove it: {REMOVED[old]}"
    assert old not in KEYS


def test_another_unknown_key_is_refused_with_the_nearest_one() -> None:
    """Control: a key that never existed gets no new name but a suggestion."""
    with pytest.raises(ConfigError, match="did you mean 'retention_days'"):
        parse(document("sharing.retention_day"))
