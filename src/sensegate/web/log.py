"""REST: entries of the log that cannot be read, and entries that an operator has set aside."""

from __future__ import annotations

import msgspec

from sensegate.authority.scope import Action, demand
from sensegate.authority.set_aside import SetAside, SetAsideEntry
from sensegate.bus.unreadable import UNREADABLE, UnreadableEntry
from sensegate.web.bodies import Body, Text
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

_DIGITS_MAX = 19


class EntryNote(Body, frozen=True):
    """Note with which an entry is set aside."""

    note: Text = ""


class LogEntryRow(msgspec.Struct, frozen=True):
    """Entry that cannot be read, or is set aside."""

    sequence: int
    subject: str
    state: str
    """``unreadable`` or ``set_aside``."""
    size: int
    stored: str
    reason: str = ""
    """Reason why it cannot be read, or the note of the operator who set it aside."""
    readers: str = ""
    """Readers that skipped it."""
    by: str = ""
    """Operator who set it aside."""
    at: str = ""
    digest: str = ""


class LogEntryList(msgspec.Struct, frozen=True):
    """Unreadable entries, and entries set aside."""

    rows: list[LogEntryRow]


SET_ASIDE = PartKey[SetAside]("set_aside", absent="this gateway keeps no list of entries that are set aside")


def _set_aside(call: Call) -> SetAside:
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    return call.part(SET_ASIDE)


def _sequence(call: Call) -> int:
    text = call.path("sequence")
    if not (text.isascii() and text.isdigit() and len(text) < _DIGITS_MAX):
        raise BadRequest(f"path: sequence: '{text[:40]}' is not a number; give the sequence of an entry")
    return int(text)


async def _entries(call: Call) -> LogEntryList:
    """List entries of the log that cannot be read and are skipped, and entries that are set aside."""
    set_aside = _set_aside(call).all()
    hidden = {entry.sequence for entry in set_aside}
    unreadable = [entry for entry in UNREADABLE.all() if entry.sequence not in hidden]
    return LogEntryList([*map(_unreadable_row, unreadable), *map(_set_aside_row, set_aside)])


def _unreadable_row(entry: UnreadableEntry) -> LogEntryRow:
    readers = ", ".join(entry.readers)
    row = (entry.sequence, entry.subject, "unreadable", entry.size, iso(entry.stored), entry.reason, readers)
    return LogEntryRow(*row)


def _set_aside_row(entry: SetAsideEntry) -> LogEntryRow:
    return LogEntryRow(
        entry.sequence,
        entry.subject,
        "set_aside",
        entry.size,
        iso(entry.stored),
        entry.note,
        "",
        entry.by,
        iso(entry.at),
        entry.digest,
    )


async def _quarantine(call: Call) -> LogEntryRow:
    """Set an entry of the log aside: readers skip it; a copy is stored in a file. Audited."""
    body = await call.body(EntryNote)
    return _set_aside_row(await _set_aside(call).quarantine(_sequence(call), by=call.principal, note=body.note))


async def _restore(call: Call) -> None:
    """Restore an entry that was set aside. Audited."""
    await _set_aside(call).restore(_sequence(call), by=call.principal)


ROUTES = tagged(
    "accounting",
    Route("GET", f"{API}/log/unreadable", _entries, action=Action.CHANGE_NODES, errors=(404,)),
    Route(
        "POST",
        f"{API}/log/{{sequence}}/quarantine",
        _quarantine,
        action=Action.CHANGE_NODES,
        body=EntryNote,
        errors=(404, 409),
    ),
    Route(
        "DELETE",
        f"{API}/log/{{sequence}}/quarantine",
        _restore,
        action=Action.CHANGE_NODES,
        status=204,
        errors=(404, 409),
    ),
)
