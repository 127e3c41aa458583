"""Time series with known irregularities through CSV profiles: every gap, doubled time and missing value comes out.

The files are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `timeseries/`. What is expected is what
its README says, written down here. ``pytest -s`` prints the table.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from sensegate.authoring import check_profile
from sensegate.authoring.examples import ExampleReading, NamedDevices, readings_of
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.profiles import files
from sensegate.model import Message

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
HERE = Path(__file__).parent / "profiles"
LIBRARY = Path(__file__).parents[2] / "device_profiles"
RECEIVED = 1_767_225_600_000_000
HOUR = 3_600_000_000
ROWS_MAX = 150
"""Rows in one message: so many that a message stays below the limits of size and values."""

needs_samples = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with timeseries/README.md"
)


class Line(NamedTuple):
    """One line of the table."""

    file: str
    figure: str
    expected: object
    actual: object


class Read(NamedTuple):
    """What became of a file."""

    rows: int
    readings: list[ExampleReading]
    ignored: int
    refused: int


def read(file: str, profile: str, topic: str, devices: list[str], *, header: bool = True, gateway: str = "") -> Read:
    """Decode a file in messages of some rows, a minute apart, each with the header."""
    lines = (Path(SAMPLES) / "timeseries" / file).read_text(encoding="utf-8").splitlines(keepends=True)
    head = lines.pop(0) if header else ""
    profiles = ProfileSet.load([HERE, LIBRARY / "citysense"])
    registry = NamedDevices(devices, profile, gateway=gateway)
    parts = [head + "".join(lines[at : at + ROWS_MAX]) for at in range(0, len(lines), ROWS_MAX)]
    messages = [Message(topic, part.encode(), RECEIVED + at * 60_000_000, at) for at, part in enumerate(parts)]
    fields = Decoder(profiles, registry).decode(messages)
    assert not fields.rejected, fields.rejected[:3]
    readings = readings_of(fields, profiles.specs, registry)
    return Read(len(lines), readings, fields.ignored, len(fields.quarantined))


# ── Beijing: hours, and how many are missing ─────────────────────────────────────────────────────────

COLUMNS = {
    "PM2.5": "pm2_5",
    "PM10": "pm10",
    "SO2": "so2",
    "NO2": "no2",
    "CO": "co",
    "O3": "o3",
    "TEMP": "air_temperature",
    "PRES": "air_pressure",
    "DEWP": "dew_point",
    "RAIN": "rainfall_hour",
    "wd": "wind_direction",
    "WSPM": "wind_speed",
}
WEATHER = dict.fromkeys(("TEMP", "PRES", "DEWP", "RAIN"), (7, 6)) | {"wd": (41, 5), "WSPM": (5, 5)}
MISSING = {
    "aotizhongxin": WEATHER
    | {"PM2.5": (177, 28), "PM10": (111, 25), "SO2": (134, 25), "NO2": (223, 25), "CO": (128, 25), "O3": (279, 25)},
    "dongsi": WEATHER
    | {"PM2.5": (353, 58), "PM10": (300, 57), "SO2": (304, 57), "NO2": (317, 57), "CO": (318, 57), "O3": (320, 57)},
}
"""Station -> column -> (missing values, longest run in hours)."""
HOURS = 8_784


def longest_run(there: set[int], hours: range) -> int:
    """Return the greatest number of hours on end that are not there."""
    longest = run = 0
    for hour in hours:
        run = 0 if hour in there else run + 1
        longest = max(longest, run)
    return longest


def beijing(station: str) -> Iterator[Line]:
    """Yield the lines of one station."""
    file = f"beijing-prsa-{station}-2016.csv"
    content = read(file, "prsa/station", f"prsa/{station}", [station])
    times = {reading.time for reading in content.readings}
    first = int(datetime(2015, 12, 31, 16, tzinfo=UTC).timestamp()) * 1_000_000  # midnight in China
    hours = range(first, first + HOURS * HOUR, HOUR)
    yield Line(file, "rows, refused messages", (HOURS, 0), (content.rows, content.refused))
    yield Line(file, "hours that are not there, or not of the year", 0, len(set(hours) ^ times))
    for column, name in COLUMNS.items():
        own = [reading.time for reading in content.readings if reading.property == name]
        gaps = (HOURS - len(own), longest_run(set(own), hours))
        yield Line(file, f"{column} missing, longest run", MISSING[station][column], gaps)
        yield Line(file, f"{column} doubled", 0, len(own) - len(set(own)))
    yield Line(file, "missing in all", sum(count for count, _ in MISSING[station].values()), content.ignored)


def weather_of_two_stations() -> Iterator[Line]:
    """Yield whether the two stations have the same weather, and other pollutants."""
    values: dict[str, dict[str, list[tuple[int, object]]]] = {}
    for station in MISSING:
        content = read(f"beijing-prsa-{station}-2016.csv", "prsa/station", f"prsa/{station}", [station])
        for reading in content.readings:
            values.setdefault(reading.property, {}).setdefault(station, []).append((reading.time, reading.value))
    for column, name in COLUMNS.items():
        left, right = values[name].values()
        yield Line("both stations", f"{column} the same", column in WEATHER, left == right)


# ── road traffic: cadence, gaps, doubled times ───────────────────────────────────────────────────────


class Road(NamedTuple):
    """A row of the table of the README."""

    topic: str
    rows: int
    first: str
    last: str
    cadence_min: int
    doubled: int
    disordered: int
    gaps: int
    longest_h: float
    low: float
    high: float


ROADS = {
    "nab-TravelTime_387.csv": Road("TravelTime", 2_500, "07-10", "09-17", 10, 0, 0, 821, 24.5, 9, 5_059),
    "nab-occupancy_6005.csv": Road("occupancy", 2_380, "09-01", "09-17", 5, 0, 0, 570, 84.1, 0, 22.28),
    "nab-speed_t4013.csv": Road("speed", 2_495, "09-01", "09-17", 5, 1, 0, 545, 84.4, 11, 77),
    "nab-speed_7578.csv": Road("speed", 1_127, "09-08", "09-17", 5, 0, 0, 381, 7.0, 1, 90),
}
KM = 1.609344


def road(file: str, expected: Road) -> Iterator[Line]:
    """Yield the lines of one file."""
    content = read(file, "nab/road", f"nab/d1/{expected.topic}", ["d1"])
    times = [reading.time for reading in content.readings]
    steps = [after - before for before, after in pairwise(times)]
    cadence = Counter(step for step in steps if step > 0).most_common(1)[0][0]
    factor = KM if expected.topic == "speed" else 1.0
    values = [float(reading.value) / factor for reading in content.readings]
    road = Road(
        topic=expected.topic,
        rows=len(times),
        first=local(times[0]),
        last=local(times[-1]),
        cadence_min=cadence // 60_000_000,
        doubled=sum(step == 0 for step in steps),
        disordered=sum(step < 0 for step in steps),
        gaps=sum(step > 1.5 * cadence for step in steps),
        longest_h=(max(steps) * 10 + HOUR // 2) // HOUR / 10,  # half a tenth is rounded up, as in the README
        low=round(min(values), 6),
        high=round(max(values), 6),
    )
    for name in Road._fields[1:]:
        yield Line(file, name, getattr(expected, name), getattr(road, name))
    yield Line(file, "refused messages, missing values", (0, 0), (content.refused, content.ignored))


def local(time: int) -> str:
    """Return month and day in the Twin Cities, in summer."""
    return f"{datetime.fromtimestamp(time / 1e6, UTC) - timedelta(hours=5):%m-%d}"


# ── fixed width: sentinels ───────────────────────────────────────────────────────────────────────────

STATIONS, STATION_HOURS, POLLUTANTS = 7, 48, ("so2", "no2", "co", "o3", "pm10", "pm2_5")


def fixed_width() -> Iterator[Line]:
    """Yield the lines of the table without header."""
    file = "made-hourly-fixed-width.txt"
    lines = (Path(SAMPLES) / "timeseries" / file).read_text(encoding="utf-8").splitlines()
    names = sorted({line[:5] for line in lines})
    topic = "citysense/hourly-text/gw"
    content = read(file, "citysense/hourly-text", topic, names, header=False, gateway="gw")
    places = {(reading.device, reading.time) for reading in content.readings if reading.property == "longitude"}
    values = [reading for reading in content.readings if reading.property in POLLUTANTS]
    sentinels = sum(line.count(" -9999") for line in lines)
    whole = sum(line.count(" -9999") == len(POLLUTANTS) for line in lines)
    heard = Counter((value.device, value.time) for value in values)
    times = sorted({time for _, time in places})
    yield Line(file, "rows, refused messages", (STATIONS * STATION_HOURS, 0), (content.rows, content.refused))
    yield Line(file, "stations, hours", (STATIONS, STATION_HOURS), (len({device for device, _ in places}), len(times)))
    yield Line(file, "hours on end", (STATION_HOURS - 1) * HOUR, times[-1] - times[0])
    yield Line(file, "sentinels (counted in the text)", sentinels, content.ignored)
    yield Line(file, "values", STATIONS * STATION_HOURS * len(POLLUTANTS) - sentinels, len(values))
    yield Line(file, "rows with sentinels only (in the text)", whole, len(places) - len(heard))
    yield Line(file, "values of -9999", 0, sum(reading.value == -9999 for reading in content.readings))


def lines() -> Iterator[Line]:
    """Yield the whole table."""
    for station in MISSING:
        yield from beijing(station)
    yield from weather_of_two_stations()
    for file, expected in ROADS.items():
        yield from road(file, expected)
    yield from fixed_width()


def table(lines: list[Line]) -> str:
    """Return the table as text."""
    rows = [f"{line.file:34} {line.figure:46} {line.expected!s:>14} {line.actual!s:>14}" for line in lines]
    return "\n".join([f"{'file':34} {'what':46} {'expected':>14} {'seen':>14}", *rows])


@pytest.mark.slow
@needs_samples
def test_every_file_has_what_its_readme_counts() -> None:
    """Rows, gaps, doubled times, missing values, longest runs and ranges are those that the README states."""
    rows = list(lines())
    print(f"\n{table(rows)}")
    assert [line for line in rows if line.expected != line.actual] == []
    assert len(rows) > 100


@needs_samples
def test_every_file_is_looked_at() -> None:
    """No series of the folder is left out."""
    there = {path.name for path in (Path(SAMPLES) / "timeseries").iterdir() if path.suffix in {".csv", ".txt"}}
    known = {*ROADS, *(f"beijing-prsa-{station}-2016.csv" for station in MISSING), "made-hourly-fixed-width.txt"}
    assert {name for name in there if not name.startswith("LICENSE")} == known


@pytest.mark.parametrize("file", files([HERE]), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_profiles_of_this_folder_hold(file: Path) -> None:
    """The profiles that only these tests use keep their examples."""
    assert [str(problem) for problem in check_profile(file)] == []
