"""Examples are worth something: a mistake in a profile makes one of them fail.

`make test` tries a seeded part of all mistakes, `make fuzz` every one; ``python -m tests.profiles.mutations acme/x``
prints what goes unnoticed.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from sensegate.decode.grammar import ProfileFile, parse
from sensegate.errors import ProfileError
from tests.profiles.mutate import mutations, put
from tests.profiles.mutations import FILES, WEAK, Score, score, table

WHOLE = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
SEED = int(os.environ.get("SENSEGATE_SEED", "0"))
EACH = 10
"""Mistakes tried per profile in `make test`."""
SHARE = 0.95

PROFILE = """
profile: acme/x
version: 1
label: {zh: 例, en: x}
source: this test
messages:
  - topics: ["acme/{device}"]
    time: {field: t, format: epoch_s}
    readings:
      - {field: a, property: air_temperature, unit: Cel, scale: 0.1, missing: [32767]}
      - {field: b, property: door_open, words: {0: false, 1: true}}
      - {field: w, property: wind_direction, words: wind_16}
  - topics: ["acme/{device}/b"]
    binary:
      read:
        - {name: t, type: s16}
        - {name: h, type: u8}
        - {name: v, type: u16, endian: little}
        - {name: r, value: "v * 2"}
        - {type: u8, bits: {door: 0, level: 1-3}}
    readings:
      - {field: t, property: air_temperature, unit: Cel, scale: 0.1}
      - {field: h, property: relative_humidity, unit: "%"}
      - {field: r, property: battery_voltage, unit: mV}
      - {field: door, property: door_open}
examples:
"""
GOOD = """
  - label: json
    topic: acme/d1
    payload: {"t": 1767225600, "a": 215, "b": 1, "w": "NE"}
    expect:
      - {property: air_temperature, value: 21.5, time: "2026-01-01T00:00:00Z"}
      - {property: door_open, value: true, time: "2026-01-01T00:00:00Z"}
      - {property: wind_direction, value: 45, time: "2026-01-01T00:00:00Z"}
  - label: json, cold and closed
    topic: acme/d1
    payload: {"t": 1767225600, "a": 32767, "b": 0}
    ignored: 1
    expect: [{property: door_open, value: false, time: "2026-01-01T00:00:00Z"}]
  - label: bytes
    topic: acme/d1/b
    hex: "ff9c 37 dc05 09"
    expect:
      - {property: air_temperature, value: -10}
      - {property: relative_humidity, value: 55}
      - {property: battery_voltage, value: 3}
      - {property: door_open, value: true}
  - {label: broken, topic: acme/d1, payload: "{", refuse: malformed}
"""
WEAK_ONES = """
  - label: nothing but zero
    topic: acme/d1
    payload: {"t": 1767225600, "a": 0}
    expect: [{property: air_temperature, value: 0, time: "2026-01-01T00:00:00Z"}]
  - {label: broken, topic: acme/d1, payload: "{", refuse: malformed}
"""


def written(tmp_path: Path, examples: str) -> Path:
    (tmp_path / "acme").mkdir()
    file = tmp_path / "acme" / "x.yaml"
    file.write_text(PROFILE + examples, encoding="utf-8")
    return file


def parsed(examples: str = GOOD) -> ProfileFile:
    return parse(PROFILE + examples)[0]


def test_every_kind_of_mistake_is_made_once() -> None:
    """By hand: what can be wrong in the profile above, and nothing that could not be shown."""
    kinds = Counter(mutation.kind for mutation in mutations(parsed()))
    assert kinds == {
        "scale": 4, "sign": 4, "offset": 4, "unit": 4, "words": 3, "missing": 1, "time": 1,
        "type": 1, "endian": 2, "position": 3, "expression": 1,
    }  # fmt: skip


def test_the_sign_of_what_cannot_be_negative_is_left_alone() -> None:
    """A humidity in a byte never reaches 128: whether the byte is signed makes no difference."""
    types = [mutation for mutation in mutations(parsed()) if mutation.kind == "type"]
    assert [mutation.change for mutation in types] == ["s16 -> u16"]


def test_a_mistake_changes_one_thing() -> None:
    """Each mutated profile differs from the profile, and from every other one."""
    source = parsed()
    made = [mutation.source for mutation in mutations(source)]
    assert source not in made
    assert len({repr(mutation) for mutation in made}) == len(made)


def test_good_examples_notice_all(tmp_path: Path) -> None:
    """Two good messages and a refusal notice every mistake that can be made."""
    result = score(written(tmp_path, GOOD))
    assert [str(survivor) for survivor in result.survivors] == []
    assert result.share == 1


def test_weak_examples_are_told(tmp_path: Path) -> None:
    """Negative control: zero times ten is zero; what no example shows goes unnoticed and is named with its line."""
    file = written(tmp_path, WEAK_ONES)
    result = score(file)
    assert result.share < 0.2
    text = [str(survivor) for survivor in result.survivors]
    assert f"{file}:10: messages[0].readings[0].scale: scale wrong (times ten) and no example fails;" in text[0]
    assert "acme/x" in table([result])


def test_a_profile_that_fails_already_has_no_score(tmp_path: Path) -> None:
    """Negative control: with an example that fails anyway every mistake would seem to be noticed."""
    with pytest.raises(ProfileError, match=r"air_temperature = 21\.6"):
        score(written(tmp_path, GOOD.replace("value: 21.5", "value: 21.6")))


def test_values_are_put_anywhere() -> None:
    """Paths lead through records, tuples and dicts; true and 1 stay apart as keys."""
    source = parsed()
    changed = put(source, ("messages", 0, "readings", 1, "words", 1), False)
    assert changed.messages[0].readings[1].words == {0: False, 1: False}
    assert source.messages[0].readings[1].words == {0: False, 1: True}
    assert put((1, 2), (0,), 9) == (9, 2)


SCORES: dict[str, Score] = {}


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_fuzz_mistakes_are_noticed(file: Path) -> None:
    """Nineteen of twenty mistakes in a profile of the library make one of its examples fail."""
    result = SCORES[str(file)] = score(file, most=0 if WHOLE else EACH, seed=SEED)
    lost = "\n".join(map(str, result.survivors))
    if result.profile in WEAK:
        assert not WHOLE or result.share < SHARE, f"{result.profile} is good now: take it off the list"
    else:
        assert result.share >= (SHARE if WHOLE else SHARE - 0.1), lost


@pytest.mark.slow
@pytest.mark.fuzz
def test_fuzz_the_library_as_a_whole() -> None:
    """Over all profiles that are not on the list the share is reached."""
    strong = [item for item in SCORES.values() if item.profile not in WEAK]
    made = sum(item.made.total() for item in strong)
    lost = sum(len(item.survivors) for item in strong)
    assert made == 0 or 1 - lost / made >= SHARE, table(strong)


def test_the_list_names_profiles_that_are_there() -> None:
    """A profile that was renamed or removed does not stay on the list."""
    assert {f"{file.parent.name}/{file.stem}" for file in FILES} >= WEAK
