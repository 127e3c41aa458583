"""Points in time as people write them."""

from __future__ import annotations

import pytest

from sensegate.config.durations import TIME_MAX_US, TIME_MIN_US, time_us
from sensegate.web.routing import iso

NOW = 1_800_000_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600_000_000),
        ("2026-01-01T08:00:00 08:00", 1_767_225_600_000_000),
        ("1767225600", 1_767_225_600_000_000),
        ("1767225600000", 1_767_225_600_000_000),
        ("1h", NOW - 3_600_000_000),
        ("9999-12-31T23:59:59Z", TIME_MAX_US),
        ("0001-01-01", TIME_MIN_US),
    ],
)
def test_each_way_of_writing_a_time(text: str, expected: int) -> None:
    """Each can be written as ISO 8601 again."""
    assert time_us(text, NOW) == expected
    assert iso(expected)


@pytest.mark.parametrize(
    "text", ["99999999999999999", "253402300800000", "9999-12-31T23:59:59-08:00", "0001-01-01T00:00:00+08:00", "soon"]
)
def test_what_no_calendar_has_is_refused(text: str) -> None:
    """Whoever writes such a time back as text would fail."""
    with pytest.raises(ValueError, match=r"years 1 to 9999|Invalid isoformat"):
        time_us(text, NOW)
