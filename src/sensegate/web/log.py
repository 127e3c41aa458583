"""REST: entries of the log that cannot be read, and those that an operator has set aside."""

from __future__ import annotations

from typing import Any

import msgspec

from sensegate.authority.scope import Action, demand
from sensegate.authority.set_aside import SetAside, SetAsideEntry
from sensegate.bus.unreadable import UNREADABLE, UnreadableEntry
from sensegate.ports import Part
from sensegate.web.bodies import Body, Text
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Route, iso

_DIGITS_MAX = 19


class EntryNote(Body, frozen=True):
    """Why an entry is set aside."""

    note: Text = ""


class LogEntryRow(msgspec.Struct, frozen=True):
    """An entry that cannot be read, or is set aside."""

    sequence: int
    subject: str
    state: str
    """``unreadable`` or ``set_aside``."""
    size: int
    stored: str
    reason: str = ""
    """Why it cannot be read; of one that is set aside, the note."""
    readers: str = ""
    """Readers that passed it over."""
    by: str = ""
    """Who has set it aside."""
    at: str = ""
    digest: str = ""


class LogEntries(msgspec.Struct, frozen=True):
    """All of them that are known."""

    rows: list[LogEntryRow]


SET_ASIDE = Part[SetAside]("set_aside", absent="this gateway keeps no list of entries that are set aside")


def _set_aside(call: Call) -> SetAside:
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    return call.part(SET_ASIDE)


def _sequence(call: Call) -> int:
    text = call.path("sequence")
    if not (text.isascii() and text.isdigit() and len(text) < _DIGITS_MAX):
        raise BadRequest(f"path: sequence: '{text[:40]}' is no number; give the sequence of an entry")
    return int(text)


async def _entries(call: Call) -> Any:
    kept = _set_aside(call).all()
    hidden = {entry.sequence for entry in kept}
    unreadable = [entry for entry in UNREADABLE.all() if entry.sequence not in hidden]
    return LogEntries([*map(_unreadable, unreadable), *map(_kept, kept)])


def _unreadable(entry: UnreadableEntry) -> LogEntryRow:
    readers = ", ".join(entry.readers)
    row = (entry.sequence, entry.subject, "unreadable", entry.size, iso(entry.stored), entry.reason, readers)
    return LogEntryRow(*row)


def _kept(entry: SetAsideEntry) -> LogEntryRow:
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


async def _quarantine(call: Call) -> Any:
    said = await call.body(EntryNote)
    return _kept(await _set_aside(call).quarantine(_sequence(call), by=call.principal, note=said.note))


async def _restore(call: Call) -> Any:
    await _set_aside(call).restore(_sequence(call), by=call.principal)


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/log/unreadable",
        call=_entries,
        what="Entries of the log that cannot be read and are passed over, and those that are set aside.",
        tag="books",
        action=Action.CHANGE_NODES,
        answer=LogEntries,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/log/{{sequence}}/quarantine",
        call=_quarantine,
        what="Set an entry of the log aside: no reader sees it any more; a copy is kept in a file. Audited.",
        tag="books",
        action=Action.CHANGE_NODES,
        body=EntryNote,
        answer=LogEntryRow,
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path=f"{API}/log/{{sequence}}/quarantine",
        call=_restore,
        what="Let readers see an entry again that was set aside. Audited.",
        tag="books",
        action=Action.CHANGE_NODES,
        status=204,
        errors=(404, 409),
    ),
)
