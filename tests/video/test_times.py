"""Times of video formats: the spellings that occur, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.video import times
from sensegate.video.times import ASSUMED, DERIVED, EXPLICIT


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("text", "moment", "quality"),
    [
        ("20260115130000", "2026-01-15T05:00:00+00:00", ASSUMED),
        ("20260115130000123", "2026-01-15T05:00:00.123+00:00", ASSUMED),
        ("2026-01-15 13:00:00", "2026-01-15T05:00:00+00:00", ASSUMED),
        ("2026-01-15T13:00:00", "2026-01-15T05:00:00+00:00", ASSUMED),
        ("2026-01-15T13:00:00+09:00", "2026-01-15T04:00:00+00:00", EXPLICIT),
        ("1768453200000", "2026-01-15T05:00:00+00:00", EXPLICIT),
        (" 20260115130000 ", "2026-01-15T05:00:00+00:00", ASSUMED),
        ("20170101075960", "2017-01-01T00:00:00+00:00", ASSUMED),
        ("2017-01-01 07:59:60", "2017-01-01T00:00:00+00:00", ASSUMED),
    ],
)
def test_beijing_time_in_all_its_spellings(text: str, moment: str, quality: str) -> None:
    assert times.parse_beijing(text) == (us(moment), quality)


@pytest.mark.parametrize(
    ("text", "naive", "moment", "quality"),
    [
        ("2021-10-05T15:13:27.321", "utc", "2021-10-05T15:13:27.321+00:00", EXPLICIT),
        ("2026-01-15T05:00:00.123Z", "utc", "2026-01-15T05:00:00.123+00:00", EXPLICIT),
        ("2016-9-10T12:24:57.321", "utc", "2016-09-10T12:24:57.321+00:00", EXPLICIT),
        ("2024-05-07T17:48:03.847+07:00", "utc", "2024-05-07T10:48:03.847+00:00", EXPLICIT),
        ("2024-05-07T17:48:03-0330", "utc", "2024-05-07T21:18:03+00:00", EXPLICIT),
        ("2024-05-07T17:48:03+08", "utc", "2024-05-07T09:48:03+00:00", EXPLICIT),
        ("2024-05-07T17:48:03", "Asia/Shanghai", "2024-05-07T09:48:03+00:00", ASSUMED),
        ("2024-07-07T17:48:03", "Europe/Berlin", "2024-07-07T15:48:03+00:00", ASSUMED),
        ("2024-02-28T24:00:00", "utc", "2024-02-29T00:00:00+00:00", EXPLICIT),
        ("2016-12-31T23:59:60Z", "utc", "2017-01-01T00:00:00+00:00", EXPLICIT),
        ("2024-05-07T17:48:03.123456789Z", "utc", "2024-05-07T17:48:03.123456+00:00", EXPLICIT),
    ],
)
def test_iso_with_and_without_a_zone(text: str, naive: str, moment: str, quality: str) -> None:
    assert times.parse_iso(text, naive) == (us(moment), quality)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "20261315130000",
        "2026-02-30T00:00:00",
        "2026-01-15",
        "2026-01-15T25:00:00",
        "1969-12-31T00:00:00",
        "２０２６-01-15T05:00:00",
        "2026-01-15T05:00:00+99:00",
        "1" * 400,
        "2026-01-15T24:00:01",
        "99999999999999",
        "20260115130060",
        "2026-01-15T05:00:60Z",
        "2017-01-01T00:59:60Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert times.parse_beijing(text) is None
    assert times.parse_iso(text) is None
    assert times.parse_compact(text) is None


def test_a_zone_that_does_not_exist_is_no_time() -> None:
    assert times.parse_iso("2026-01-15T05:00:00", "Mars/Olympus") is None


def test_epochs_and_ids() -> None:
    assert times.epoch(1_768_453_200.5) == (us("2026-01-15T05:00:00.5+00:00"), EXPLICIT)
    assert times.epoch_ms(1_768_453_200_500) == (us("2026-01-15T05:00:00.5+00:00"), EXPLICIT)
    assert times.epoch(1_768_453_200_500) is None
    assert times.epoch(float("nan")) is None
    assert times.epoch(-1) is None
    assert times.derived("20201209161120") == (us("2020-12-09T08:11:20+00:00"), DERIVED)
    assert times.derived("2020120916112") is None


moments = st.datetimes(datetime(1971, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
offsets = st.integers(-14 * 60 + 1, 14 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moments, offsets)
def test_iso_comes_back_whatever_its_offset(moment: datetime, offset: timezone) -> None:
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert times.parse_iso(moment.astimezone(offset).isoformat()) == (expected, EXPLICIT)


@given(moments)
def test_beijing_comes_back(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    local = moment.astimezone(timezone(timedelta(hours=8)))
    text = f"{local:%Y%m%d%H%M%S}{local.microsecond // 1000:03d}"
    assert times.parse_beijing(text) == (expected, ASSUMED)
    assert times.parse_beijing(local.replace(tzinfo=None).isoformat()) == (expected, ASSUMED)


@given(st.text(max_size=70))
def test_no_text_breaks_it(text: str) -> None:
    for time in (times.parse_iso(text), times.parse_beijing(text), times.parse_iso(text, "Asia/Tokyo")):
        assert time is None or time[0] >= 0
