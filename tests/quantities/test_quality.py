"""The quality table: one table, no code without a row, others' codes mapped as their standards say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.quantities.quality import (
    HJ212,
    OPCUA,
    TABLE,
    WMO,
    Flag,
    Quality,
    flag_words,
    from_hj212,
    from_opcua,
    from_wmo,
    quality_word,
    severity,
)


def test_every_code_has_its_row() -> None:
    """The table is whole, and each row's OPC UA status is of the code's own severity."""
    assert set(TABLE) == set(Quality)
    for code, row in TABLE.items():
        assert severity(from_opcua(row.opcua)) is severity(code)
        assert severity(from_wmo(row.wmo)) is severity(code)
        assert row.label_zh
        assert row.label_en


def test_codes_on_the_log_do_not_move() -> None:
    """Codes and flags are written to the log: these numbers stay for ever."""
    assert (Quality.GOOD, Quality.UNCERTAIN_RANGE, Quality.UNCERTAIN_CLOCK, Quality.BAD_RANGE) == (0, 65, 68, 129)
    assert (Flag.LATE, Flag.CONFLICT, Flag.CLOCK, Flag.STALE, Flag.HEARTBEAT) == (1, 2, 4, 128, 8192)


@pytest.mark.parametrize(
    ("flag", "wanted"),
    [
        ("N", Quality.GOOD),
        ("n", Quality.GOOD),
        ("F", Quality.BAD_OUT_OF_SERVICE),
        ("M", Quality.UNCERTAIN_MAINTENANCE),
        ("S", Quality.UNCERTAIN_SUBSTITUTED),
        ("D", Quality.BAD_SENSOR),
        ("C", Quality.UNCERTAIN_CALIBRATION),
        ("T", Quality.UNCERTAIN_SATURATED),
        ("B", Quality.BAD_COMMUNICATION),
        ("", Quality.UNCERTAIN_UNKNOWN),
        (None, Quality.UNCERTAIN_UNKNOWN),
        ("?", Quality.UNCERTAIN_UNKNOWN),
    ],
)
def test_flags_of_hj212(flag: str | None, wanted: Quality) -> None:
    """A missing flag is unknown, not good."""
    assert from_hj212(flag) is wanted


@given(st.integers(0, 0xFFFF_FFFF))
def test_every_opcua_status_keeps_its_severity(status: int) -> None:
    """Whatever the code, good stays good, uncertain uncertain, bad bad (the reserved severity is bad)."""
    wanted = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)[status >> 30]
    assert severity(from_opcua(status)) is wanted


def test_mapped_codes_are_codes_of_the_table() -> None:
    """No standard maps to a code that is not there."""
    assert {*HJ212.values(), *OPCUA.values(), *WMO.values()} <= set(TABLE)
    assert from_wmo(9) is Quality.BAD


@given(st.integers(0, 255))
def test_every_code_has_a_word(code: int) -> None:
    """A code of a newer release is shown by its class, never an error."""
    word = quality_word(code)
    assert word.split("_")[0] == severity(code).name.lower()


@given(st.sets(st.sampled_from(list(Flag))))
def test_flags_are_their_words(flags: set[Flag]) -> None:
    """The words are those of the set bits, each once, in the order of the table."""
    mask = 0
    for flag in flags:
        mask |= flag
    assert flag_words(mask) == [flag.name.lower() for flag in Flag if flag in flags and flag.name]


def test_the_words_of_one_call_are_the_caller_s_own() -> None:
    """Changing the list that came back changes nothing for the next caller."""
    flag_words(Flag.LATE).append("mine")
    assert flag_words(Flag.LATE) == ["late"]
