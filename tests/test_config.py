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


NODE = 'role: node\ndivision: "4401"\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("role: nod\n", 1, "role", "'nod' is not permitted; did you mean 'node'? permitted: node, centre"),
        ("role: node\ndivision: 4401\n", 2, "division", '4401 is not a text; write it in quotes: "4401"'),
        (f"{NODE}log_level: loud\n", 3, "log_level", "permitted: debug, info, warning, error"),
        (f"{NODE}store:\n  readings_ttl_h: 1\nstore: {{}}\n", 5, "store", "the first is on line 3"),
        (f"{NODE}store:\n  readings_ttl_h: 1\n  readings_ttl_h: 2\n", 5, "store.readings_ttl_h", "occurs twice"),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_write(text: str, line: int, key: str, words: str) -> None:
    """A word that is no choice, a number that must be a text, and a key that YAML would take from its last place."""
    with pytest.raises(ConfigError) as refused:
        parse(text, file="node.yaml")
    assert (refused.value.line, refused.value.key) == (line, key)
    assert words in str(refused.value)


def test_a_key_of_a_merge_may_be_overridden() -> None:
    """YAML's `<<` takes a section over from another one; that a key of it is given again is no repetition."""
    text = f"{NODE}directory: store\ntime:\n  <<: {{late_s: 10, stale_h: 1}}\n  stale_h: 2\n"
    assert (parse(text).time.late_s, parse(text).time.stale_h) == (10, 2)


def test_on_and_off_need_no_quotes() -> None:
    """YAML reads them as true and false; where they are choices, they are words."""
    assert parse(f"{NODE}directory: store\nengine:\n  encryption: off\n").engine.encryption == "off"
