"""An import of devices with its whole report."""

from __future__ import annotations

import msgspec

from sensegate.authority.devices import Devices
from sensegate.authority.importing import ImportRow, RowOutcome, import_in_parts
from sensegate.authority.scope import Principal


class ImportReport(msgspec.Struct, frozen=True):
    """The report on a file."""

    rows: list[ImportRow]
    dry_run: bool

    def count(self, outcome: RowOutcome) -> int:
        """Return the number of rows with an outcome."""
        return sum(row.outcome is outcome for row in self.rows)


async def import_csv(
    devices: Devices, raw: bytes, *, by: Principal, dry_run: bool, update: bool = False
) -> ImportReport:
    """Return the report of `import_in_parts` in order of lines."""
    reported = [
        row async for part in import_in_parts(devices, raw, by=by, dry_run=dry_run, update=update) for row in part
    ]
    return ImportReport(sorted(reported, key=lambda row: row.line), dry_run)
