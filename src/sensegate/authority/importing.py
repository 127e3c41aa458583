"""Many devices from a CSV file: examined row by row, a report for each, nothing written on a dry run.

The first line names the columns: ``id``, ``division`` and ``profile``, and any other key of a device. Files of
spreadsheets are taken as they come: UTF-8 with or without a mark, or GB 18030; comma, semicolon or tab. An id that is
registered already with the same entry is left alone, so that a file may be given twice.
"""

from __future__ import annotations

import asyncio
import csv
import difflib
import io
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from sensegate.authority.camera_codes import division_of
from sensegate.authority.device_rules import RuleFinding
from sensegate.authority.devices import Devices, facts
from sensegate.authority.divisions import short_code
from sensegate.authority.scope import Action, Principal, demand
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied, SensegateError
from sensegate.model import Datum, Device

ROWS_MAX = 200_000
FILE_BYTES_MAX = 64 * 1024**2
_TOGETHER = 64
"""Writes on the way at once."""
_RECORDED = 100
"""Devices in one audit record."""
REQUIRED = ("id", "division", "profile")
COLUMNS = (
    *REQUIRED,
    *(
        "alias",
        "gateway",
        "lon",
        "lat",
        "datum",
        "department",
        "domain",
        "grade",
        "interval_s",
        "owner",
        "name",
        "asset",
    ),
)


class RowOutcome(StrEnum):
    """What became, or on a dry run would become, of a row."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class ImportRow(msgspec.Struct, frozen=True):
    """The report on one row."""

    line: int
    """Line of the file on which the row begins; 1 is the line of names."""
    id: str
    outcome: RowOutcome
    reason: str = ""
    """Why it was refused, or a warning on what was taken; begins with the column."""
    remedy: str = ""
    password: str = ""
    """Of an added device, shown only here."""


class ImportReport(msgspec.Struct, frozen=True):
    """The report on a file."""

    rows: list[ImportRow]
    dry_run: bool

    def count(self, what: RowOutcome) -> int:
        """Return how many rows ended so."""
        return sum(row.outcome is what for row in self.rows)


class _Refusal(Exception):
    def __init__(self, key: str, what: str, remedy: str = "") -> None:
        self.finding = RuleFinding(key, what, remedy)
        super().__init__(what)


def text_of(raw: bytes) -> str:
    """Return the text of a CSV file.

    Raises:
        ConfigError: it is too large, or neither UTF-8 nor GB 18030.
    """
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"file of {len(raw)} bytes", remedy=f"at most {FILE_BYTES_MAX}; split it")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ConfigError("neither UTF-8 nor GB 18030", remedy="save the file as 'CSV UTF-8'")


def rows_of(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, column -> value) for each row that is not empty.

    Raises:
        ConfigError: the line of names is wrong, or there are too many rows.
    """
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = [name.strip().lower() for name in _next(reader, 0) or []]
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"known columns: {', '.join(COLUMNS)}"
            raise ConfigError("unknown column", line=1, file="csv", key=name[:40] or "(empty)", remedy=remedy)
    missing = [name for name in REQUIRED if name not in names]
    if missing or len(set(names)) != len(names):
        what = f"no column {missing[0]}" if missing else "a column stands twice"
        raise ConfigError(what, file="csv", line=1, remedy=f"the first line names the columns: {', '.join(COLUMNS)}")
    count, before = 0, reader.line_num
    while (values := _next(reader, before)) is not None:
        line, before = before + 1, reader.line_num
        if not any(value.strip() for value in values):
            continue
        count += 1
        if count > ROWS_MAX:
            raise ConfigError(f"more than {ROWS_MAX} rows", file="csv", line=line, remedy="split the file")
        # Too many or too few values are seen by the count of the keys.
        yield line, {**dict(zip(names, map(str.strip, values), strict=False)), "": str(len(values) - len(names))}


def _next(reader: Iterator[list[str]], line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as why:
        raise ConfigError(str(why), file="csv", line=line + 1, remedy="quote values that hold quotes") from why


def device_of(values: dict[str, str]) -> Device:
    """Return the entry that a row describes. Raises `_Refusal`."""
    kept: dict[str, object] = {name: value for name, value in values.items() if name and value}
    if off := int(values.get("", "0")):
        raise _Refusal("row", f"{abs(off)} values too {'many' if off > 0 else 'few'}", "quote values with commas")
    if not kept.get("division") and (place := division_of(values.get("id", ""), values.get("alias", ""))):
        kept["division"] = values["division"] = place
    for name in REQUIRED:
        if not kept.get(name):
            raise _Refusal(name, f"{name} is empty", "give it")
    for name in ("lon", "lat", "interval_s"):
        if name in kept:
            kept[name] = _number(name, values[name])
    if "grade" in kept:
        if not values["grade"].isdecimal() or len(values["grade"]) > 3:
            raise _Refusal("grade", f"'{values['grade'][:20]}' is no grade", "give 1, 2, 3 or 4")
        kept["grade"] = int(values["grade"])
    if "datum" in kept:
        name = values["datum"].lower().replace("-", "").replace("_", "")
        if name not in {datum.value for datum in Datum}:
            raise _Refusal("datum", f"'{values['datum'][:20]}' is no datum", f"one of {', '.join(Datum)}")
        kept["datum"] = Datum(name)
    try:
        kept["division"] = short_code(values["division"])
    except ConfigError as why:
        raise _Refusal("division", why.problem, why.remedy) from why
    return Device(**kept)  # type: ignore[arg-type] # of the right types by the columns' own parsers


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _Refusal(name, f"'{text[:20]}' is no number", "decimal point, no unit") from None


async def import_csv(
    devices: Devices, raw: bytes, *, by: Principal, dry_run: bool, update: bool = False
) -> ImportReport:
    """Examine every row, write what is good unless `dry_run`, and report on each row in order of lines.

    `update`: entries that are there and differ are changed (never their credentials); else such rows are refused.

    Raises:
        ConfigError: the file as a whole cannot be read: nothing was written.
    """
    return await _Import(devices, by, update=update, dry_run=dry_run).run(list(rows_of(text_of(raw))))


class _Import:
    """One import by one caller."""

    def __init__(self, devices: Devices, by: Principal, *, update: bool, dry_run: bool) -> None:
        self._devices = devices
        self._by = by
        self._update = update
        self._dry_run = dry_run
        self._seen: dict[str, int] = {}
        self._report: dict[int, ImportRow] = {}

    async def run(self, rows: list[tuple[int, dict[str, str]]]) -> ImportReport:
        # Gateways first, so that what is behind them in the same file finds them.
        for behind in (False, True):
            adding: list[tuple[ImportRow, Device]] = []
            for count, (line, values) in enumerate(rows):
                if bool(values.get("gateway")) is behind and (device := await self._judge(line, values)):
                    adding.append((self._report[line], device))
                if count % 500 == 499:
                    await asyncio.sleep(0)
            if not self._dry_run:
                await self._add(adding)
        return ImportReport([self._report[line] for line in sorted(self._report)], self._dry_run)

    async def _judge(self, line: int, values: dict[str, str]) -> Device | None:
        """Report on a row; return its device if it is to be added."""
        name = values.get("id", "")[:64]
        try:
            device = device_of(values)
            self._once(line, device)
            warning = self._examined(device)
            what = await self._fate(device)
        except _Refusal as why:
            found = why.finding
            self._report[line] = ImportRow(
                line, name, RowOutcome.REFUSED, f"{found.key}: {found.problem}", found.remedy
            )
        except (PermissionDenied, Conflict, ConfigError, NotFound) as why:
            self._report[line] = ImportRow(line, name, RowOutcome.REFUSED, str(why))
        else:
            self._report[line] = ImportRow(line, name, what, warning)
            return device if what is RowOutcome.ADDED else None
        return None

    def _once(self, line: int, device: Device) -> None:
        for key, name in (("id", device.id), ("alias", device.alias)):
            if name and self._seen.setdefault(name, line) != line:
                raise _Refusal(key, f"{name} stands on line {self._seen[name]} already", "remove one of the two")

    def _examined(self, device: Device) -> str:
        warnings: list[str] = []
        for finding in self._devices.examine(device):
            # On a dry run a gateway of the same file is not registered yet.
            if finding.key == "gateway" and finding.problem.removeprefix("no device ") in self._seen:
                continue
            if not finding.warning:
                raise _Refusal(finding.key, finding.problem, finding.remedy)
            warnings.append(f"{finding.key}: {finding.problem}")
        return "; ".join(warnings)

    async def _fate(self, device: Device) -> RowOutcome:
        demand(self._by, Action.CHANGE_DEVICES, device.division, device.department)
        if not self._devices.is_present(device.id):
            return RowOutcome.ADDED
        present = self._devices.get(device.id, self._by)
        wanted = msgspec.structs.replace(device, state=present.state, revision=present.revision)
        if wanted == present:
            return RowOutcome.UNCHANGED
        if not self._update:
            raise _Refusal("id", f"{device.id} is registered with another entry", "import with --update, or rename it")
        if not self._dry_run:
            await self._devices.change(wanted, revision=present.revision, by=self._by)
        return RowOutcome.CHANGED

    async def _add(self, adding: list[tuple[ImportRow, Device]]) -> None:
        for start in range(0, len(adding), _RECORDED):
            part = adding[start : start + _RECORDED]
            entries = [facts(device) for _, device in part]
            await self._devices.trail.record(
                self._by, "device.import", f"{len(part)} devices", after={"devices": entries}
            )
            room = asyncio.Semaphore(_TOGETHER)
            async with asyncio.TaskGroup() as group:
                for row, device in part:
                    group.create_task(self._write(row, device, room))

    async def _write(self, row: ImportRow, device: Device, room: asyncio.Semaphore) -> None:
        async with room:
            try:
                password = await self._devices.write_imported(device)
            except SensegateError as why:
                remedy = "give the file again: rows that were written stay as they are"
                written = msgspec.structs.replace(row, outcome=RowOutcome.REFUSED, reason=str(why), remedy=remedy)
            else:
                written = msgspec.structs.replace(row, password=password)
            self._report[row.line] = written
