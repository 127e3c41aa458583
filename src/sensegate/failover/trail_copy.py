"""Replication of the audit trail to a standby: the same records under the same numbers, so that it stays one chain.

    active: `answer_trail` ◀─ ask ``trail`` (records after a number) ── standby: TrailCopy ─▶ its own AUDIT

A trail with records that the active centre's trail does not have is not a copy: it is set aside with its store, and
the trail that continues names it (`SetAsideStore`).
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
    """Records after a number, as stored."""

    last: int
    """Number of the last record of the trail."""
    records: list[bytes]


class SetAsideStore(msgspec.Struct, frozen=True, omit_defaults=True):
    """A store that a centre set aside, because parts of it were never at the present active centre."""

    directory: str
    """Its directory, at the centre that set it aside."""
    term: int
    """Last term in which that centre wrote."""
    log_after: int = 0
    """Last sequence of the log that both centres have."""
    log_last: int = 0
    """Last sequence of its log; not above `log_after`: no entries were set aside."""
    trail_after: int = 0
    """Number of the last record of the trail that both centres have."""
    trail_last: int = 0
    """Number of the last record of its trail."""
    trail_hash: str = ""
    """SHA-256 of the last record that was set aside."""


_encode = msgspec.msgpack.Encoder().encode
_number = msgspec.msgpack.Decoder(int).decode
_piece = decoder(TrailChunk, "the other centre's answer")
encode_set_aside = _encode
decode_set_aside = decoder(SetAsideStore, "record of a store set aside")


async def answer_trail(audit: Audit, payload: bytes) -> bytes:
    """Answer a standby, at the active centre; wait a moment where there is nothing new. Raises `Unavailable`."""
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
    """The standby's side of the replication."""

    def __init__(self, own: Audit) -> None:
        self._own = own
        self._is_verified = False
        """True if our last record is known to be the active centre's, too."""

    async def copy_next(self, ask: Ask) -> int:
        """Copy the next records; return their number.

        Raises:
            Unavailable, PermissionDenied: try again.
            Fenced: our trail is not a copy of the active centre's.
        """
        number, last = await self._own.end()
        # Until it is verified, our last record is fetched as well and compared.
        first = max(0, number - 1) if not self._is_verified else number
        chunk = await fetch_records(ask, first)
        records = chunk.records
        if chunk.last < number:
            raise Fenced(f"our trail ends with number {number}, that of the active centre with {chunk.last}")
        if number and first < number and records:
            if records[0] == last:
                records = records[1:]
            elif decode(records[0]).number <= number:
                raise Fenced(f"record {number} of our trail differs from that of the active centre")
        if records:
            await self._own.take(records)
        self._is_verified = True
        return len(records)


async def divergent_tail(own: Audit, ask: Ask) -> tuple[int, list[bytes]]:
    """Return (number of the last record that both trails have, our records after it).

    Raises `Unavailable`, `PermissionDenied`.
    """
    number, _ = await own.end()
    while number > 0:
        start = max(0, number - ROWS_MAX)
        digests = {decode(raw).number: digest(raw) for raw in (await fetch_records(ask, start)).records}
        for raw in reversed(await own.after(start, limit=number - start)):
            number = decode(raw).number
            if digests.get(number) == digest(raw):
                return number, await own.after(number, limit=2**62)
        number = start
    return 0, await own.after(0, limit=2**62)
