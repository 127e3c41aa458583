"""Files in a standby's directory: its status for the command line, and the order to become active."""

from __future__ import annotations

import msgspec

PROMOTE = "promote"
"""File that orders this centre to become active, written by `sensegate centre promote`."""
STATUS = "standby.json"
LOG, REGISTRIES, TRAIL = "log", "registries", "trail"
"""Parts of a copy; the log while its copy is not whole."""


class StandbyStatus(msgspec.Struct, frozen=True):
    """Status of a standby, in ``<directory>/standby.json``, renewed as long as it stands by."""

    pid: int
    term: int
    """Term of the active centre, as far as known."""
    reached: bool
    """True if the active centre answers."""
    behind: int
    """Entries of its log that are not yet here; -1: not known."""
    missing: tuple[str, ...]
    """Parts of the copy that are not whole: ``log``; since this centre stands by ``registries``, ``trail``."""
    written_at: float
    """Unix time."""

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is missing that the active centre had at its last answer."""
        return self.behind == 0 and not self.missing
