"""Writers of a member's lanes: one process at a time, so that a copied store cannot make the centre skip readings.

    node: `Claimant` ── claim (store's id, last confirmed epoch, token of the process) ─▶ centre: `judge`

The centre grants the claim of a store that knows the present epoch, as long as the process that holds it does not
answer. A copy of the store that claims later knows an older epoch and is denied; its readings wait in its own log. The
lanes of a displaced process are stored by epoch, so that it can continue exactly where it was.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.commit_records import NO_WRITER, LaneRecord, Writer
from sensegate.bus.contract import Log
from sensegate.bus.files import write_private
from sensegate.bus.kv_row import KvRow
from sensegate.bus.padding import PADDING_MAX, pad
from sensegate.errors import ConfigError, Unavailable
from sensegate.tiers import lanes, protocol
from sensegate.tiers.lanes import Records
from sensegate.tiers.protocol import TOKENS_MAX, ClaimAnswer, ClaimRequest, Lane

FILE = "writer.json"
SHIFTS_MAX = 64
"""Most sequence shifts that a store remembers."""
CLAIM_TIMEOUT_S = 10.0

_log = structlog.get_logger("tiers")


# ── the centre's side ───────────────────────────────────────────────────────────────────────────────────


class Displaced(msgspec.Struct, frozen=True):
    """The lanes when another process became their writer, stored under `displaced.<member>.<epoch>`."""

    lanes: dict[Lane, LaneRecord]
    common: int
    """Last sequence that the log of the displacing store has in common with it."""
    format: int = 1


_displaced = msgspec.json.Decoder(Displaced).decode


def encode_displaced(displaced: Displaced) -> bytes:
    """Encode the lanes of a displaced writer for the log."""
    return msgspec.json.encode(displaced)


def decode_displaced(payload: bytes) -> Displaced:
    """Decode the lanes of a displaced writer. Raises `ValueError` where the payload is none."""
    try:
        return _displaced(payload)
    except protocol.DECODE_ERRORS as why:
        raise ValueError(f"displaced writer: {why}") from why


class ClaimGrant(msgspec.Struct, frozen=True):
    """Grant of a claim, valid if the present writer does not answer a probe."""

    lanes: dict[Lane, LaneRecord]
    common: int
    lost_end: int = 0
    """Number of entries that the node's log has lost at its end."""
    repeated: bool = False
    """The claim was granted before and the answer was lost: nothing is written."""


def deny(reason: str) -> ClaimAnswer:
    """Return the answer to a denied claim."""
    return ClaimAnswer(granted=False, reason=reason)


def judge(
    claim: ClaimRequest, records: Records | None, displaced: Displaced | None, *, agreed: int = -1
) -> ClaimGrant | str:
    """Return the lane records that a claim leads to, or the reason why it is denied.

    Args:
        claim: of the process.
        records: the present ones; None: no process has claimed the lanes yet.
        displaced: for a claim by force: the lanes when the claimed epoch was displaced, if that is known.
        agreed: for a restored store: up to which sequence its log is that of all writers since; -1: not known.
    """
    start = max(claim.log_first - 1, 0)
    writer = Writer(claim.writer, claim.epoch + 1, claim.token)
    if records is None:
        return ClaimGrant(
            {lane: lanes.with_writer(lanes.new_record(claim.log_epoch, start), writer) for lane in Lane}, start
        )
    live = records[Lane.LIVE]
    present = live.writer
    writer = msgspec.structs.replace(writer, epoch=max(claim.epoch, present.epoch) + 1)
    if claim.log_epoch in live.past_epochs:
        return (
            "writer: another store has replaced this one at the centre, so entries that wait here can no longer be "
            "sent; stop this gateway, or let it join with a new store (`sensegate node replace` at the centre)"
        )
    if claim.log_epoch != live.log_epoch:
        return ClaimGrant(
            {
                lane: lanes.with_writer(lanes.restart(record, claim.log_epoch, start), writer)
                for lane, record in records.items()
            },
            0,
        )
    return _judge_same_log(claim, records, displaced, writer, agreed)


def _judge_same_log(
    claim: ClaimRequest, records: Records, displaced: Displaced | None, writer: Writer, agreed: int
) -> ClaimGrant | str:
    present = records[Lane.LIVE].writer
    if present.token == claim.token:
        return ClaimGrant(dict(records), claim.log_end, repeated=True)
    is_known = claim.epoch >= present.epoch or present.token in claim.previous_tokens
    # The present records are true of the restored log, too: it continues like one that has lost its end.
    continues = claim.restored and present.id == claim.writer and (is_known or agreed >= claim.log_end)
    if claim.force and not continues and (claim.epoch or claim.writer == present.id):
        return _judge_forced(claim, records, displaced, writer)
    # By force and without any epoch: the store has lost its writer file and is the one that these records belong to.
    if present.id and not claim.force and (present.id != claim.writer or not is_known):
        return (
            f"writer: another copy of this store has continued at the centre (epoch {present.epoch}, this one knows "
            f"{claim.epoch}), so new readings wait here; stop this gateway if the other one is right, else stop the "
            "other one and run `sensegate node takeover` here"
        )
    reached = max(record.reached for record in records.values())
    truncated = {lane: lanes.truncate(record, claim.log_end) for lane, record in records.items()}
    return ClaimGrant(
        {lane: lanes.with_writer(record, writer) for lane, record in truncated.items()},
        claim.log_end,
        lost_end=max(0, reached - claim.log_end),
    )


def _judge_forced(
    claim: ClaimRequest, records: Records, displaced: Displaced | None, writer: Writer
) -> ClaimGrant | str:
    since = claim.unconfirmed_from if claim.unconfirmed_from >= 0 else protocol.NATURAL_MAX
    if displaced is None and claim.unconfirmed_from < 0:
        return (
            "writer: the centre no longer knows which entries of this store it has; let it join with a new store "
            "(`sensegate node replace` at the centre)"
        )
    common = since if displaced is None else min(since, displaced.common)
    former = displaced.lanes if displaced else records
    start = since if displaced is None else min(since, max(former[Lane.LIVE].position, displaced.common))
    result = {}
    for lane, record in records.items():
        before = former[lane] if displaced else lanes.new_record(record.log_epoch, start)
        result[lane] = lanes.with_writer(
            msgspec.structs.replace(
                record,
                position=start,
                ranges=lanes.clip_ranges(before.ranges, common, start),
                withheld=lanes.clip_withheld(before.withheld, common, start),
            ),
            writer,
        )
    return ClaimGrant(result, common)


# ── the node's side ─────────────────────────────────────────────────────────────────────────────────────


class SequenceShift(msgspec.Struct, frozen=True):
    """Entries in (after, until] whose rows get shifted sequences, because a copy of the log had used theirs."""

    after: int
    until: int
    by: int


class WriterState(msgspec.Struct, frozen=True):
    """State of a store's claims, stored beside the log and not in it, so that a copy of both is detected."""

    id: str
    epoch: int = 0
    """Last epoch that a centre confirmed."""
    tokens: tuple[str, ...] = ()
    """Tokens of processes whose claims were sent and not confirmed, the newest last."""
    unconfirmed_from: int = -1
    """Last sequence of the log when the first unconfirmed process started; -1: the last claim was confirmed."""
    shifts: tuple[SequenceShift, ...] = ()
    restored: bool = False
    """The store was restored from a backup, and no centre has confirmed it since."""
    format: int = 1


class WriterStateStore(Protocol):
    """Storage of the state of a store's claims."""

    async def read(self) -> WriterState | None:
        """Return the state; None: there is none yet."""
        ...

    async def write(self, state: WriterState) -> None:
        """Store the state durably."""
        ...


class WriterStateFile:
    """The file `writer.json` in a gateway's directory."""

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
                f"cannot be read: {why}",
                file=str(self._file),
                remedy="restore it; or remove it, then run `sensegate node takeover`",
            ) from why

    async def write(self, state: WriterState) -> None:
        """Store the state. Raises `Unavailable` where it cannot be written now."""
        try:
            await asyncio.to_thread(write_private, self._file, msgspec.json.encode(state).decode())
        except OSError as why:
            raise Unavailable(f"{self._file} cannot be written: {why}") from why


class _Bucket(Protocol):
    async def get(self, key: str) -> KvRow | None: ...

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int: ...


class WriterStateBucket:
    """The state in a bucket, where several gateways of a node take turns by a lease."""

    def __init__(self, bucket: _Bucket) -> None:
        self._bucket = bucket

    async def read(self) -> WriterState | None:
        """Return the state. Raises `ConfigError` where it cannot be decoded, `Unavailable`."""
        row = await self._bucket.get(FILE)
        try:
            return msgspec.json.decode(row.value, type=WriterState) if row and row.value else None
        except msgspec.DecodeError as why:
            remedy = "run `sensegate node takeover`"
            raise ConfigError(f"state of the writer cannot be read: {why}", key=FILE, remedy=remedy) from why

    async def write(self, state: WriterState) -> None:
        """Store the state. Raises `Unavailable` where it cannot be written now."""
        await self._bucket.put(FILE, msgspec.json.encode(state))


async def claim_restored(states: WriterStateStore) -> None:
    """Have the next claim say that the store was restored from a backup. Raises `ConfigError`, `Unavailable`."""
    if state := await states.read():
        await states.write(msgspec.structs.replace(state, restored=True))


class ClaimLink(Protocol):
    """The part of `CentreLink` that a claim needs."""

    async def ask(self, question: str, payload: bytes = b"", timeout_s: float = 10.0) -> bytes:
        """Return the centre's answer."""
        ...


class Claimant:
    """Claims the lanes for this process."""

    def __init__(self, keeper: WriterStateStore, log: Log, *, began: int = -1) -> None:
        """`began`: last sequence of our log when this process started; -1: the last one at the first claim."""
        self._keeper = keeper
        self._log = log
        self._began = began
        self.token = secrets.token_hex(8)
        """Random token of this process."""
        self.writer: Writer = NO_WRITER
        """This process as the writer, once a centre has granted it."""
        self.shifts: tuple[SequenceShift, ...] = ()
        self.denied = ""
        """Reason why the last claim was denied; empty: it was granted, or there was none."""
        self.force = False
        """True if the next claim is by force."""
        self._was_granted = False

    async def claim(self, link: ClaimLink) -> dict[Lane, LaneRecord] | None:
        """Claim the lanes; return their records, or None where the claim was denied.

        Raises:
            Unavailable, Overloaded, PermissionDenied: as `CentreLink.ask`.
            StoreFull: our own log has no room for the fillers that it needs.
        """
        try:
            state = await self._keeper.read() or WriterState(secrets.token_hex(8))
        except ConfigError as why:
            self._deny(f"writer: {why}")
            return None
        first, last = await self._log.bounds()
        ended = last if self._began < 0 else self._began
        unconfirmed_from = ended if state.unconfirmed_from < 0 and not self._was_granted else state.unconfirmed_from
        tokens = state.tokens if self.token in state.tokens else (*state.tokens, self.token)[-TOKENS_MAX:]
        state = msgspec.structs.replace(state, tokens=tokens, unconfirmed_from=unconfirmed_from)
        await self._keeper.write(state)
        claim = ClaimRequest(
            state.id,
            state.epoch,
            self.token,
            self._log.epoch,
            first,
            ended,
            unconfirmed_from,
            tuple(token for token in tokens if token != self.token),
            self.force or state.restored,
            restored=state.restored and not self.force,
        )
        answer = protocol.decode_claim_answer(await link.ask("claim", protocol.encode(claim), CLAIM_TIMEOUT_S))
        if not answer.granted:
            self._deny(answer.reason)
            return None
        await self._accept(state, answer)
        return answer.lanes

    def _deny(self, reason: str) -> None:
        if self.denied != reason:
            _log.error("claim of the lanes denied by the centre; readings wait", reason=reason)
        self.denied = reason

    async def _accept(self, state: WriterState, answer: ClaimAnswer) -> None:
        position = answer.lanes[Lane.LIVE].position
        reached = max(record.reached for record in answer.lanes.values())
        _, last = await self._log.bounds()
        shifts, until = state.shifts, reached
        if position < reached and not any(shift.after <= position < shift.until for shift in shifts):
            # Entries after the position are new; lost entries, or those of another copy, had the same sequences.
            _log.error(
                "log has lost its end, or is a copy: the centre has more of it", position=position, reached=reached
            )
            metrics.LIMIT_HITS.labels("log_lost_end").inc()
            fits = 2 * reached - position - last <= PADDING_MAX
            shifts = (*shifts, SequenceShift(position, reached if fits else protocol.NATURAL_MAX, reached - position))[
                -SHIFTS_MAX:
            ]
        state = WriterState(state.id, answer.writer.epoch, unconfirmed_from=-1, shifts=shifts)
        await self._keeper.write(state)
        for shift in shifts:
            if shift.until < protocol.NATURAL_MAX:
                until = max(until, shift.until + shift.by)
        if last < until:
            await pad(self._log, last, until)
        self.writer, self.shifts, self.denied, self.force = answer.writer, shifts, "", False
        self._began, self._was_granted = -1, True

    def lose(self) -> None:
        """Note that another process is the writer now: the next span needs a new claim."""
        self.writer = NO_WRITER
