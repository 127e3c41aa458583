"""Who may send a member's spans: one process at a time, so that a copied store cannot make the centre skip readings.

    node: `Claimant` ── claim (store's id, last confirmed epoch, token of the process) ─▶ centre: `judge`

The centre takes the claim of whoever knows the epoch that stands, as long as the process that holds it does not answer.
A copy of the store that comes later knows an older epoch and is refused; its readings wait in its own log. What a
process had not sent when another one displaced it is kept by epoch, so that it can go on exactly where it was.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.filling import FILLED_MAX, fill
from sensegate.bus.process import write_private
from sensegate.bus.record import NOBODY, LaneRecord, Writer
from sensegate.errors import ConfigError, Unavailable
from sensegate.ports import Log
from sensegate.tiers import lanes, protocol
from sensegate.tiers.lanes import Records
from sensegate.tiers.protocol import TOKENS_MAX, ClaimAnswer, ClaimRequest, Lane

FILE = "writer.json"
SHIFTS_MAX = 64
CLAIM_S = 10.0

_log = structlog.get_logger("tiers")


# ── the centre's side ───────────────────────────────────────────────────────────────────────────────────


class Displaced(msgspec.Struct, frozen=True):
    """The lanes as they stood when another process became their writer (`displaced.<member>.<epoch>`)."""

    lanes: dict[Lane, LaneRecord]
    common: int
    """Up to here the log of whoever displaced it is the same."""
    format: int = 1


_displaced = msgspec.json.Decoder(Displaced).decode


def encode_displaced(displaced: Displaced) -> bytes:
    """Return it as it stands on the log."""
    return msgspec.json.encode(displaced)


def decode_displaced(payload: bytes) -> Displaced:
    """Return it from the log. Raises `ValueError` where it is none."""
    try:
        return _displaced(payload)
    except protocol.FAULTS as why:
        raise ValueError(f"displaced writer: {why}") from why


class Grant(msgspec.Struct, frozen=True):
    """A claim that is right, if the present writer does not answer."""

    lanes: dict[Lane, LaneRecord]
    common: int
    lost_end: int = 0
    """So many entries the node's log had lost at its end; 0: none."""
    repeated: bool = False
    """It was granted before, and the answer was lost: nothing is to be written."""


def denied(reason: str) -> ClaimAnswer:
    """Return that a claim is not granted."""
    return ClaimAnswer(granted=False, reason=reason)


def judge(
    claim: ClaimRequest, records: Records | None, displaced: Displaced | None, *, agreed: int = -1
) -> Grant | str:
    """Return what a claim makes of the lanes' records, or why it is not granted.

    Args:
        claim: what the process says.
        records: as they stand; None: nobody has claimed them yet.
        displaced: for a claim by force: the lanes when the claimed epoch was displaced, if that is known.
        agreed: for a restored store: up to which entry it has the same log as all writers since; -1: not known.
    """
    place = max(claim.first - 1, 0)
    writer = Writer(claim.writer, claim.epoch + 1, claim.token)
    if records is None:
        return Grant({lane: lanes.claimed(lanes.fresh(claim.life, place), writer) for lane in Lane}, place)
    live = records[Lane.LIVE]
    present = live.writer
    writer = msgspec.structs.replace(writer, epoch=max(claim.epoch, present.epoch) + 1)
    if claim.life in live.past:
        return (
            "writer: another store has taken this one's place at the centre; what waits here does not go up any more: "
            "stop this gateway, or let it join with a new store (`sensegate node replace` at the centre)"
        )
    if claim.life != live.life:
        return Grant(
            {lane: lanes.claimed(lanes.anew(record, claim.life, place), writer) for lane, record in records.items()},
            0,
        )
    return _same_life(claim, records, displaced, writer, agreed)


def _same_life(
    claim: ClaimRequest, records: Records, displaced: Displaced | None, writer: Writer, agreed: int
) -> Grant | str:
    present = records[Lane.LIVE].writer
    if present.token == claim.token:
        return Grant(dict(records), claim.ended, repeated=True)
    known = claim.epoch >= present.epoch or present.token in claim.tokens
    # What the centre knows of these entries is true of the copy, too: it goes on like a store that has lost its end.
    goes_on = claim.restored and present.id == claim.writer and (known or agreed >= claim.ended)
    if claim.force and not goes_on and (claim.epoch or claim.writer == present.id):
        return _forced(claim, records, displaced, writer)
    # By force, and without any epoch: the store has lost its file, and is the one whose records these are.
    if present.id and not claim.force and (present.id != claim.writer or not known):
        return (
            f"writer: another copy of this store has gone on at the centre (epoch {present.epoch}, this one knows "
            f"{claim.epoch}); what comes here waits: stop this gateway if the other one is right, else stop the other "
            "one and run `sensegate node takeover` here"
        )
    reached = max(record.reached for record in records.values())
    kept = {lane: lanes.shortened(record, claim.ended) for lane, record in records.items()}
    return Grant(
        {lane: lanes.claimed(record, writer) for lane, record in kept.items()},
        claim.ended,
        lost_end=max(0, reached - claim.ended),
    )


def _forced(claim: ClaimRequest, records: Records, displaced: Displaced | None, writer: Writer) -> Grant | str:
    since = claim.since if claim.since >= 0 else protocol.PLACE_MAX
    if displaced is None and claim.since < 0:
        return (
            "writer: the centre does not know any more what of this store has come up; let it join with a new store "
            "(`sensegate node replace` at the centre)"
        )
    common = since if displaced is None else min(since, displaced.common)
    was = displaced.lanes if displaced else records
    start = since if displaced is None else min(since, max(was[Lane.LIVE].position, displaced.common))
    result = {}
    for lane, record in records.items():
        before = was[lane] if displaced else lanes.fresh(record.life, start)
        result[lane] = lanes.claimed(
            msgspec.structs.replace(
                record,
                position=start,
                ranges=lanes.clipped(before.ranges, common, start),
                kept=lanes.clipped_kept(before.kept, common, start),
            ),
            writer,
        )
    return Grant(result, common)


# ── the node's side ─────────────────────────────────────────────────────────────────────────────────────


class Shift(msgspec.Struct, frozen=True):
    """Entries in (after, until] of the node's log bear places of their own: a copy of the log had used theirs."""

    after: int
    until: int
    by: int


class WriterState(msgspec.Struct, frozen=True):
    """What a store knows of its own claims (beside the log, not in it: a copy of both is found out)."""

    id: str
    epoch: int = 0
    """Last one that a centre confirmed."""
    tokens: tuple[str, ...] = ()
    """Of processes whose claims were sent and not confirmed, the newest last."""
    since: int = -1
    """With which sequence the log ended when the first process began whose claim was not confirmed; -1: it was."""
    shifts: tuple[Shift, ...] = ()
    restored: bool = False
    """The store was restored from a backup, and no centre has confirmed it since."""
    format: int = 1


class Keeper(Protocol):
    """Where a store keeps the state of its claims."""

    async def read(self) -> WriterState | None:
        """Return it; None: there is none yet."""
        ...

    async def write(self, state: WriterState) -> None:
        """Keep it durably."""
        ...


class FileKeeper:
    """The file `writer.json` of a gateway's directory."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE

    async def read(self) -> WriterState | None:
        """Return the state. Raises `ConfigError` where the file cannot be read."""
        try:
            return msgspec.json.decode(await asyncio.to_thread(self._file.read_bytes), type=WriterState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as why:
            raise ConfigError(
                "cannot be read", file=str(self._file), remedy=f"restore it; or remove it, then `node takeover`: {why}"
            ) from why

    async def write(self, state: WriterState) -> None:
        """Keep the state. Raises `Unavailable` where it cannot be written now."""
        try:
            await asyncio.to_thread(write_private, self._file, msgspec.json.encode(state).decode())
        except OSError as why:
            raise Unavailable(f"{self._file} cannot be written: {why}") from why


class ClaimLink(Protocol):
    """The part of `CentreLink` that a claim needs."""

    async def ask(self, question: str, payload: bytes = b"", timeout_s: float = 10.0) -> bytes:
        """Return the centre's answer."""
        ...


class Claimant:
    """Claims the lanes for this process."""

    def __init__(self, keeper: Keeper, log: Log, *, began: int = -1) -> None:
        """`began`: with which sequence our log ended when this process began; -1: as it ends at the first claim."""
        self._keeper = keeper
        self._log = log
        self._began = began
        self.token = secrets.token_hex(8)
        """Of this process."""
        self.writer: Writer = NOBODY
        """Ourselves, once a centre has granted it."""
        self.shifts: tuple[Shift, ...] = ()
        self.denied = ""
        """Why the last claim was not granted; empty: it was, or there was none."""
        self.force = False
        """The next claim is by force."""
        self._was_granted = False

    async def claim(self, link: ClaimLink) -> dict[Lane, LaneRecord] | None:
        """Claim; return the lanes' records, None where it was denied.

        Raises:
            Unavailable, Overloaded, PermissionDenied: as `CentreLink.ask`.
            StoreFull: our own log has no room for what it must be filled with.
        """
        try:
            state = await self._keeper.read() or WriterState(secrets.token_hex(8))
        except ConfigError as why:
            self._deny(f"writer: {why}")
            return None
        first, last = await self._log.bounds()
        ended = last if self._began < 0 else self._began
        since = ended if state.since < 0 and not self._was_granted else state.since
        tokens = state.tokens if self.token in state.tokens else (*state.tokens, self.token)[-TOKENS_MAX:]
        state = msgspec.structs.replace(state, tokens=tokens, since=since)
        await self._keeper.write(state)
        claim = ClaimRequest(
            state.id,
            state.epoch,
            self.token,
            self._log.epoch,
            first,
            ended,
            since,
            tuple(token for token in tokens if token != self.token),
            self.force or state.restored,
            restored=state.restored and not self.force,
        )
        answer = protocol.decode_claim_answer(await link.ask("claim", protocol.encode(claim), CLAIM_S))
        if not answer.granted:
            self._deny(answer.reason)
            return None
        await self._granted(state, answer)
        return answer.lanes

    def _deny(self, reason: str) -> None:
        if self.denied != reason:
            _log.error("the centre takes nothing of this store", reason=reason)
        self.denied = reason

    async def _granted(self, state: WriterState, answer: ClaimAnswer) -> None:
        place = answer.lanes[Lane.LIVE].position
        reached = max(record.reached for record in answer.lanes.values())
        _, last = await self._log.bounds()
        shifts, until = state.shifts, reached
        if place < reached and not any(shift.after <= place < shift.until for shift in shifts):
            # What lies behind the place is new; entries that are lost here, or another copy's, had its sequences.
            _log.error(
                "our log has lost its end, or is a copy: the centre has more of it", place=place, reached=reached
            )
            metrics.LIMITED.labels("log_lost_end").inc()
            whole = 2 * reached - place - last <= FILLED_MAX
            shifts = (*shifts, Shift(place, reached if whole else protocol.PLACE_MAX, reached - place))[-SHIFTS_MAX:]
        state = WriterState(state.id, answer.writer.epoch, since=-1, shifts=shifts)
        await self._keeper.write(state)
        for shift in shifts:
            if shift.until < protocol.PLACE_MAX:
                until = max(until, shift.until + shift.by)
        if last < until:
            await fill(self._log, last, until)
        self.writer, self.shifts, self.denied, self.force = answer.writer, shifts, "", False
        self._began, self._was_granted = -1, True

    def displaced(self) -> None:
        """Note that another process is the writer now: what follows needs a new claim."""
        self.writer = NOBODY
