"""The records that walk through the stages: plain, frozen, typed.

Times are whole microseconds since 1970-01-01T00:00:00Z in a signed 64-bit integer. Columns are numpy
arrays of one length; row *i* of each column belongs together.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]
BOOL = NDArray[np.bool_]

OBSERVATION = "video_observation"
"""The property whose values are records of `sensegate.video.observation`."""
FORMAT = 1
"""Version of the form of every record on the log; release N reads what N-1 wrote."""


# ── collect ──────────────────────────────────────────────────────────────────────────────────────────


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message as it came: address, bytes, arrival."""

    topic: str
    """MQTT topic; ``http/<device>`` for a message pushed by HTTP, ``tcp/<protocol>/<device>`` for a listener's."""
    payload: bytes
    received: int
    """Arrival at the broker (or at our HTTP endpoint), µs UTC."""
    sequence: int
    """Place in its source; rises by one per message where the source has a position."""
    principal: str = ""
    """Device id that the credential proved, where the source knows it; the broker has checked the topic else."""
    best_effort: bool = False
    """True for QoS 0: may be lost before us, a loss class of its own."""
    cut: bool = False
    """True for video metadata that holds only what may be kept (`video.body`); only what runs in here says so."""


class Span(list[Message]):
    """The messages of one walk, with the columns that several stages need; each is made once, when first asked for."""

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Span:
        """Return the messages as a span; itself, where it is one."""
        return messages if isinstance(messages, Span) else cls(messages)

    @cached_property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self]

    @cached_property
    def lengths(self) -> I64:
        """Bytes of each payload."""
        return np.fromiter(map(len, self.payloads), np.int64, len(self))

    @cached_property
    def topics(self) -> list[str]:
        return [message.topic for message in self]

    @cached_property
    def principals(self) -> list[str]:
        return [message.principal for message in self]

    @cached_property
    def received(self) -> I64:
        """Arrival of each, µs UTC."""
        return np.array([message.received for message in self], np.int64)

    @cached_property
    def best_effort(self) -> BOOL:
        return np.array([message.best_effort for message in self], np.bool_)


class Heard(msgspec.Struct, frozen=True):
    """One frame from a device that talks to a listener of ours, as far as transport goes."""

    name: str
    """By which the device calls itself: an MN, a station's address, a phone number."""
    facts: Any
    """The frame taken apart by its protocol; only the talk that made this looks into it."""
    password: str | None = None
    """What it gives as proof; None: such a frame holds none."""
    centre: str = ""
    """Address of the centre that it is meant for; empty: such a frame names none."""
    keeps: bool = True
    """Whether it belongs into the log; False: keep-alives and what concerns the connection alone."""
    right: bool = True
    """Whether its check value fits."""


class Outcome(StrEnum):
    """What became of a frame, for the answer to it; each is counted apart."""

    COMMITTED = "committed"
    """It is in the log: as readings, or in quarantine."""
    CHECK_FAILED = "check_failed"
    """It is in quarantine, for its check value does not fit."""
    ALIVE = "alive"
    """It belongs to no log."""
    UNKNOWN = "unknown"
    """No such device, or it is disabled."""
    PASSWORD = "password"  # noqa: S105 - a word
    """The password is wrong."""
    CENTRE = "centre"
    """It is meant for another centre."""


class Position(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How far a source has been committed."""

    life: str
    """Identity of the source's present life (the stream's creation time): sequences of two lives do not compare."""
    sequence: int
    at: int = 0
    """Arrival of the message with this sequence, µs UTC: a later one of this number or below is another, after the
    store has lost its end (a power cut, an older copy). 0: not said."""


REDECODE = "redecode:"
"""Begin of the source's name where messages of the log are decoded once more; the job's id follows."""


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """Messages with the way to acknowledge them; acknowledged only when the log has them."""

    source: str
    """Name of the source in the ledger, e.g. ``mqtt``, ``http``, ``external:vendor``."""
    messages: list[Message]
    ack: Callable[[], Awaitable[None]]
    position: Position | None = None
    """Position after these messages; None where a source cannot be read again from a place."""
    again: Literal["", "raw", "quarantine"] = ""
    """Where on the log these messages stand already: they are decoded once more (`redecode`). Empty: they are new."""
    covers: bool = False
    """Its acknowledgement is one of all deliveries of its source before it."""


# ── authority ────────────────────────────────────────────────────────────────────────────────────────


class DeviceState(StrEnum):
    """Life of a device."""

    REGISTERED = "registered"
    ACTIVE = "active"
    SILENT = "silent"
    DISABLED = "disabled"
    RETIRED = "retired"


class Datum(StrEnum):
    """Coordinate system in which a place was registered."""

    WGS84 = "wgs84"
    CGCS2000 = "cgcs2000"
    GCJ02 = "gcj02"
    BD09 = "bd09"


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance of a device model, as registered."""

    id: str
    """Canonical id: 1 to 64 characters of ``[A-Za-z0-9_-]``."""
    division: str
    """Division code, 2 to 12 digits (``440106``)."""
    profile: str
    """``vendor/model``; the version in force is chosen at run time."""
    state: DeviceState = DeviceState.REGISTERED
    alias: str = ""
    """Name by which the device calls itself in topics or payloads (a DevEUI, a friendly name); empty: its id."""
    gateway: str = ""
    """Id of the device whose credential publishes for this one (a Zigbee bridge, a network server); where several may
    (two networks hear one LoRaWAN device), all of them with blanks between."""
    lon: float | None = None
    lat: float | None = None
    datum: Datum = Datum.WGS84
    department: str = ""
    domain: str = ""
    grade: int = 1
    interval_s: float = 0.0
    """Expected interval between messages; 0: the profile's."""
    owner: str = ""
    name: str = ""
    asset: str = ""
    """What it measures, as the owner of assets names it (a component code, a site); empty: nothing of the kind."""
    secondary: bool = False
    """Of its asset another device is the source."""
    revision: int = 0
    """Revision of the registry entry (for If-Match)."""

    @property
    def gateways(self) -> tuple[str, ...]:
        """Ids of the devices whose credentials publish for this one."""
        return tuple(self.gateway.split())


# ── decode ───────────────────────────────────────────────────────────────────────────────────────────


class IdentityKind(StrEnum):
    """What makes two readings of a device and property the same one."""

    TIME = "time"
    SEQUENCE = "sequence"
    MESSAGE_ID = "message_id"
    NONE = "none"
    FRAME = "frame"
    """Frame counter and bytes of a radio frame: the same by another network, never the same in another life."""


class Spec(msgspec.Struct, frozen=True):
    """One reading that a profile promises: what `normalise` and `persist` must know of it.

    The value in the canonical unit is ``value * scale + offset``.
    """

    profile: str
    """``vendor/model@version``."""
    name: str
    """The field as the device names it."""
    property: str
    """Standard name in the property table."""
    scale: float = 1.0
    offset: float = 0.0
    low: float = float("-inf")
    high: float = float("inf")
    """Valid range in the canonical unit: the profile's, else the property's."""
    step: float = float("inf")
    """Greatest credible change between neighbours, canonical unit."""
    deadband: float = 0.0
    """Changes up to this are suppressed (canonical unit); 0 keeps all, negative is never given."""
    suppress: bool = False
    """True where the profile asks for report by exception (`unchanged` readings are suppressed)."""
    heartbeat_s: float = 3600.0
    """With `suppress`, the last value is repeated at least this often."""
    interval_s: float = 0.0
    """Expected interval; 0 unknown."""
    alarm: bool = False
    """True: goes first on the uplink."""
    identity: IdentityKind = IdentityKind.TIME
    channel: str = ""
    """Which of several alike on one device: a phase (``a``), a probe (``2``), a socket. (device, property, channel)
    is one series: what is judged for duplicates, steps and gaps. Empty: the only one."""
    modulus: float = 0.0
    """A counter starts again at 0 instead of reaching this (canonical unit); 0: it does not."""
    datum: Datum = Datum.WGS84
    """Of a longitude or latitude as sent; readings are in WGS-84."""


class QuarantineReason(StrEnum):
    """Why a whole message became no reading; it is kept whole."""

    UNKNOWN_DEVICE = "unknown_device"
    DISABLED_DEVICE = "disabled_device"
    FOREIGN_TOPIC = "foreign_topic"
    NO_PROFILE = "no_profile"
    NOT_UTF8 = "not_utf8"
    MALFORMED = "malformed"
    CRC_FAIL = "crc_fail"
    """A check value (CRC, sum) does not fit the bytes: what they say cannot be trusted."""
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    SCHEMA = "schema"
    NO_VALUES = "no_values"
    UNRESOLVED = "unresolved"
    """It refers to an earlier message that was not heard (a birth, the first part of a frame)."""
    RATE = "rate"
    CRASHED = "crashed"
    SCRIPT_REFUSED = "script_refused"
    """The maker's codec script says that these bytes are none of its device's."""
    SCRIPT_FAILED = "script_failed"
    """The codec script threw an error, or returned nothing that could be used."""
    SCRIPT_LIMIT = "script_limit"
    """The codec script was stopped: it used more time, memory, stack or output than it may."""
    SCRIPT_STATE = "script_state"
    """The codec script kept something from one frame for the next."""
    SCRIPT_SUSPENDED = "script_suspended"
    """The codec script was not asked: it has used up its limits too often of late."""


class RejectReason(StrEnum):
    """Why one value of a message that was otherwise good became no reading; counted, its message kept in raw."""

    NOT_FINITE = "not_finite"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_PROPERTY = "unknown_property"
    UNKNOWN_UNIT = "unknown_unit"
    DIMENSION = "dimension"
    ENUMERATION = "enumeration"
    BAD_TIME = "bad_time"
    TOO_LONG = "too_long"
    FLAGGED = "flagged"
    """The device itself says that this is no measurement, and the profile takes its word."""
    UNKNOWN_DEVICE = "unknown_device"
    """One element of a message that was otherwise good names a device that is unknown, disabled or another's."""
    FRAME = "frame"
    """One frame of a message that holds several cannot be decoded; the detail says why."""


class Quarantined(msgspec.Struct, frozen=True):
    """A message that became no reading."""

    message: int
    """Index in the batch of messages."""
    reason: QuarantineReason
    detail: str = ""
    """For people: what and where; holds no payload."""
    device: int = -1
    profile: str = ""


class RejectedValue(msgspec.Struct, frozen=True):
    """A value that became no reading."""

    message: int
    reason: RejectReason
    field: str = ""
    device: int = -1
    detail: str = ""
    profile: str = ""
    """``vendor/model@version`` by which the value was read."""


class Thinned(msgspec.Struct, frozen=True):
    """Observations of one device that its profile leaves out: their tracks have said as much already."""

    message: int
    device: int
    count: int


class Numbered(msgspec.Struct, frozen=True, eq=False):
    """Sequence numbers that devices gave their messages, as columns."""

    message: I64
    device: I64
    number: I64

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int]]) -> Numbered:
        """Return the columns of (message, device, number)."""
        table = np.array(rows, np.int64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])

    @classmethod
    def joined(cls, parts: Sequence[Numbered]) -> Numbered:
        """Return the rows of all."""
        if len(parts) == 1:
            return parts[0]
        columns = ([part.message for part in parts], [part.device for part in parts], [part.number for part in parts])
        return cls(*(np.concatenate([np.zeros(0, np.int64), *column]) for column in columns))

    def __len__(self) -> int:
        return len(self.message)

    def take(self, rows: BOOL, message: I64) -> Numbered:
        """Return some rows, whose messages have other indices now."""
        return Numbered(message[rows], self.device[rows], self.number[rows])


UNNUMBERED = Numbered.of(())


class Removed(msgspec.Struct, frozen=True):
    """A field that was taken out of a message before anything was written."""

    message: int
    format: str
    field: str
    count: int


class Fields(msgspec.Struct, frozen=True, eq=False):
    """What a batch of messages said, as columns: one row per value, in the order of the messages."""

    message: I32
    """Index of the message in the batch."""
    device: I32
    """Index of the device in the registry."""
    spec: I32
    """Index in the profile set's table of specs."""
    value: F64
    """As sent (a boolean is 0 or 1; an enumeration is already mapped); NaN where the row is in `text`."""
    text: dict[int, str]
    """Row -> value of a property whose values are strings."""
    time: I64
    """Phenomenon time; the message's arrival where none was given."""
    time_quality: U8
    key: I64
    """What the identity is judged by: equals `time`, or the sequence number, or a digest of the message id."""
    path: U16
    """Digest of the way the message took (topic, network, receiving gateway)."""
    override_scale: dict[int, tuple[float, float]] = {}
    """Row -> (scale, offset) where the payload itself named a unit; replaces the spec's."""
    quarantined: list[Quarantined] = []
    rejected: list[RejectedValue] = []
    source_quality: dict[int, int] = {}
    """Row -> quality code that the device itself gave (a flag of HJ 212, a status of OPC UA), see `quality`."""
    source_flags: dict[int, int] = {}
    """Row -> bits of `quality.Flag` that decoding itself sets (`warned`)."""
    ignored: int = 0
    """Values that the profile declares as meaning nothing (sentinels for missing, nulls)."""
    thinned: list[Thinned] = []
    removed: list[Removed] = []
    numbered: Numbered = UNNUMBERED
    """Of devices that count their messages, whatever their identity is judged by."""

    def __len__(self) -> int:
        return len(self.message)


# ── normalise ────────────────────────────────────────────────────────────────────────────────────────


class Readings(msgspec.Struct, frozen=True, eq=False):
    """Readings of one batch of messages, before duplicates are judged. Indices are those of this process."""

    message: I32
    device: I32
    spec: I32
    property: I16
    """Index in the property table."""
    value: F64
    """Canonical unit; NaN where the row is in `text`."""
    text: dict[int, str]
    time: I64
    time_quality: U8
    received: I64
    key: I64
    path: U16
    quality: U8
    flags: U32
    series: I32 = msgspec.field(default_factory=lambda: np.zeros(0, np.int32))
    """Number of the row's (device, property, channel) in `series.Series`; of no length where not yet numbered."""

    def __len__(self) -> int:
        return len(self.message)


# ── persist ──────────────────────────────────────────────────────────────────────────────────────────


class DuplicateKind(StrEnum):
    """Why a value was known already; each is counted apart."""

    REDELIVERY = "redelivery"
    REPEAT = "repeat"
    CROSS_PATH = "cross_path"
    UNCHANGED = "unchanged"
    EQUAL = "equal"
    """Decoded once more, to what it was."""


class CommitRecord(msgspec.Struct, frozen=True):
    """The last member of each commit: how far the ingest has come. The next one replaces it."""

    batch_id: str
    number: int
    """Rises by one per commit of a partition."""
    committed_at: int
    positions: dict[str, Position]
    """Source -> position after this commit."""
    totals: dict[str, int]
    """Ledger kind -> count since the log began."""
    profiles: dict[str, int] = {}
    """Profile -> version used."""
    checkpoint: int = 0
    """Log sequence to which the duplicate state's last checkpoint on disk is valid."""
    format: int = 1


class Member(msgspec.Struct, frozen=True, gc=False):
    """One message of an atomic batch."""

    subject: str
    payload: bytes
    ttl_h: int = 0
    """Life in hours; 0 keeps it."""
    rollup: bool = False
    """True: replaces all earlier messages of the subject."""
    expect: int | None = None
    """The whole batch is refused unless the subject's last sequence is this (0: none)."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One message as read from the log."""

    sequence: int
    subject: str
    payload: bytes
    time: int
    """When the log stored it, µs UTC."""


# ── publish ──────────────────────────────────────────────────────────────────────────────────────────


class Shed(NamedTuple):
    """What is not forwarded while a mode order holds: these properties of a place, alarms apart."""

    division: str
    department: str
    properties: frozenset[str]


class QualityRow(msgspec.Struct, frozen=True):
    """Quality indicators of one device in one hour, as the API reports them: 0 to 1, or null where undefined."""

    device: str
    hour: int
    """Start of the hour, µs UTC."""
    received: int
    authenticity: float | None
    accuracy: float | None
    continuity: float | None
    completeness: float | None


_SLUG = re.compile(r"(?=.{1,48}\Z)[A-Za-z]+\d{0,4}(?:[_-](?:[A-Za-z]+\d{0,4}|\d{1,4}))*", re.ASCII)


def is_slug(text: str) -> bool:
    """Return whether a text is an identifier as used by programs, which names nobody."""
    return _SLUG.fullmatch(text) is not None
