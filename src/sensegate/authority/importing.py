"""Import of devices from a CSV file: each row is checked and reported; a dry run writes nothing.

The first line names the columns: ``id``, ``division`` and ``profile``, and any other key of a device. Exports of
spreadsheets are accepted: UTF-8 with or without a byte order mark, or GB 18030; comma, semicolon or tab. A device that
is registered with the same entry is left alone, so that a file may be imported twice.
"""

from __future__ import annotations

import asyncio
import csv
import difflib
import io
from collections.abc import AsyncGenerator, Iterator
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
_BATCH = 200
"""Rows in one part of the report; its added devices are in one audit record and in one write."""
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
    """The outcome of a row, or on a dry run the expected one."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class ImportRow(msgspec.Struct, frozen=True):
    """The report on a row."""

    line: int
    """Line of the file on which the row begins; 1 is the header."""
    id: str
    outcome: RowOutcome
    reason: str = ""
    """Reason for refusing the row, or a warning; begins with the column."""
    remedy: str = ""
    password: str = ""
    """Password of an added device, shown only here."""


class _Refusal(Exception):
    def __init__(self, key: str, problem: str, remedy: str = "") -> None:
        self.finding = RuleFinding(key, problem, remedy)
        super().__init__(problem)


def text_of(raw: bytes) -> str:
    """Return the text of a CSV file.

    Raises:
        ConfigError: the file is too large, or neither UTF-8 nor GB 18030.
    """
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"the file has {len(raw)} bytes", remedy=f"give at most {FILE_BYTES_MAX} bytes; split it")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ConfigError("the file is neither UTF-8 nor GB 18030", remedy="save the file as 'CSV UTF-8'")


def rows_of(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, values by column) for each row that is not empty.

    Raises:
        ConfigError: the header is wrong, or there are too many rows.
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
        problem = f"column {missing[0]} is missing" if missing else "a column is named twice"
        raise ConfigError(problem, file="csv", line=1, remedy=f"the first line names the columns: {', '.join(COLUMNS)}")
    count, before = 0, reader.line_num
    while (values := _next(reader, before)) is not None:
        line, before = before + 1, reader.line_num
        if not any(value.strip() for value in values):
            continue
        count += 1
        if count > ROWS_MAX:
            raise ConfigError(f"the file has more than {ROWS_MAX} rows", file="csv", line=line, remedy="split the file")
        # The surplus of values is reported under the empty column.
        yield line, {**dict(zip(names, map(str.strip, values), strict=False)), "": str(len(values) - len(names))}


def _next(reader: Iterator[list[str]], line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as why:
        raise ConfigError(str(why), file="csv", line=line + 1, remedy="quote values that contain quotes") from why


def device_of(values: dict[str, str]) -> Device:
    """Return the entry that a row describes. Raises `_Refusal`."""
    fields: dict[str, object] = {name: value for name, value in values.items() if name and value}
    if surplus := int(values.get("", "0")):
        raise _Refusal(
            "row", f"{abs(surplus)} values too {'many' if surplus > 0 else 'few'}", "quote values with commas"
        )
    if not fields.get("division") and (division := division_of(values.get("id", ""), values.get("alias", ""))):
        fields["division"] = values["division"] = division
    for name in REQUIRED:
        if not fields.get(name):
            raise _Refusal(name, f"{name} is empty", "give a value")
    for name in ("lon", "lat", "interval_s"):
        if name in fields:
            fields[name] = _number(name, values[name])
    if "grade" in fields:
        if not values["grade"].isdecimal() or len(values["grade"]) > 3:
            raise _Refusal("grade", f"'{values['grade'][:20]}' is not a grade", "give 1, 2, 3 or 4")
        fields["grade"] = int(values["grade"])
    if "datum" in fields:
        name = values["datum"].lower().replace("-", "").replace("_", "")
        if name not in {datum.value for datum in Datum}:
            raise _Refusal("datum", f"'{values['datum'][:20]}' is not a datum", f"give one of {', '.join(Datum)}")
        fields["datum"] = Datum(name)
    try:
        fields["division"] = short_code(values["division"])
    except ConfigError as why:
        raise _Refusal("division", why.problem, why.remedy) from why
    return Device(**fields)  # type: ignore[arg-type] # the parsers above have converted each column


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _Refusal(name, f"'{text[:20]}' is not a number", "use a decimal point and no unit") from None


def import_in_parts(
    devices: Devices, raw: bytes, *, by: Principal, dry_run: bool, update: bool = False
) -> AsyncGenerator[list[ImportRow], None]:
    """Check every row, write the valid ones unless `dry_run`; yield the report in parts, as rows are written.

    With `update` existing entries that differ are changed (never their credentials); otherwise such rows are refused.
    Devices behind gateways come last. What was yielded is written, whatever becomes of the rest.

    Raises:
        ConfigError: before the first part: the file cannot be parsed; nothing was written.
    """
    return _Import(devices, by, update=update, dry_run=dry_run).run(list(rows_of(text_of(raw))))


class _Import:
    """An import by a caller."""

    def __init__(self, devices: Devices, by: Principal, *, update: bool, dry_run: bool) -> None:
        self._devices = devices
        self._by = by
        self._update = update
        self._dry_run = dry_run
        self._seen: dict[str, int] = {}
        self._accepted: set[str] = set()
        """Ids of the accepted rows that are not behind a gateway."""

    async def run(self, rows: list[tuple[int, dict[str, str]]]) -> AsyncGenerator[list[ImportRow], None]:
        # Gateways come first, so that devices behind them in the same file find them.
        for behind_gateway in (False, True):
            reported: list[ImportRow] = []
            additions: list[tuple[ImportRow, Device]] = []
            for line, values in rows:
                if bool(values.get("gateway")) is not behind_gateway:
                    continue
                row, device = await self._check(line, values)
                if device is None or self._dry_run:
                    reported.append(row)
                else:
                    additions.append((row, device))
                if len(reported) + len(additions) >= _BATCH:
                    yield reported + await self._add(additions)
                    reported, additions = [], []
                    await asyncio.sleep(0)
            yield reported + await self._add(additions)

    async def _check(self, line: int, values: dict[str, str]) -> tuple[ImportRow, Device | None]:
        """Return the report on a row, and its device if it is to be added."""
        name = values.get("id", "")[:64]
        try:
            device = device_of(values)
            self._require_unique(line, device)
            warning = self._warnings(device)
            outcome = await self._outcome(device)
        except _Refusal as why:
            finding = why.finding
            reason = f"{finding.key}: {finding.problem}"
            return ImportRow(line, name, RowOutcome.REFUSED, reason, finding.remedy), None
        except (PermissionDenied, Conflict, ConfigError, NotFound) as why:
            return ImportRow(line, name, RowOutcome.REFUSED, str(why)), None
        if not device.gateway:
            self._accepted.add(device.id)
        return ImportRow(line, name, outcome, warning), device if outcome is RowOutcome.ADDED else None

    def _require_unique(self, line: int, device: Device) -> None:
        for key, name in (("id", device.id), ("alias", device.alias)):
            if name and self._seen.setdefault(name, line) != line:
                raise _Refusal(key, f"{name} is on line {self._seen[name]} already", "remove one of the two")

    def _warnings(self, device: Device) -> str:
        warnings: list[str] = []
        for finding in self._devices.examine(device, self._by):
            # On a dry run a gateway in the same file is not registered yet; its own row must have been accepted.
            is_accepted = finding.problem.removeprefix("no device ") in self._accepted
            if self._dry_run and finding.key == "gateway" and is_accepted:
                continue
            if not finding.warning:
                raise _Refusal(finding.key, finding.problem, finding.remedy)
            warnings.append(f"{finding.key}: {finding.problem}")
        return "; ".join(warnings)

    async def _outcome(self, device: Device) -> RowOutcome:
        demand(self._by, Action.CHANGE_DEVICES, device.division, device.department)
        if not self._devices.is_present(device.id):
            return RowOutcome.ADDED
        present = self._devices.get(device.id, self._by)
        updated = msgspec.structs.replace(device, state=present.state, revision=present.revision)
        if updated == present:
            return RowOutcome.UNCHANGED
        if not self._update:
            raise _Refusal(
                "id", f"{device.id} is registered with another entry", "import with --update, or rename the device"
            )
        if not self._dry_run:
            await self._devices.change(updated, revision=present.revision, by=self._by)
        return RowOutcome.CHANGED

    async def _add(self, additions: list[tuple[ImportRow, Device]]) -> list[ImportRow]:
        """Record and write devices; return the report on each."""
        if not additions:
            return []
        entries = [facts(device) for _, device in additions]
        target = f"{len(additions)} devices"
        try:
            await self._devices.trail.record(self._by, "device.import", target, after={"devices": entries})
        except SensegateError as why:  # what is not recorded is not written
            return [_not_written(row, why) for row, _ in additions]
        try:
            passwords = await self._devices.write_imported([device for _, device in additions], by=self._by)
        except (Conflict, ConfigError):  # one was registered, or its gateway changed, meanwhile: it alone is refused
            return [await self._write(row, device) for row, device in additions]
        except SensegateError as why:
            return [_not_written(row, why) for row, _ in additions]
        rows = zip(additions, passwords, strict=True)
        return [msgspec.structs.replace(row, password=password) for (row, _), password in rows]

    async def _write(self, row: ImportRow, device: Device) -> ImportRow:
        try:
            (password,) = await self._devices.write_imported([device], by=self._by)
        except SensegateError as why:
            return _not_written(row, why)
        return msgspec.structs.replace(row, password=password)


def _not_written(row: ImportRow, why: SensegateError) -> ImportRow:
    remedy = "import the file again: rows that were written stay as they are"
    return msgspec.structs.replace(row, outcome=RowOutcome.REFUSED, reason=str(why), remedy=remedy)
