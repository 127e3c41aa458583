"""The span protocol between a node and its centre: spans, claims of the lanes, and the lanes' positions.

These are the bodies of requests and answers, in MessagePack; the envelope (`envelope.py`) carries version and term. A
span is one request: the parts that it brings, and where the lanes stand after it. Its outcome is one of `SpanOutcome`,
or unknown where no answer came.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec

from sensegate.bus.commit_records import NO_WRITER, LaneRecord, WithheldRange, Writer
from sensegate.errors import PermissionDenied, SensegateError, Unavailable
from sensegate.model import SheddingRule

T = TypeVar("T")
PARTS_MAX = 64
"""Most parts of a span."""
PART_ROWS_MAX = 1 << 18
"""Most rows of a part, about 20 MB of columns in memory; even fewer bytes than a message has can hold more."""
RANGES_MAX = 256
"""Most ranges that the backlog lane may have open."""
WITHHELD_MAX = 64
"""Most withheld ranges of a lane that the centre accepts."""
TOKENS_MAX = 16
"""Most previous tokens in a claim."""
NATURAL_MAX = 2**53
"""Greatest valid sequence and count."""
GRADE_MAX = 4
READINGS, OBSERVATIONS, ALARMS = "readings", "observations", "alarms"
LEDGER, SEQUENCES = "ledger", "sequences"

Natural = Annotated[int, msgspec.Meta(ge=0, le=NATURAL_MAX)]
ShortText = Annotated[str, msgspec.Meta(max_length=64)]
TimeUs = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class Lane(StrEnum):
    """The two lanes of a node."""

    LIVE = "live"
    BACKLOG = "backlog"


class PartKind(StrEnum):
    """Content of a part: rows as columns, a ledger, or the sequence numbers of devices."""

    READINGS = READINGS
    OBSERVATIONS = OBSERVATIONS
    ALARMS = ALARMS
    """Events of alarms: rows that no ledger counts."""
    LEDGER = LEDGER
    SEQUENCES = SEQUENCES


ROW_KINDS = frozenset({PartKind.READINGS, PartKind.OBSERVATIONS, PartKind.ALARMS})


class SpanPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a span; each becomes an entry of the centre's log."""

    kind: PartKind
    payload: bytes
    grade: Annotated[int, msgspec.Meta(ge=0, le=GRADE_MAX)] = 0
    """Classification level of the rows."""
    rows: Natural = 0
    """Row count as the node states it; used only where the payload cannot be decoded."""


class LaneUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """New state of a lane after a span."""

    lane: Lane
    base_number: Natural
    """Number of the lane record to which the span applies: the fence."""
    position: Natural
    ranges: Annotated[tuple[tuple[Natural, Natural], ...], msgspec.Meta(max_length=RANGES_MAX)] = ()
    withheld: Annotated[tuple[WithheldRange, ...], msgspec.Meta(max_length=WITHHELD_MAX)] = ()


class SpanSelection(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of the node's log from which a span was made, and how: enough to build it again."""

    after: Natural = 0
    until: Natural = 0
    """Entries in (after, until]."""
    grade_max: Annotated[int, msgspec.Meta(ge=0, le=255)] = GRADE_MAX
    shed: Annotated[tuple[SheddingRule, ...], msgspec.Meta(max_length=64)] = ()
    """Readings that mode orders withheld from it."""
    withheld_only: bool = False
    """True: it holds only what `shed` had withheld before."""


class SpanRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A span of a node's log."""

    writer: Writer
    log_epoch: ShortText
    span_id: ShortText
    committed_at: TimeUs
    updates: Annotated[tuple[LaneUpdate, ...], msgspec.Meta(min_length=1, max_length=2)]
    parts: Annotated[tuple[SpanPart, ...], msgspec.Meta(max_length=PARTS_MAX)] = ()
    selection: SpanSelection = SpanSelection()
    resend_of: ShortText = ""
    """Id of the refused part that the span sends again; empty: it brings new entries."""


class SpanOutcome(StrEnum):
    """Outcome of a span."""

    ACCEPTED = "accepted"
    """Stored on the centre's log."""
    STALE = "stale"
    """Not written: its lane records are outdated. Continue from the records in the answer."""
    UNCLAIMED = "unclaimed"
    """Not written: its writer is not the present one. Claim the lanes."""
    STILL_REFUSED = "still_refused"
    """Not written: it sent refused rows again, and all of them are still refused."""


class PartRefusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refused part in the answer to its span."""

    kind: PartKind
    reason: str
    grade: int = 0
    rows: int = 0
    devices: int = 0
    """Number of devices whose rows are refused; 0: the whole part is."""
    id: str = ""
    """Id under which it can be sent again; empty: the list of refused parts is full."""
    is_new: bool = True
    """False: it extended an entry of the list."""


class SpanAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer to a span: its outcome, and the present lane records."""

    outcome: SpanOutcome
    lanes: dict[Lane, LaneRecord] = {}
    refused: tuple[PartRefusal, ...] = ()
    clock: int = 0
    """Time of the answer, µs UTC of the centre's clock."""


class PositionAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer to `position`: the lane records of a member."""

    lanes: dict[Lane, LaneRecord] = {}
    """Empty: no process has claimed the lanes yet."""
    clock: int = 0
    stored_at: int = 0
    """Time when the newest span of the live lane was stored, µs UTC of the centre's clock."""


class ClaimRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Request of a process to become the writer of its member's lanes."""

    writer: ShortText
    """Identity of the process's store."""
    epoch: Natural
    """Last writer epoch that a centre confirmed to this store; 0: none."""
    token: ShortText
    """Random token of the process."""
    log_epoch: ShortText
    log_first: Natural
    """First sequence of the node's log."""
    log_end: Natural
    """Last sequence of the log when the process started; later entries are new."""
    unconfirmed_from: Annotated[int, msgspec.Meta(ge=-1, le=NATURAL_MAX)] = -1
    """Last sequence of the log when the first unconfirmed process started; -1: the last claim was confirmed."""
    previous_tokens: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=TOKENS_MAX)] = ()
    """Tokens of earlier processes of this store whose claims were not confirmed."""
    force: bool = False
    """An operator has decided that this store continues, whatever another copy of it has sent."""
    restored: bool = False
    """The store was restored from a backup: it continues only if the present writer does not answer."""


class ClaimAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer to a claim."""

    granted: bool
    writer: Writer = NO_WRITER
    lanes: dict[Lane, LaneRecord] = {}
    reason: str = ""
    """Reason why the claim was denied, and what to do."""


class RefusedPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """Entry of the list of refused parts, stored on the centre's log under `refused.<member>.<id>`."""

    id: str
    lane: Lane
    kind: PartKind
    reason: str
    selection: SpanSelection
    log_epoch: str
    grade: int = 0
    devices: tuple[str, ...] = ()
    """Devices all of whose rows are refused; empty: all rows are."""
    rows: int = 0
    spans: int = 1
    """Number of spans concerned: equal refusals of consecutive spans share an entry."""
    size: int = 0
    """Bytes of the refused parts."""
    digest: str = ""
    """SHA-256 (hex) of the first refused part."""
    detail: str = ""
    refused_at: int = 0
    """Time when the first part was refused, µs UTC of the centre's clock."""
    format: int = 1


class RefusedList(msgspec.Struct, frozen=True, omit_defaults=True):
    """Refused parts of a member that it can send again, oldest first."""

    parts: tuple[RefusedPart, ...] = ()
    more: bool = False
    """True if more entries follow."""


encode = msgspec.msgpack.Encoder().encode
_refused_part = msgspec.json.Decoder(RefusedPart).decode
DECODE_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def _decoder(kind: type[T], refuse: Callable[[Exception], SensegateError]) -> Callable[[bytes], T]:
    """Return the decoder of a body, which raises the error of `refuse` where a payload is none."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def decoded(payload: bytes) -> T:
        try:
            return decode(payload)
        except DECODE_ERRORS as why:
            raise refuse(why) from why

    return decoded


def _request_decoder(kind: type[T], name: str, remedy: str) -> Callable[[bytes], T]:
    return _decoder(kind, lambda why: PermissionDenied(f"{name}: cannot be read ({why}); {remedy}"))


def _answer_decoder(kind: type[T], name: str) -> Callable[[bytes], T]:
    return _decoder(kind, lambda why: Unavailable(f"{name} cannot be read: {why}"))


_UPDATE = "update the older of the two releases"
decode_span_request = _request_decoder(SpanRequest, "span", f"{_UPDATE}, or skip it")
decode_claim_request = _request_decoder(ClaimRequest, "claim", _UPDATE)
decode_span_answer = _answer_decoder(SpanAnswer, "the answer to a span")
decode_position_answer = _answer_decoder(PositionAnswer, "the answer to `position`")
decode_claim_answer = _answer_decoder(ClaimAnswer, "the answer to a claim")
decode_refused_list = _answer_decoder(RefusedList, "the list of refused parts")
"""Decoders of requests, which raise `PermissionDenied`, and of answers, which raise `Unavailable`."""


def encode_refused_part(part: RefusedPart) -> bytes:
    """Encode an entry of the list of refused parts for the log."""
    return msgspec.json.encode(part)


def decode_refused_part(payload: bytes) -> RefusedPart:
    """Decode an entry of the list of refused parts. Raises `ValueError` where the payload is none."""
    try:
        return _refused_part(payload)
    except DECODE_ERRORS as why:
        raise ValueError(f"refused part: {why}") from why
