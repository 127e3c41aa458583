"""A standby centre's copy of the audit trail: the same records under the same numbers, so that it is one chain.

    active: `answer_trail` ◀─ ask ``trail`` (what follows a number) ── standby: TrailCopy ─▶ its own AUDIT

A trail that holds what that of the active centre does not is no copy: it is set aside with its store, and named on the
trail that goes on (`SetAsideStore`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from sensegate.authority.audit import Audit
from sensegate.authority.chain import decode, digest
from sensegate.bus.decoding import decoder
from sensegate.errors import Fenced, Unavailable
from sensegate.tiers.questions import CHUNK_BYTES

ROWS_MAX = 500
WAIT_S = 1.0

Ask = Callable[[str, bytes], Awaitable[bytes]]


class TrailChunk(msgspec.Struct, frozen=True):
    """Records that follow a number, as stored."""

    last: int
    """Number of the last record there is."""
    records: list[bytes]


class SetAsideStore(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a centre had to set aside: it was never at the one that is active now."""

    directory: str
    """Directory in which it lies, at the centre that set it aside."""
    term: int
    """The last term in which that centre wrote."""
    log_after: int = 0
    """Last sequence of its log that both have."""
    log_last: int = 0
    """Last sequence that it had; not more than `log_after`: of the log nothing was set aside."""
    trail_after: int = 0
    """Number of the last record of the trail that both have."""
    trail_last: int = 0
    trail_hash: str = ""
    """SHA-256 of the last record that was set aside."""


_encode = msgspec.msgpack.Encoder().encode
_number = msgspec.msgpack.Decoder(int).decode
_piece = decoder(TrailChunk, "the other centre's answer")
encode_set_aside = _encode
decode_set_aside = decoder(SetAsideStore, "note of what was set aside")


async def answer_trail(audit: Audit, payload: bytes) -> bytes:
    """Answer a standby, at the active centre; waits a moment where there is nothing new. Raises `Unavailable`."""
    after = _number(payload)
    records = await audit.after(after, limit=ROWS_MAX, max_bytes=CHUNK_BYTES)
    if not records and await audit.changed(WAIT_S):
        records = await audit.after(after, limit=ROWS_MAX, max_bytes=CHUNK_BYTES)
    return _encode(TrailChunk((await audit.head()).number, records))


async def fetch_records(ask: Ask, after: int) -> TrailChunk:
    """Return the records after a number. Raises `Unavailable`, `PermissionDenied`."""
    try:
        return _piece(await ask("trail", _encode(after)))
    except ValueError as why:
        raise Unavailable(str(why)) from why


class TrailCopy:
    """The standby's side."""

    def __init__(self, own: Audit) -> None:
        self._own = own
        self._sure = False

    async def copy_next(self, ask: Ask) -> int:
        """Take the next records; return how many came.

        Raises:
            Unavailable, PermissionDenied: turn again.
            Fenced: the own trail is none that began as the copy of that one.
        """
        number, last = await self._own.end()
        # Where we do not know yet that it is a copy, its last record must be the same there.
        first = max(0, number - 1) if not self._sure else number
        found = await fetch_records(ask, first)
        records = found.records
        if found.last < number:
            raise Fenced(f"the own trail ends with number {number}, that of the active centre with {found.last}")
        if number and first < number and records:
            if records[0] == last:
                records = records[1:]
            elif decode(records[0]).number <= number:
                raise Fenced(f"number {number} of the own trail is not that of the active centre")
        if records:
            await self._own.take(records)
        self._sure = True
        return len(records)


async def divergent_tail(own: Audit, ask: Ask) -> tuple[int, list[bytes]]:
    """Return (number of the last record that both have, the own ones after it).

    Raises `Unavailable`, `PermissionDenied`.
    """
    number, _ = await own.end()
    while number > 0:
        start = max(0, number - ROWS_MAX)
        theirs = {decode(raw).number: digest(raw) for raw in (await fetch_records(ask, start)).records}
        for raw in reversed(await own.after(start, limit=number - start)):
            number = decode(raw).number
            if theirs.get(number) == digest(raw):
                return number, await own.after(number, limit=2**62)
        number = start
    return 0, await own.after(0, limit=2**62)
