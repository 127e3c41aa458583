"""What a node sends its centre: spans of its log, claims, and questions where its lanes stand. Form 1, MessagePack.

The envelope (`envelope.py`) carries form and term; these are the bodies. A span is one request: the parts that it
brings, and where the lanes stand after it. Its outcome is one of `Outcome`, or unknown where no answer came.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from sensegate.bus.record import NOBODY, Kept, LaneRecord, Writer
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.model import Shed

PARTS_MAX = 64
"""Most parts of a span."""
RANGES_MAX = 256
"""Most ranges of the backlog."""
KEPT_MAX = 64
"""Most parts of a log of which mode orders kept something back, as the centre takes them."""
TOKENS_MAX = 16
"""Most unconfirmed tokens of a claim."""
PLACE_MAX = 2**53
"""No sequence and no count is greater."""
GRADE_MAX = 4
READINGS, OBSERVATIONS, LEDGER, SEQUENCES = "readings", "observations", "ledger", "sequences"

Place = Annotated[int, msgspec.Meta(ge=0, le=PLACE_MAX)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Time = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class Lane(StrEnum):
    """The two lanes of a node."""

    LIVE = "live"
    BACKLOG = "backlog"


class PartKind(StrEnum):
    """What a part holds: rows as columns, counts, or numbers that devices gave."""

    READINGS = READINGS
    OBSERVATIONS = OBSERVATIONS
    LEDGER = LEDGER
    SEQUENCES = SEQUENCES


ROW_KINDS = frozenset({PartKind.READINGS, PartKind.OBSERVATIONS})


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of a span: what becomes an entry of the centre's log."""

    kind: PartKind
    payload: bytes
    grade: Annotated[int, msgspec.Meta(ge=0, le=GRADE_MAX)] = 0
    """Of rows."""
    rows: Place = 0
    """How many rows it is said to hold; believed only where it cannot be read."""


class LaneMove(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a lane stands after a span."""

    lane: Lane
    base: Place
    """Number of the lane's record on which this builds."""
    position: Place
    ranges: Annotated[tuple[tuple[Place, Place], ...], msgspec.Meta(max_length=RANGES_MAX)] = ()
    kept: Annotated[tuple[Kept, ...], msgspec.Meta(max_length=KEPT_MAX)] = ()


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of which part of the node's log a span was made, and how: the node can make it once more."""

    after: Place = 0
    until: Place = 0
    """Entries in (after, until]."""
    grade_max: Annotated[int, msgspec.Meta(ge=0, le=255)] = GRADE_MAX
    shed: Annotated[tuple[Shed, ...], msgspec.Meta(max_length=64)] = ()
    """What mode orders left out of it."""
    kept_back: bool = False
    """True: it holds only what `shed` had left out before."""


class SpanRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A span of a node's log."""

    writer: Writer
    life: Word
    span_id: Word
    committed_at: Time
    moves: Annotated[tuple[LaneMove, ...], msgspec.Meta(min_length=1, max_length=2)]
    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=PARTS_MAX)] = ()
    selection: Selection = Selection()
    readmits: Word = ""
    """Id of the refused part that this brings once more; empty: it brings what is new."""


class Outcome(StrEnum):
    """What became of a span."""

    TAKEN = "taken"
    """It stands on the centre's log."""
    STALE = "stale"
    """It built on records that are not the present ones: nothing was written; go on from those."""
    UNCLAIMED = "unclaimed"
    """Its writer is not the one that stands: nothing was written; claim the lanes."""
    STILL_REFUSED = "still_refused"
    """It brought refused rows once more, and none of them is taken: nothing was written."""


class PartRefusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part that was not taken."""

    kind: PartKind
    reason: str
    grade: int = 0
    rows: int = 0
    devices: int = 0
    """Of so many devices; 0: the whole part."""
    id: str = ""
    """By which it can be sent once more; empty: the list of refused parts is full."""
    is_new: bool = True
    """False: its entry on the list went on."""


class SpanAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a span, with the lanes' records as they now stand."""

    outcome: Outcome
    lanes: dict[Lane, LaneRecord] = {}
    refused: tuple[PartRefusal, ...] = ()
    clock: int = 0
    """When the centre answered, µs UTC of its clock."""


class PositionAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the lanes of a member stand."""

    lanes: dict[Lane, LaneRecord] = {}
    """Empty: nobody has claimed them yet."""
    clock: int = 0
    stored_at: int = 0
    """When the newest span of the live lane was stored, µs UTC of the centre's clock."""


class ClaimRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A process asks to be the writer of its member's lanes."""

    writer: Word
    """Identity of its store."""
    epoch: Place
    """Last epoch that a centre confirmed to this store; 0: none."""
    token: Word
    """Of this process."""
    life: Word
    first: Place
    """First sequence of its log."""
    ended: Place
    """With which sequence its log ended when this process began: what lies behind it is new."""
    since: Annotated[int, msgspec.Meta(ge=-1, le=PLACE_MAX)] = -1
    """With which it ended when the first process began that no centre has confirmed; -1: this store was confirmed."""
    tokens: Annotated[tuple[Word, ...], msgspec.Meta(max_length=TOKENS_MAX)] = ()
    """Of earlier processes of this store whose claims were not confirmed to it."""
    force: bool = False
    """An operator has decided that this store goes on, whatever another copy of it has sent."""
    restored: bool = False
    """By restoring a backup: it goes on only if the present writer does not answer."""


class ClaimAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the process is the writer now."""

    granted: bool
    writer: Writer = NOBODY
    lanes: dict[Lane, LaneRecord] = {}
    reason: str = ""
    """Why not, and what to do."""


class RefusedPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the list of refused parts, as it stands on the centre's log (`refused.<member>.<id>`)."""

    id: str
    lane: Lane
    kind: PartKind
    reason: str
    selection: Selection
    life: str
    grade: int = 0
    devices: tuple[str, ...] = ()
    """All rows of these devices; empty: all rows."""
    rows: int = 0
    spans: int = 1
    """How many spans it was of: like refusals that follow each other are one entry."""
    size: int = 0
    """Bytes of them."""
    digest: str = ""
    """SHA-256 (hex) of the first one."""
    detail: str = ""
    at: int = 0
    """When the first one came, µs UTC of the centre's clock."""
    format: int = 1


class RefusedList(msgspec.Struct, frozen=True, omit_defaults=True):
    """Refused parts of a member that it may send once more, oldest first."""

    parts: tuple[RefusedPart, ...] = ()
    more: bool = False
    """There are others after these."""


encode = msgspec.msgpack.Encoder().encode
_span_request = msgspec.msgpack.Decoder(SpanRequest).decode
_claim_request = msgspec.msgpack.Decoder(ClaimRequest).decode
_span_answer = msgspec.msgpack.Decoder(SpanAnswer).decode
_position_answer = msgspec.msgpack.Decoder(PositionAnswer).decode
_claim_answer = msgspec.msgpack.Decoder(ClaimAnswer).decode
_refused_list = msgspec.msgpack.Decoder(RefusedList).decode
_refused_part = msgspec.json.Decoder(RefusedPart).decode
FAULTS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def decode_span_request(payload: bytes) -> SpanRequest:
    """Return a span. Raises `PermissionDenied` where it is none."""
    try:
        return _span_request(payload)
    except FAULTS as why:
        raise PermissionDenied(
            f"span: cannot be read ({why}); update the older of the two releases, or skip it"
        ) from why


def decode_claim_request(payload: bytes) -> ClaimRequest:
    """Return a claim. Raises `PermissionDenied` where it is none."""
    try:
        return _claim_request(payload)
    except FAULTS as why:
        raise PermissionDenied(f"claim: cannot be read ({why}); update the older of the two releases") from why


def decode_span_answer(payload: bytes) -> SpanAnswer:
    """Return the answer to a span. Raises `Unavailable` where it is none."""
    try:
        return _span_answer(payload)
    except FAULTS as why:
        raise Unavailable(f"the answer to a span cannot be read: {why}") from why


def decode_position_answer(payload: bytes) -> PositionAnswer:
    """Return where the lanes stand. Raises `Unavailable` where it is no such answer."""
    try:
        return _position_answer(payload)
    except FAULTS as why:
        raise Unavailable(f"the answer to `position` cannot be read: {why}") from why


def decode_claim_answer(payload: bytes) -> ClaimAnswer:
    """Return the answer to a claim. Raises `Unavailable` where it is none."""
    try:
        return _claim_answer(payload)
    except FAULTS as why:
        raise Unavailable(f"the answer to a claim cannot be read: {why}") from why


def decode_refused_list(payload: bytes) -> RefusedList:
    """Return a list of refused parts. Raises `Unavailable` where it is none."""
    try:
        return _refused_list(payload)
    except FAULTS as why:
        raise Unavailable(f"the list of refused parts cannot be read: {why}") from why


def encode_refused_part(part: RefusedPart) -> bytes:
    """Return an entry of the list as it stands on the log."""
    return msgspec.json.encode(part)


def decode_refused_part(payload: bytes) -> RefusedPart:
    """Return an entry of the list. Raises `ValueError` where it is none."""
    try:
        return _refused_part(payload)
    except FAULTS as why:
        raise ValueError(f"refused part: {why}") from why
