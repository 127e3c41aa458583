"""What a centre that stands by tells the command line, and how it is told to become active: files in its directory."""

from __future__ import annotations

import msgspec

PROMOTE = "promote"
"""File by which an operator orders this centre to become active (`sensegate centre promote`)."""
STATUS = "standby.json"


class StandbyStatus(msgspec.Struct, frozen=True):
    """How a centre stands by; in ``<directory>/standby.json``, renewed as long as it stands by."""

    pid: int
    term: int
    """Of the active centre, as far as known."""
    reached: bool
    """The active centre answers."""
    behind: int
    """Entries of its log that are not here yet; -1: not known."""
    written_at: float
    """Unix time."""
