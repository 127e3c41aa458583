"""CSV import: a report per row, nothing written on a dry run, a file may be given twice."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.importing import COLUMNS, ROWS_MAX, RowOutcome, import_in_parts
from sensegate.authority.scope import Principal
from sensegate.authority.trail import Facts, MemoryTrail
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError, Conflict, StoreFull, Unavailable
from sensegate.model import Datum, Device
from tests.spoil import TEXTS
from tests.support.importing import ImportReport, import_csv

HEAD = "id,division,profile,alias,lon,lat,datum,grade,name,gateway\n"
GOOD = (
    HEAD
    + "air-1,440106,sensegate/plain,A84041,113.3,23.1,GCJ-02,2,屋顶,\n"
    + "bulb-1,440106,sensegate/plain,,,,,,,bridge-1\n"
    + "\n"
    + "bridge-1,440100,sensegate/plain,,,,,,,\n"
)


def whats(report: ImportReport) -> list[tuple[int, str, str]]:
    return [(row.line, row.id, row.outcome.value) for row in report.rows]


async def test_a_good_file(devices: Devices, admin: Principal) -> None:
    """Each row is added with a password of its own; what is behind a gateway of the same file has none."""
    report = await import_csv(devices, GOOD.encode(), by=admin, dry_run=False)
    assert whats(report) == [(2, "air-1", "added"), (3, "bulb-1", "added"), (5, "bridge-1", "added")]
    air, bulb, bridge = report.rows
    assert devices.verify("air-1", air.password)
    assert devices.verify("bridge-1", bridge.password)
    assert bulb.password == ""
    entry = devices.get("air-1")
    assert (entry.datum, entry.grade, entry.name, entry.alias) == (Datum.GCJ02, 2, "屋顶", "A84041")
    assert devices.get("bridge-1").division == "4401"


async def test_a_dry_run_writes_nothing(devices: Devices, trail: MemoryTrail, admin: Principal) -> None:
    """It reports the same and changes neither registry nor trail."""
    dry = await import_csv(devices, GOOD.encode(), by=admin, dry_run=True)
    assert dry.dry_run
    assert (len(devices), trail.records) == (0, [])
    assert not any(row.password for row in dry.rows)
    real = await import_csv(devices, GOOD.encode(), by=admin, dry_run=False)
    assert whats(dry) == whats(real)


async def test_a_file_may_be_given_twice(devices: Devices, admin: Principal) -> None:
    """What is there already is unchanged; what differs is refused unless told to update, and keeps its password."""
    first = await import_csv(devices, GOOD.encode(), by=admin, dry_run=False)
    repeated = await import_csv(devices, GOOD.encode(), by=admin, dry_run=False)
    assert repeated.count(RowOutcome.UNCHANGED) == 3
    other = GOOD.replace("屋顶", "地面").encode()
    refused = await import_csv(devices, other, by=admin, dry_run=False)
    assert (refused.count(RowOutcome.REFUSED), refused.count(RowOutcome.UNCHANGED)) == (1, 2)
    assert "--update" in refused.rows[0].remedy
    changed = await import_csv(devices, other, by=admin, dry_run=False, update=True)
    assert changed.count(RowOutcome.CHANGED) == 1
    assert devices.get("air-1").name == "地面"
    assert devices.verify("air-1", first.rows[0].password)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("bad id,440106,sensegate/plain,,,,,,,", "id: 'bad id' is not a device id"),
        (",440106,sensegate/plain,,,,,,,", "id: id is empty"),
        ("a,9999,sensegate/plain,,,,,,,", "division: division 9999 belongs to no city in the table"),
        ("a,x,sensegate/plain,,,,,,,", "division: 'x' is not a division code"),
        ("a,440106,plain,,,,,,,", "profile: 'plain' is not vendor/model"),
        ("a,440106,sensegate/plain,,113.3,,,,,", "lat: one of lon and lat is missing"),
        ("a,440106,sensegate/plain,,113.3E,23,,,,", "lon: '113.3E' is not a number"),
        ("a,440106,sensegate/plain,,nan,23,,,,", "lon: the coordinates are out of range"),
        ("a,440106,sensegate/plain,,,,mars,,,", "datum: 'mars' is not a datum"),
        ("a,440106,sensegate/plain,,,,,²,,", "grade: '²' is not a grade"),
        ("a,440106,sensegate/plain,,,,,9,,", "grade: grade 9 does not exist"),
        ("a,440106,sensegate/plain,,,,,,,nobody", "gateway: no device nobody"),
        ("a,440106,sensegate/plain", "row: 7 values too few"),
        ("a,440106,sensegate/plain,,,,,,,,,", "row: 2 values too many"),
    ],
)
async def test_a_wrong_row_is_refused_alone(devices: Devices, admin: Principal, row: str, reason: str) -> None:
    """The report names line, column, what is wrong and what to do; the other rows are taken."""
    raw = f"{HEAD}{row}\nb,440106,sensegate/plain,,,,,,,\n".encode()
    report = await import_csv(devices, raw, by=admin, dry_run=False)
    assert (report.rows[0].line, report.rows[0].outcome, report.rows[0].reason) == (2, RowOutcome.REFUSED, reason)
    assert report.rows[0].remedy
    assert report.rows[1].outcome is RowOutcome.ADDED


async def test_names_that_stand_twice(devices: Devices, admin: Principal) -> None:
    """An id or alias twice in a file is refused at its second place, with the line of the first."""
    raw = (HEAD + "a,440106,p/p,x,,,,,,\na,440106,p/p,,,,,,,\nb,440106,p/p,x,,,,,,\n").encode()
    report = await import_csv(devices, raw, by=admin, dry_run=True)
    assert [row.reason for row in report.rows] == [
        "",
        "id: a is on line 2 already",
        "alias: x is on line 2 already",
    ]


async def test_rows_outside_the_scope_are_refused(devices: Devices, operator: Principal) -> None:
    """A county's operator imports into its county only."""
    raw = (HEAD + "a,440106,p/p,,,,,,,\nb,440103,p/p,,,,,,,\n").encode()
    report = await import_csv(devices, raw, by=operator, dry_run=False)
    assert [row.outcome for row in report.rows] == [RowOutcome.ADDED, RowOutcome.REFUSED]
    assert "outside the scope" in report.rows[1].reason


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_refused_row_vouches_for_no_gateway(
    devices: Devices, admin: Principal, operator: Principal, *, dry_run: bool
) -> None:
    """A gateway of others stays out of reach, though the file has a (refused) row of it before."""
    await devices.add(Device("theirs", "440103", "sensegate/plain"), by=admin)
    raw = b"id,division,profile,gateway\ntheirs,440103,sensegate/plain,\nbad,440106,,\nmine,440106,sensegate/plain,\n"
    raw += b"a,440106,sensegate/plain,theirs\nb,440106,sensegate/plain,bad\nc,440106,sensegate/plain,mine\n"
    report = await import_csv(devices, raw, by=operator, dry_run=dry_run)
    outcomes = {row.id: row.outcome for row in report.rows}
    refused = [name for name, outcome in outcomes.items() if outcome is RowOutcome.REFUSED]
    assert refused == ["theirs", "bad", "a", "b"]
    assert [row.reason for row in report.rows if row.id in "ab"] == [
        "gateway: no device theirs",
        "gateway: no device bad",
    ]
    assert devices.is_present("c") is not dry_run


async def test_a_gateway_that_changes_meanwhile_is_checked_again(
    devices: Devices, trail: MemoryTrail, admin: Principal, operator: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that leaves the scope of the importer while the import is recorded is not attached to."""
    await devices.add(Device("bridge", "440106", "sensegate/plain"), by=admin)
    record = trail.record

    async def moved_first(by: Principal, action: str, target: str, **facts: Facts | None) -> None:
        if action == "device.import":
            at = devices.find("bridge")
            moved = Device("bridge", "440103", "sensegate/plain")
            await devices.change(moved, revision=devices.record(at).revision, by=admin)
        await record(by, action, target, **facts)

    monkeypatch.setattr(trail, "record", moved_first)
    raw = b"id,division,profile,gateway\na,440106,sensegate/plain,bridge\n"
    report = await import_csv(devices, raw, by=operator, dry_run=False)
    assert [row.outcome for row in report.rows] == [RowOutcome.REFUSED]
    assert "no device bridge" in report.rows[0].reason
    assert not devices.is_present("a")


async def test_a_division_of_another_year_is_taken_with_a_warning(devices: Devices, admin: Principal) -> None:
    """The warning stands in the report of the row that was added."""
    report = await import_csv(devices, (HEAD + "a,440116,p/p,,,,,,,\n").encode(), by=admin, dry_run=False)
    assert report.rows[0].outcome is RowOutcome.ADDED
    assert "another year" in report.rows[0].reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_files_as_spreadsheets_write_them(
    devices: Devices, admin: Principal, encoding: str, delimiter: str
) -> None:
    """Encodings, delimiters and line ends of the common ones; a quoted value may hold a line break."""
    text = 'ID,Division,Profile,Name\r\na,440106,p/p,"屋顶"\r\n'.replace(",", delimiter)
    report = await import_csv(devices, text.encode(encoding), by=admin, dry_run=False)
    assert report.rows[0].outcome is RowOutcome.ADDED
    assert devices.get("a").name == "屋顶"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", "column id is missing"),
        (b"id,division\n", "column profile is missing"),
        (b"id,division,profle\n", "did you mean 'profile'"),
        (b"id,division,profile,id\n", "named twice"),
        (b"\xff\xff\xff", "neither UTF-8"),
        (b'id,division,profile\n"a"b,1,2\n', "csv:2"),
    ],
)
async def test_a_file_that_cannot_be_read(devices: Devices, admin: Principal, raw: bytes, error: str) -> None:
    """It is refused as a whole before anything is written, with the line."""
    with pytest.raises(ConfigError, match=error):
        await import_csv(devices, raw, by=admin, dry_run=False)


async def test_too_many_rows(devices: Devices, admin: Principal) -> None:
    """The number of rows is bounded."""
    raw = b"id,division,profile\n" + b"a,44,p/p\n" * (ROWS_MAX + 1)
    with pytest.raises(ConfigError, match="split the file"):
        await import_csv(devices, raw, by=admin, dry_run=True)


async def test_each_import_is_recorded_before_it_is_written(
    devices: Devices, trail: MemoryTrail, admin: Principal
) -> None:
    """All entries stand on the trail, two hundred to a record; no password does."""
    rows = "".join(f"d{number},440106,p/p\n" for number in range(450))
    report = await import_csv(devices, f"id,division,profile\n{rows}".encode(), by=admin, dry_run=False)
    assert [(record[1], record[2]) for record in trail.records] == [
        ("device.import", "200 devices"),
        ("device.import", "200 devices"),
        ("device.import", "50 devices"),
    ]
    assert not any(row.password in str(trail.records) for row in report.rows)


async def test_a_loss_in_the_middle_is_reported_by_row(
    devices: Devices, admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that could not be written is refused in the report, with what to do; the others have their passwords."""
    write = devices.write_imported

    async def flaky(entries: Sequence[Device], *, by: Principal) -> list[str]:
        if any(device.id == "d1" for device in entries):
            raise Conflict("was changed meanwhile") if len(entries) > 1 else Unavailable("the server is away")
        return await write(entries, by=by)

    monkeypatch.setattr(devices, "write_imported", flaky)
    report = await import_csv(
        devices, b"id,division,profile\nd0,4401,p/p\nd1,4401,p/p\nd2,4401,p/p\n", by=admin, dry_run=False
    )
    assert [row.outcome for row in report.rows] == [RowOutcome.ADDED, RowOutcome.REFUSED, RowOutcome.ADDED]
    assert "file again" in report.rows[1].remedy
    assert devices.verify("d2", report.rows[2].password)


async def test_what_is_registered_meanwhile_is_refused_alone(
    devices: Devices, bucket: MemoryBucket, admin: Principal
) -> None:
    """Another process registers a device of the batch: the others are written, and nothing of it is replaced."""
    other = Devices(bucket, MemoryTrail(), FakeClock(1_800_000_000_000_000))
    secret = await other.add(Device("d1", "440106", "p/p"), by=admin)
    report = await import_csv(devices, b"id,division,profile\nd0,4401,p/p\nd1,4401,p/p\n", by=admin, dry_run=False)
    assert [row.outcome for row in report.rows] == [RowOutcome.ADDED, RowOutcome.REFUSED]
    await devices.load()
    assert devices.verify("d1", secret)
    assert devices.verify("d0", report.rows[0].password)


async def test_parts_are_written_when_they_are_reported(
    devices: Devices, trail: MemoryTrail, admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trail that is full in the middle ends nothing: what was reported is there, the rest is refused by row."""
    rows = "".join(f"d{number:03d},440106,p/p\n" for number in range(450))
    reported = []
    async for part in import_in_parts(devices, f"id,division,profile\n{rows}".encode(), by=admin, dry_run=False):
        assert all(devices.verify(row.id, row.password) for row in part if row.outcome is RowOutcome.ADDED)
        reported += part
        monkeypatch.setattr(trail, "record", _full)
    assert [row.outcome for row in reported] == [RowOutcome.ADDED] * 200 + [RowOutcome.REFUSED] * 250
    assert devices.select().sum() == 200


async def _full(*_: object, **__: object) -> None:
    raise StoreFull("AUDIT is full")


@pytest.mark.parametrize("column", COLUMNS)
async def test_any_word_in_any_column_is_taken_or_refused(devices: Devices, admin: Principal, column: str) -> None:
    """Numbers beyond all bounds, other digits, signs that break lines or texts: told by row, never an error."""
    rows = []
    for at, odd in enumerate([*TEXTS, "NaN", "1e400", "9" * 400, "-0", "1" * 5_000, "a\ud800"]):
        row = {"id": f"d{at}", "division": "440106", "profile": "sensegate/plain", "lon": "113", "lat": "23"}
        row[column] = odd.encode("utf-8", "replace").decode()
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    report = await import_csv(devices, text.getvalue().encode(), by=admin, dry_run=False)
    assert len(report.rows) >= len(rows) - 3  # an empty id in an empty row is none
    for device in devices.list():
        assert device.lon is None or abs(device.lon) <= 180
        assert device.interval_s == device.interval_s < 1e12
