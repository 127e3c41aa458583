"""Times as devices write them: one by one and as columns, and the two agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.decode import times as times_module
from sensegate.decode.times import BAD, TimeReader
from sensegate.quantities.quality import TimeQuality

T0 = 1_767_225_600_000_000
DEVICE, ASSUMED, DERIVED = TimeQuality.DEVICE, TimeQuality.ASSUMED_ZONE, TimeQuality.DERIVED
HOUR = 3_600_000_000

READ = [
    ("iso", "2026-01-01T00:00:00Z", T0, DEVICE),
    ("iso", "2026-01-01 08:00:00+08:00", T0, DEVICE),
    ("iso", "2026-01-01T08:00:00+0800", T0, DEVICE),
    ("iso", "2025-12-31T19:00:00-05:00", T0, DEVICE),
    ("iso", "2026-01-01T08:00", T0, ASSUMED),
    ("iso", "2026-01-01T08:00:00.25", T0 + 250_000, ASSUMED),
    ("iso", "2026-01-01T00:00:00.123456789Z", T0 + 123_456, DEVICE),
    ("iso", "2024-02-29T00:00:00Z", 1_709_164_800_000_000, DEVICE),
    ("epoch", 1_767_225_600, T0, DEVICE),
    ("epoch", 1_767_225_600_000, T0, DEVICE),
    ("epoch", 1_767_225_600.5, T0 + 500_000, DEVICE),
    ("epoch", "1767225600", T0, DEVICE),
    ("epoch_s", 1_767_225_600, T0, DEVICE),
    ("epoch_ms", 1_767_225_600_001, T0 + 1_000, DEVICE),
    ("epoch_us", T0 + 1, T0 + 1, DEVICE),
    ("epoch_ns", T0 * 1_000 + 999, T0, DEVICE),
    ("%Y%m%d%H%M%S", "20260101080000", T0, ASSUMED),
    ("%Y%m%d%H%M%S", 20_260_101_080_000, T0, ASSUMED),
    ("%Y-%m-%d %H:%M:%S", "2026-01-01 08:00:00", T0, ASSUMED),
    ("%Y%m%dT%H%M%S%z", "20260101T000000Z", T0, DEVICE),
    ("%Y-%m-%d %H:%M:%S", "2025-12-31 24:00:00", T0 - 8 * HOUR, ASSUMED),
    ("%Y %m %d %H", "2025 12 31 24", T0 - 8 * HOUR, ASSUMED),
    ("%Y%m%d%H%M%S", "20251231240000", T0 - 8 * HOUR, ASSUMED),
    ("%Y%m%dT%H%M%S%z", "20251231T240000Z", T0, DEVICE),
    ("%y.%j %H:%M", "25.365 24:00", T0 - 8 * HOUR, ASSUMED),
    ("iso", "2025-12-31T23:59:60Z", T0, DEVICE),
    ("iso", "2025-12-31T23:59:60.5Z", T0 + 500_000, DEVICE),
    ("iso", "2026-01-01T05:29:60+05:30", T0, DEVICE),
    ("iso", "2026-01-01T07:59:60", T0, ASSUMED),
    ("%Y%m%d%H%M%S", "20260101075960", T0, ASSUMED),
    ("%Y-%m-%dT%H:%M:%S%z", "2025-12-31T23:59:60Z", T0, DEVICE),
    ("age_s", 2, -2_000_000, DERIVED),
    ("age_ms", 1.5, -1_500, DERIVED),
    ("senml", 0, 0, DERIVED),
    ("senml", -5, -5_000_000, DERIVED),
    ("senml", 1_767_225_600.25, T0 + 250_000, DEVICE),
]


@pytest.mark.parametrize(("form", "raw", "time", "quality"), READ, ids=str)
def test_time_is_read_with_its_quality(form: str, raw: object, time: int, quality: TimeQuality) -> None:
    """Each format gives µs UTC, and says whether the zone was given, assumed, or the time worked out."""
    received = T0 + HOUR if time >= T0 or quality is DEVICE else 0
    reader = TimeReader((form,))
    assert reader.parse(raw, received) == (time, quality)
    times, qualities = reader.column([raw] * 3, np.full(3, received, np.int64))
    assert times.tolist() == [time] * 3
    assert qualities.tolist() == [quality] * 3


WRONG = [
    ("iso", "2026-02-29T00:00:00Z"),
    ("iso", "2026-13-01T00:00:00Z"),
    ("iso", "2026-01-01T24:00:01Z"),
    ("iso", "2026-01-01T00:00:60Z"),
    ("iso", "2025-12-30T23:59:60Z"),
    ("iso", "2025-12-31T23:59:60"),
    ("iso", "9999-12-31T23:59:60Z"),
    ("iso", "2025-12-31T23:59:61Z"),
    ("%Y%m%d%H%M%S", "20260101080060"),
    ("%Y%m%d%H%M%S", "20260101075961"),
    ("iso", "2026-01-01T00:00:00+24:00"),
    ("iso", "2026-01-01"),
    ("iso", "２０２６-01-01T00:00:00Z"),
    ("iso", "0000-01-01T00:00:00Z"),
    ("iso", "x" * 1_000),
    ("iso", 1_767_225_600),
    ("epoch", 1e14),
    ("epoch", 10**14),
    ("epoch", 10**400),
    ("epoch", -(2**63)),
    ("epoch_ns", -(2**63)),
    ("epoch", float("nan")),
    ("epoch", True),
    ("epoch", None),
    ("epoch", "soon"),
    ("epoch_s", 10**12),
    ("age_s", -1),
    ("%Y%m%d%H%M%S", "20260231080000"),
    ("%Y%m%d%H%M%S", "2026"),
    ("%Y-%m-%d %H:%M", "2025-12-31 24:01"),
    ("%Y-%m-%d %H:%M", "2025-02-30 24:00"),
    ("%Y %m %d %H", "2025 12 31 25"),
    ("%Y-%m-%d", "2025-12-24 24:00"),
    ("%Y-%m-%d %H:%M", "9999-12-31 24:00"),
]


@pytest.mark.parametrize(("form", "raw"), WRONG, ids=lambda value: str(value)[:30])
def test_what_is_no_time_is_bad(form: str, raw: object) -> None:
    """Nothing is dated by guess."""
    reader = TimeReader((form,))
    assert reader.parse(raw, T0)[0] == BAD
    assert reader.column([raw] * 3, np.full(3, T0, np.int64))[0].tolist() == [BAD] * 3


def test_period_that_is_stamped_with_its_start_is_dated_at_its_end() -> None:
    """The shift is added, the time is `DERIVED`."""
    reader = TimeReader(("epoch_s",), shift=HOUR)
    assert reader.parse(1_767_225_600, 0) == (T0 + HOUR, DERIVED)
    times, qualities = reader.column([1_767_225_600, 10**12], np.zeros(2, np.int64))
    assert times.tolist() == [T0 + HOUR, BAD]
    assert qualities.tolist()[0] == DERIVED


forms = st.lists(
    st.sampled_from(
        ["iso", "epoch", "epoch_s", "epoch_ms", "epoch_ns", "age_s", "senml", "%Y%m%d%H%M%S", "%d/%m/%Y %H:%M"]
    ),
    min_size=1,
    max_size=3,
    unique=True,
)
ends = st.sampled_from(["", "Z", "+08:00", "-03:30", ".5", ".123Z", ".123456+08:00", ".1234567"])
texts = st.one_of(
    st.tuples(st.datetimes(), ends).map(lambda pair: pair[0].isoformat(timespec="seconds") + pair[1]),
    st.datetimes().map(lambda at: at.strftime("%Y%m%d%H%M%S")),
    st.datetimes().map(lambda at: at.strftime("%d/%m/%Y %H:%M")),
    st.from_regex(r"\A20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-6]\d:[0-6]\dZ\Z"),
    st.text(max_size=20),
    st.sampled_from(
        ["0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59-14:00",
         "9999-12-31T24:00:00Z", "99991231240000", "00010101000000", "1969-12-31T23:59:59", "2016-12-31T23:59:60Z",
         "2026-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-01-01T00:00:00+23:59",
         "٢٠٢٦-٠١-٠١T٠٠:٠٠:٠٠", "31/12/9999 24:00", "01/01/0001 00:00", "1883-11-18T12:00:00", "²"]
    ),
)  # fmt: skip
numbers = st.one_of(st.integers(-(10**15), 10**15), st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none())


@settings(max_examples=settings().max_examples * 3)
@given(
    forms,
    st.one_of(
        st.lists(texts, min_size=1, max_size=6),
        st.lists(numbers, min_size=1, max_size=6),
        st.lists(st.floats(-2e14, 2e14), min_size=1, max_size=6),  # of one kind: read as a column
        st.lists(st.floats(0, 2e9), min_size=1, max_size=6),
    ),
    st.sampled_from(["Asia/Shanghai", "UTC", "America/St_Johns", "Pacific/Kiritimati", "Africa/Monrovia"]),
    st.sampled_from([0, 0, 1, HOUR, 366 * 24 * HOUR]),
)
def test_column_says_what_one_says(formats: list[str], raws: list[object], zone: str, shift: int) -> None:
    """The columns are only quicker."""
    reader = TimeReader(tuple(formats), zone, shift)
    received = np.arange(T0, T0 + len(raws), dtype=np.int64)
    times, qualities = reader.column(raws, received)
    expected = [reader.parse(raw, int(at)) for raw, at in zip(raws, received, strict=True)]
    assert list(zip(times.tolist(), qualities.tolist(), strict=True)) == expected
    assert all(time == BAD or abs(time) < 2**61 for time, _ in expected)


_HOURS = [
    ("iso", "2026-03-01T05:{0}:{1}.{2}Z"),
    ("iso", "2026-03-01 23:{0}:{1}+08:00"),
    ("iso", "1969-12-31T23:{0}:{1}"),
    ("iso", "2026-03-01T24:{0}:{1}"),
    ("iso", "2026-02-29T05:{0}:{1}Z"),
    ("%Y-%m-%d %H:%M:%S", "2026-03-01 05:{0}:{1}"),
    ("%S%M%H/%d.%m.%Y", "{1}{0}05/01.03.2026"),
    ("%Y%m%dT%H%M%S%z", "20260301T05{0}{1}Z"),
    ("%Y%m%d%H%M%S", "2026030124{0}{1}"),
    ("%Y-%m-%d %H:%M", "2026-03-01 05:{0}"),
]


@given(
    st.sampled_from(_HOURS),
    st.lists(st.tuples(st.integers(0, 66), st.integers(0, 66), st.integers(0, 999)), min_size=2, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 23), st.sampled_from("0359:.-TZ ")), max_size=2),
)
def test_texts_of_one_hour_are_read_like_each(
    form: tuple[str, str], times: list[tuple[int, int, int]], changes: list[tuple[int, int, str]]
) -> None:
    """A column of texts of one hour gives what each text gives, also with digits out of range and other characters."""
    texts = [form[1].format(f"{minute:02}", f"{second:02}", f"{part:03}") for minute, second, part in times]
    for number, place, character in changes:
        text = texts[number % len(texts)]
        texts[number % len(texts)] = (text[:place] + character + text[place + 1 :])[: len(text)]
    reader = TimeReader((form[0],))
    read, qualities = reader.column(texts, np.zeros(len(texts), np.int64))
    assert list(zip(read.tolist(), qualities.tolist(), strict=True)) == [reader.parse(text, 0) for text in texts]


def test_an_hour_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: texts of one hour are not parsed as columns of six parts; those of two hours are."""
    parsed: list[int] = []
    civil = times_module._civil_columns

    def counted(rows: np.ndarray, layout: object) -> object:
        parsed.append(len(rows))
        return civil(rows, layout)  # type: ignore[arg-type] # the layout as handed in

    monkeypatch.setattr(times_module, "_civil_columns", counted)
    texts = [f"2026-03-01T05:{minute:02}:07.125Z" for minute in range(60)]
    read, _ = TimeReader().column(texts, np.zeros(60, np.int64))
    assert not parsed
    assert np.diff(read).tolist() == [60_000_000] * 59
    TimeReader().column([*texts, "2026-03-01T06:00:07.125Z"], np.zeros(61, np.int64))
    assert parsed == [61]


@given(st.datetimes(timezones=st.just(UTC)))
def test_iso_round_trip(at: datetime) -> None:
    """What Python writes as ISO 8601 is read back to the microsecond."""
    micros = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert TimeReader().parse(at.isoformat(), 0) == (micros, DEVICE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T24:00:00Z", "2026-01-02T00:00:00Z"),
        ("2026-01-01T24:00:00+08:00", "2026-01-02T00:00:00+08:00"),
        ("2026-12-31 24:00", "2027-01-01 00:00"),
        ("2026-01-01T24:00:00.000Z", "2026-01-02T00:00:00.000Z"),
        ("2026-01-01T24:00:00Z/PT1H", "2026-01-02T00:00:00Z/PT1H"),
    ],
)
def test_the_end_of_a_day_in_iso(text: str, expected: str) -> None:
    """24:00 is the beginning of the next day, alone and as the begin of an interval."""
    reader = TimeReader(("iso",), interval="start")
    assert reader.parse(text, 1_767_225_600_000_000) == reader.parse(expected, 1_767_225_600_000_000)
    assert reader.parse(text, 1_767_225_600_000_000)[0] > 0


@pytest.mark.parametrize("text", ["2026-01-01T24:00:01Z", "2026-01-01T24:01:00Z", "2026-01-01T25:00:00Z"])
def test_after_the_end_of_a_day_there_is_no_time(text: str) -> None:
    """Control: only midnight has a second name."""
    assert TimeReader(("iso",)).parse(text, 1_767_225_600_000_000)[0] < 0
