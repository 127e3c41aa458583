"""Records that pass through the stages: plain, frozen, typed.

Times are whole microseconds since 1970-01-01T00:00:00Z in a signed 64-bit integer. Columns are numpy
arrays of one length; row *i* of each column belongs together.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import Any, Literal, NamedTuple, Protocol

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


class MqttMetadata(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """MQTT properties of a message beside its topic and payload."""

    client: str = ""
    """Client id of the connection."""
    credential: str = ""
    """Id of the device whose credential opened the connection."""
    content_type: str = ""
    user: tuple[tuple[str, str], ...] = ()
    """User properties in the order sent."""


class MetadataSource(Protocol):
    """A stored batch of messages, from which their metadata is read only where a profile asks for it."""

    def metadata(self, index: int) -> MqttMetadata:
        """Return the metadata of a message."""
        ...


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as received: address, bytes, arrival."""

    topic: str
    """MQTT topic; ``http/<device>`` for a message pushed by HTTP, ``tcp/<protocol>/<device>`` for a listener's."""
    payload: bytes
    received: int
    """Arrival at the broker (or at our HTTP endpoint), µs UTC."""
    sequence: int
    """Sequence in its source; increases by one per message where the source has positions."""
    principal: str = ""
    """Device id authenticated by the source; empty where the broker has checked the topic instead."""
    best_effort: bool = False
    """True for QoS 0: messages may be lost before they reach the gateway."""
    cut: bool = False
    """True for video metadata that was redacted to what may be stored; set only by the redaction stage."""
    redelivered: bool = False
    """True for a message that its device sent again (DUP): the first may have arrived, too."""
    metadata: MqttMetadata | None = None
    """Set where a profile of the topic reads it."""


class MessageBatch(list[Message]):
    """Messages that are processed together, with columns for the stages; each is computed once, on first access."""

    @classmethod
    def of(cls, messages: Sequence[Message]) -> MessageBatch:
        """Return messages as a batch; the argument itself if it is one."""
        return messages if isinstance(messages, MessageBatch) else cls(messages)

    @classmethod
    def joined(cls, parts: Sequence[Sequence[Message]]) -> MessageBatch:
        """Return the messages of all parts; columns that every part has already are joined, not computed again."""
        if len(parts) == 1:
            return cls.of(parts[0])
        whole = cls(chain.from_iterable(parts))
        batches = [vars(part) for part in parts if isinstance(part, cls)]
        if any("stored_in" in batch for batch in batches):
            vars(whole)["stored_in"] = list(chain.from_iterable(cls.of(part).stored_in for part in parts))
        if parts and len(batches) == len(parts):
            for name in batches[0].keys() - {"stored_in"}:
                columns = [batch[name] for batch in batches if name in batch]
                if len(columns) == len(parts):
                    is_list = isinstance(columns[0], list)
                    vars(whole)[name] = list(chain.from_iterable(columns)) if is_list else np.concatenate(columns)
        return whole

    def part(self, first: int, end: int) -> MessageBatch:
        """Return some of the messages, with what their batches know of them."""
        messages = MessageBatch(self[first:end])
        if "stored_in" in vars(self):
            vars(messages)["stored_in"] = self.stored_in[first:end]
        return messages

    @cached_property
    def stored_in(self) -> list[MetadataSource | None]:
        """The stored batch of each message; None: it came otherwise."""
        return [None] * len(self)

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
        """Arrival of each message, µs UTC."""
        return np.array([message.received for message in self], np.int64)

    @cached_property
    def sequences(self) -> I64:
        """Sequence of each message in its source."""
        return np.fromiter((message.sequence for message in self), np.int64, len(self))

    @cached_property
    def is_cut(self) -> BOOL:
        """Return whether each message is redacted video metadata."""
        return np.fromiter((message.cut for message in self), np.bool_, len(self))

    @cached_property
    def has_metadata(self) -> BOOL:
        """Return whether each message has metadata."""
        return np.fromiter((message.metadata is not None for message in self), np.bool_, len(self))

    @cached_property
    def best_effort(self) -> BOOL:
        return np.array([message.best_effort for message in self], np.bool_)

    @cached_property
    def redelivered(self) -> BOOL:
        return np.array([message.redelivered for message in self], np.bool_)


class ReceivedFrame(msgspec.Struct, frozen=True):
    """A frame that a listener received, as far as the transport is concerned."""

    name: str
    """Name of the device on the wire: an MN, a station address, a phone number."""
    parsed: Any
    """The frame as parsed by its protocol, for the session that parsed it."""
    password: str | None = None
    """Password in the frame; None: such a frame has none."""
    centre: str = ""
    """Address of the centre that the frame is for; empty: such a frame names none."""
    is_stored: bool = True
    """True if the frame goes to the log; False for keep-alives and connection management."""
    checksum_ok: bool = True
    """True if the checksum is right."""


class FrameOutcome(StrEnum):
    """The outcome of a frame, for the reply and the metrics."""

    COMMITTED = "committed"
    """In the log: as readings, or in quarantine."""
    CHECK_FAILED = "check_failed"
    """In quarantine, because the checksum is wrong."""
    ALIVE = "alive"
    """A keep-alive or connection management: nothing to store."""
    UNKNOWN = "unknown"
    """The device is unknown or disabled."""
    PASSWORD = "password"  # noqa: S105 - a word
    """The password is wrong."""
    CENTRE = "centre"
    """The frame is for another centre."""


class BatchNumbers(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Numbers of the committed batches of a front."""

    last: int
    """Greatest number."""
    missing: int = 0
    """Bit i: batch `last` - 1 - i has not come."""


class PartialBatch(msgspec.Struct, frozen=True, gc=False):
    """A batch of which a commit holds the first messages only."""

    instance: str
    number: int
    messages: int
    """Number of its messages that are committed."""


class SourcePosition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Committed position of a source."""

    epoch: str
    """Epoch of the source (the creation time of its stream): sequences of different epochs are not comparable."""
    sequence: int
    received: int = 0
    """Arrival of the message with this sequence, µs UTC: a message with this sequence or below and a later arrival is
    another one, stored after the source lost its end (a power cut, an older copy). 0: unknown."""
    numbers: dict[str, BatchNumbers] = {}
    """Instance of a front -> its batches that are committed whole."""
    partial: PartialBatch | None = None
    """The batch that the commit has begun; None: it ends with a batch."""


CORRECTION_PREFIX = "correction:"
"""Prefix of the source name of readings that an operator corrects; the id of the correction follows."""
REPROCESSING_PREFIX = "redecode:"
"""Prefix of the source name of reprocessed messages; the id of the order follows."""


class UnreadableBatch(msgspec.Struct, frozen=True):
    """Reason why a batch cannot be read, and the number of messages lost with it."""

    reason: str
    count: int


RecordedIn = Literal["", "raw", "quarantine", "correction"]
"""Kind of log entries from which messages are reprocessed; empty: the messages are new."""


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """Messages with a function to acknowledge them, called only once the log has them."""

    source: str
    """Name of the source in the ledger, e.g. ``mqtt``, ``http``, ``external:vendor``."""
    messages: list[Message]
    ack: Callable[[], Awaitable[None]]
    position: SourcePosition | None = None
    """Position after these messages; None where the source cannot be reread from a position."""
    recorded_in: RecordedIn = ""
    """Kind of log entries from which the messages are reprocessed; empty: the messages are new.

    ``correction``: each is a batch of readings to be written as revisions, its topic their subject."""
    ack_is_cumulative: bool = False
    """True if its acknowledgement includes all earlier deliveries of the source."""
    position_after: Callable[[int], SourcePosition] | None = None
    """Returns the position after so many of the messages; None: it is the sequence and arrival of the last one."""
    unreadable: UnreadableBatch | None = None
    """Set where the one message is a batch that cannot be read: it goes to quarantine whole."""


# ── authority ────────────────────────────────────────────────────────────────────────────────────────


class DeviceState(StrEnum):
    """State of a device."""

    REGISTERED = "registered"
    ACTIVE = "active"
    SILENT = "silent"
    DISABLED = "disabled"
    RETIRED = "retired"


class Datum(StrEnum):
    """Coordinate system of a registered position."""

    WGS84 = "wgs84"
    CGCS2000 = "cgcs2000"
    GCJ02 = "gcj02"
    BD09 = "bd09"


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A registered device: an instance of a device model."""

    id: str
    """Canonical id: 1 to 64 characters of ``[A-Za-z0-9_-]``."""
    division: str
    """Division code, 2 to 12 digits (``440106``)."""
    profile: str
    """``vendor/model``; the version in force is selected at run time."""
    state: DeviceState = DeviceState.REGISTERED
    alias: str = ""
    """Name that the device uses in topics or payloads (a DevEUI, a friendly name); empty: its id."""
    gateway: str = ""
    """Id of the device whose credential publishes for this one (a Zigbee bridge, a network server); several ids (a
    LoRaWAN device in two networks) are separated by blanks."""
    lon: float | None = None
    lat: float | None = None
    datum: Datum = Datum.WGS84
    department: str = ""
    domain: str = ""
    grade: int = 1
    interval_s: float = 0.0
    """Expected interval between messages; 0: as in the profile."""
    owner: str = ""
    name: str = ""
    asset: str = ""
    """Asset that it measures, as its owner names it (a component code, a site); empty: none."""
    secondary: bool = False
    """True if another device is the primary source of its asset."""
    revision: int = 0
    """Revision of the registry entry (for If-Match)."""

    @property
    def gateways(self) -> tuple[str, ...]:
        """Ids of the devices whose credentials publish for this one."""
        return tuple(self.gateway.split())


# ── decode ───────────────────────────────────────────────────────────────────────────────────────────


class IdentityKind(StrEnum):
    """Key by which readings of a device and property are identified: equal identities are the same reading."""

    TIME = "time"
    SEQUENCE = "sequence"
    MESSAGE_ID = "message_id"
    NONE = "none"
    FRAME = "frame"
    """Frame counter and bytes of a radio frame: equal via another network, different in another counter epoch."""


class Spec(msgspec.Struct, frozen=True):
    """A reading that a profile defines, as `normalise` and `persist` need it.

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
    """Valid range in the canonical unit, of the profile or else of the property."""
    step: float = float("inf")
    """Greatest plausible change between consecutive readings, canonical unit."""
    deadband: float = 0.0
    """Changes up to this are suppressed (canonical unit); not negative."""
    suppress: bool = False
    """True where the profile asks for report by exception (`unchanged` readings are suppressed)."""
    heartbeat_s: float = 3600.0
    """Longest interval at which `suppress` repeats the last value, seconds."""
    interval_s: float = 0.0
    """Expected interval; 0 unknown."""
    alarm: bool = False
    """True if its readings have priority on the uplink."""
    identity: IdentityKind = IdentityKind.TIME
    channel: str = ""
    """Name of one of several equal sensors of a device: a phase (``a``), a probe (``2``), a socket. (device, property,
    channel) is a series, within which duplicates, steps and gaps are found. Empty: the only one."""
    modulus: float = 0.0
    """A counter wraps to 0 at this value (canonical unit); 0: it does not wrap."""
    datum: Datum = Datum.WGS84
    """Coordinate system of a longitude or latitude as sent; readings are in WGS-84."""


class QuarantineReason(StrEnum):
    """Reason why a message is in quarantine."""

    UNKNOWN_DEVICE = "unknown_device"
    """No device is registered under the name that topic or payload give."""
    DISABLED_DEVICE = "disabled_device"
    """The device is disabled."""
    FOREIGN_TOPIC = "foreign_topic"
    """The topic, or the gateway that published it, is another device's."""
    NO_PROFILE = "no_profile"
    """No profile in force claims the topic, or that of the device is not loaded."""
    NOT_UTF8 = "not_utf8"
    """Text is not in the encoding that the profile states."""
    MALFORMED = "malformed"
    """The payload is not of its format: no JSON, a frame that ends too early."""
    CRC_FAIL = "crc_fail"
    """A check value (CRC, checksum) is wrong, so the content cannot be trusted."""
    TOO_DEEP = "too_deep"
    """The payload is nested beyond the limit."""
    TOO_LARGE = "too_large"
    """The payload, or what it unpacks to, is beyond the limit."""
    SCHEMA = "schema"
    """The payload is of its format, but not laid out as the profile says."""
    NO_VALUES = "no_values"
    """No value of the message belongs to a reading of the profile."""
    UNRESOLVED = "unresolved"
    """The message refers to an earlier one that was not received (a birth, the first part of a frame)."""
    RATE = "rate"
    """The device sends more than its limit."""
    CRASHED = "crashed"
    """The gateway failed on it; the detail names the place, for a bug report."""
    DAMAGED_BATCH = "damaged_batch"
    """A batch of messages as a front stored it is damaged or of an unknown form; it counts as all of its messages."""
    SCRIPT_REFUSED = "script_refused"
    """The manufacturer's codec script rejected the bytes."""
    SCRIPT_FAILED = "script_failed"
    """The codec script threw an error or returned an unusable result."""
    SCRIPT_LIMIT = "script_limit"
    """The codec script exceeded its limit of time, memory, stack or output and was stopped."""
    SCRIPT_STATE = "script_state"
    """The codec script stored state between frames, which is not allowed."""
    SCRIPT_SUSPENDED = "script_suspended"
    """The codec script was not run: it is suspended after exceeding its limits too often."""


class RejectReason(StrEnum):
    """Reason why a value of an otherwise valid message was rejected; the message is stored as raw."""

    NOT_FINITE = "not_finite"
    """NaN or infinite."""
    WRONG_TYPE = "wrong_type"
    """A text where a number is due, or the reverse."""
    UNKNOWN_PROPERTY = "unknown_property"
    """The message names a property that the table of properties lacks."""
    UNKNOWN_UNIT = "unknown_unit"
    """The message names a unit that is not known."""
    DIMENSION = "dimension"
    """The unit is not one of the property's dimension."""
    ENUMERATION = "enumeration"
    """The word is not one of those that the profile lists."""
    BAD_TIME = "bad_time"
    """The phenomenon time cannot be read, or lies too far in the future or the past."""
    TOO_LONG = "too_long"
    """The text is longer than the limit."""
    FLAGGED = "flagged"
    """The device flags the value as invalid, and the profile relies on the flag."""
    UNKNOWN_DEVICE = "unknown_device"
    """An element of an otherwise valid message names a device that is unknown, disabled or not permitted."""
    FRAME = "frame"
    """One of several frames of a message cannot be decoded; the detail gives the reason."""


class Quarantined(msgspec.Struct, frozen=True):
    """A message to be stored in quarantine."""

    message: int
    """Index in the batch of messages."""
    reason: QuarantineReason
    detail: str = ""
    """Description for people; contains no payload."""
    device: int = -1
    profile: str = ""
    count: int = 1
    """Number of messages for which it stands: more than one for a batch that cannot be read."""


class RejectedValue(msgspec.Struct, frozen=True):
    """A value that was rejected."""

    message: int
    reason: RejectReason
    field: str = ""
    device: int = -1
    detail: str = ""
    profile: str = ""
    """``vendor/model@version`` by which the value was decoded."""


class Downsampled(msgspec.Struct, frozen=True):
    """Number of observations of a device that its profile left out because of downsampling."""

    message: int
    device: int
    count: int


class SequenceNumbers(msgspec.Struct, frozen=True, eq=False):
    """Sequence numbers that devices gave their messages, as columns."""

    message: I64
    device: I64
    number: I64

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int]]) -> SequenceNumbers:
        """Return the columns of (message, device, number)."""
        table = np.array(rows, np.int64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])

    @classmethod
    def joined(cls, parts: Sequence[SequenceNumbers]) -> SequenceNumbers:
        """Return the concatenated rows."""
        if len(parts) == 1:
            return parts[0]
        columns = ([part.message for part in parts], [part.device for part in parts], [part.number for part in parts])
        return cls(*(np.concatenate([np.zeros(0, np.int64), *column]) for column in columns))

    def __len__(self) -> int:
        return len(self.message)

    def take(self, rows: BOOL, message: I64) -> SequenceNumbers:
        """Return the given rows, with new message indices."""
        return SequenceNumbers(message[rows], self.device[rows], self.number[rows])


NO_SEQUENCE_NUMBERS = SequenceNumbers.of(())


class RemovedField(msgspec.Struct, frozen=True):
    """A field that was removed from a message before anything was written."""

    message: int
    format: str
    field: str
    count: int


class Fields(msgspec.Struct, frozen=True, eq=False):
    """Decoded values of a batch of messages, as columns: one row per value, in the order of the messages."""

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
    """Phenomenon time; the arrival of the message where it has none."""
    time_quality: U8
    key: I64
    """Key of the identity: `time`, the sequence number, or a digest of the message id."""
    path: U16
    """Digest of the path of the message (topic, network, receiving gateway)."""
    override_scale: dict[int, tuple[float, float]] = {}
    """Row -> (scale, offset) where the payload names a unit, instead of those of the spec."""
    quarantined: list[Quarantined] = []
    rejected: list[RejectedValue] = []
    source_quality: dict[int, int] = {}
    """Row -> quality code given by the device (a flag of HJ 212, a status of OPC UA), see `quality`."""
    source_flags: dict[int, int] = {}
    """Row -> bits of `quality.Flag` set by decoding."""
    ignored: int = 0
    """Number of values that the profile declares as meaningless (sentinels for missing values, nulls)."""
    downsampled: list[Downsampled] = []
    removed: list[RemovedField] = []
    sequence_numbers: SequenceNumbers = NO_SEQUENCE_NUMBERS
    """Sequence numbers of devices that number their messages, whatever their identity kind."""

    def __len__(self) -> int:
        return len(self.message)


# ── normalise ────────────────────────────────────────────────────────────────────────────────────────


class Readings(msgspec.Struct, frozen=True, eq=False):
    """Readings of a batch of messages before deduplication. Indices are local to this process."""

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
    """Number of the row's (device, property, channel) in `quantities.series`; empty until numbered."""

    def __len__(self) -> int:
        return len(self.message)


# ── persist ──────────────────────────────────────────────────────────────────────────────────────────


class DuplicateKind(StrEnum):
    """Kind of duplicate; each is counted separately."""

    REDELIVERY = "redelivery"
    """The same bytes by the same path in another message: the device or its network sent the message again."""
    REPEAT = "repeat"
    """The same reading with the same value in another message by the same path."""
    CROSS_PATH = "cross_path"
    """The same reading with the same value by another path, for example through a second network server."""
    UNCHANGED = "unchanged"
    """The value moved less than the deadband that the profile sets for it."""
    EQUAL = "equal"
    """Reprocessed, with the same result as before."""


class CommitRecord(msgspec.Struct, frozen=True):
    """Last message of each commit: the state of ingest. The next record replaces it."""

    batch_id: str
    number: int
    """Increases by one per commit of a partition."""
    committed_at: int
    positions: dict[str, SourcePosition]
    """Source -> position after this commit."""
    totals: dict[str, int]
    """Ledger kind -> count since the log began."""
    profiles: dict[str, int] = {}
    """Profile -> version used."""
    checkpoint: int = 0
    """Log sequence up to which the last checkpoint of the dedup index is valid."""
    format: int = 1


class LogMessage(msgspec.Struct, frozen=True, gc=False):
    """A message to be written to the log, as part of an atomic batch."""

    subject: str
    payload: bytes
    ttl_h: int = 0
    """Lifetime in hours; 0: unlimited."""
    rollup: bool = False
    """True if it replaces all earlier messages of the subject."""
    expect: int | None = None
    """Expected last sequence of the subject (0: none); the whole batch is refused if it differs."""


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """A message read from the log."""

    sequence: int
    subject: str
    payload: bytes
    time: int
    """Time when the log stored it, µs UTC."""
    ttl_h: int = 0
    """Lifetime in hours, from `time`; 0: unlimited."""
    rollup: bool = False
    """True if it replaced all earlier entries of its subject."""
    ends_write: bool = False
    """True if it is the last entry of its atomic write."""


# ── publish ──────────────────────────────────────────────────────────────────────────────────────────


class SheddingRule(NamedTuple):
    """Readings not forwarded during a mode order: these properties in an area, except alarms."""

    division: str
    department: str
    properties: frozenset[str]


class Framing(NamedTuple):
    """Result of a framing function for a buffer: `skip` bytes outside any frame, then a frame of `length` bytes.

    A length of 0 requests more bytes; skipped bytes are never examined again. ``skip + length`` never exceeds the
    buffer. A frame is recognised by its delimiters and its length; its checksum is verified separately, unless it alone
    can determine where the frame ends.
    """

    skip: int
    length: int = 0


class QualityHour(msgspec.Struct, frozen=True, eq=False):
    """Quality indicators of devices in one hour, as columns: 0 to 1, NaN where an indicator is undefined."""

    hour: int
    """Start of the hour, µs UTC."""
    device: I32
    """Indices in the device registry, ascending, each once."""
    received: U32
    authenticity: F64
    accuracy: F64
    continuity: F64
    completeness: F64


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
