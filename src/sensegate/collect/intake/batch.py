"""The form of a batch on stream MQTT_MESSAGES: many MQTT messages of one front, stored as one message of the stream.

    header (40 bytes, little-endian)   magic ``SGI`` and form version, instance of the front, number of the batch,
                                       count of its messages, XXH3-64 of everything else
    body (MessagePack array)           per read of a connection: client id, credential, arrival, count;
                                       per message: topic, payload, packet id and flags; properties of some

The body holds columns, not messages: the front appends to lists, and the reader takes the same lists as its columns. A
front numbers its batches 1, 2, 3 … under an instance id that it draws at its start.
"""

from __future__ import annotations

import secrets
from itertools import chain, repeat
from struct import Struct, pack
from typing import Annotated, NoReturn

import msgspec
import numpy as np
import xxhash

from sensegate.model import I64, U32, MqttMetadata

FORM = 1
"""Version of the form."""
COUNT_MAX = 65_535
"""Most messages of a batch: an index fits in 16 bits of a position."""
IN_FLIGHT_MAX = 16
"""Most batches that a front may have sent and not yet know as stored."""
BATCH_BYTES_MAX = 64 * 1024**2
"""Largest batch that a reader takes: no NATS server stores a larger message."""
PROPERTIES_MAX = 1_024
"""Most user properties of a message."""
WORDS_MAX = 65_535
"""Longest client id, credential, topic or property, as in MQTT."""

PACKET_ID = 0xFFFF
QOS_SHIFT = 16
DUP, RETAIN, WILL = 1 << 18, 1 << 19, 1 << 20
"""Bits of a message's flags above its packet id (16 bits) and its QoS (2 bits). WILL: sent by the front itself."""

_MAGIC = b"SGI"
_HEADER = Struct("<3sB16sQIQ")
_PREFIX = Struct("<3sB16sQI")
"""The header without the checksum."""
_NO_COUNT = 1
"""Count of a batch whose header cannot be believed."""


class MessageProperties(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Properties of an MQTT 5 message that a profile can read."""

    content_type: Annotated[str, msgspec.Meta(max_length=WORDS_MAX)] = ""
    user: Annotated[tuple[tuple[str, str], ...], msgspec.Meta(max_length=PROPERTIES_MAX)] = ()


_NO_PROPERTIES = MessageProperties()
_Words = Annotated[list[str], msgspec.Meta(max_length=COUNT_MAX)]


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    clients: _Words
    credentials: _Words
    arrivals: bytes
    counts: bytes
    topics: _Words
    payloads: Annotated[list[bytes], msgspec.Meta(max_length=COUNT_MAX)]
    flags: bytes
    properties: Annotated[dict[int, MessageProperties], msgspec.Meta(max_length=COUNT_MAX)]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


class BatchHeader(msgspec.Struct, frozen=True, gc=False):
    """The header of a batch."""

    instance: bytes
    """16 random bytes that a front draws at its start."""
    number: int
    """From 1 on, increasing by one; a batch that is sent again keeps its number."""
    count: int
    """Number of messages in the batch."""


class DamagedBatch(ValueError):
    """The bytes are not a batch of a known form, or are damaged."""

    def __init__(self, reason: str, header: BatchHeader | None, count: int) -> None:
        super().__init__(reason)
        self.header = header
        """The header as far as it can be read; None: it cannot."""
        self.count = count
        """Number of messages lost with the batch, as its header claims; at least one."""


class IntakeBatch(msgspec.Struct, frozen=True, eq=False):
    """A decoded batch, as columns."""

    header: BatchHeader
    clients: list[str]
    """Client id of each read."""
    credentials: list[str]
    """Id of the device whose credential opened the connection of each read."""
    arrivals: I64
    """Time when the front read the bytes of each read, µs UTC."""
    counts: I64
    """Messages of each read."""
    topics: list[str]
    payloads: list[bytes]
    flags: U32
    """Packet id, QoS and flags of each message."""
    properties: dict[int, MessageProperties]
    """By index of the message; most have none."""

    def metadata(self, index: int) -> MqttMetadata:
        """Return what MQTT states of a message beside its topic and payload."""
        read = int(np.searchsorted(np.cumsum(self.counts), index, side="right"))
        stated = self.properties.get(index, _NO_PROPERTIES)
        return MqttMetadata(self.clients[read], self.credentials[read], stated.content_type, stated.user)

    def received(self) -> I64:
        """Return the arrival of each message."""
        return np.repeat(self.arrivals, self.counts)

    def redelivered(self) -> list[bool]:
        """Return whether the device sent each message again (DUP)."""
        return [bool(flag) for flag in (self.flags & np.uint32(DUP)).tolist()]

    def qos(self) -> list[int]:
        """Return the QoS of each message."""
        levels: list[int] = ((self.flags >> np.uint32(QOS_SHIFT)) & np.uint32(3)).tolist()
        return levels

    def clients_of_messages(self) -> list[str]:
        """Return the client id of each message."""
        return _repeated(self.clients, self.counts)

    def credentials_of_messages(self) -> list[str]:
        """Return the credential of each message."""
        return _repeated(self.credentials, self.counts)


class IntakeBatchBuilder:
    """An open batch of a front.

    For each PUBLISH append to `topics`, `payloads` and `flags`, after each read of a connection call `end_read`, then
    `seal` the batch; the front limits its bytes. Nothing is checked per message: this is on the way of each of them.
    """

    __slots__ = (
        "_ended",
        "_reads",
        "flags",
        "payloads",
        "properties",
        "topics",
    )

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.flags: list[int] = []
        """Packet id | QoS << QOS_SHIFT | DUP | RETAIN | WILL."""
        self.properties: dict[int, MessageProperties] = {}
        """By index of the message, where it has any."""
        self._reads: list[tuple[str, str, int, int]] = []
        """Client id, credential, arrival and count of each read."""
        self._ended = 0

    def __len__(self) -> int:
        return len(self.topics)

    def end_read(self, client: str, credential: str, arrival: int) -> int:
        """End the messages of one read of a connection; nothing happens if there are none.

        Args:
            client: client id as the device sent it.
            credential: id of the device whose credential opened the connection.
            arrival: µs UTC.

        Returns:
            The number of messages of the read.
        """
        count = len(self.topics) - self._ended
        if count:
            self._ended += count
            self._reads.append((client, credential, arrival, count))
        return count

    def seal(self, instance: bytes, number: int) -> bytes:
        """Return the payload of the stream's message.

        Raises:
            ValueError: the batch is empty, has more than `COUNT_MAX` messages, or its last read has not ended.
        """
        count = len(self.topics)
        if not 0 < count <= COUNT_MAX or self._ended != count:
            raise ValueError(f"{count} messages, {self._ended} of ended reads: not a batch")
        clients, credentials, arrivals, counts = zip(*self._reads, strict=True)
        reads = len(counts)
        # A batch is small: `struct` packs it in less time than NumPy takes to look at a list.
        body = _encode(
            (
                clients,
                credentials,
                pack(f"<{reads}q", *arrivals),
                pack(f"<{reads}I", *counts),
                self.topics,
                self.payloads,
                pack(f"<{count}I", *self.flags),
                self.properties,
            )
        )
        prefix = _PREFIX.pack(_MAGIC, FORM, instance, number, count)
        return b"".join((prefix, _checksum(prefix, body).to_bytes(8, "little"), body))


def new_instance() -> bytes:
    """Return the instance id of a front that starts."""
    return secrets.token_bytes(16)


def read_header(data: bytes) -> BatchHeader:
    """Return the header of a batch without checking its body.

    Raises:
        DamagedBatch: it is no header of a known form.
    """
    if len(data) < _HEADER.size:
        raise DamagedBatch(f"{len(data)} bytes are no batch", None, _NO_COUNT)
    magic, form, instance, number, count, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise DamagedBatch("the bytes are no batch", None, _NO_COUNT)
    plausible = count if 0 < count <= min(COUNT_MAX, len(data)) else _NO_COUNT
    header = BatchHeader(instance, number, plausible)
    if form != FORM:
        raise DamagedBatch(f"this release does not know form {form} of a batch", header, plausible)
    if plausible != count or not number:
        raise DamagedBatch(f"number {number} with {count} messages is impossible", header, plausible)
    return header


def decode(data: bytes) -> IntakeBatch:
    """Return a batch.

    Raises:
        DamagedBatch: it is of an unknown form, its checksum is wrong, or its columns do not fit together.
    """
    if len(data) > BATCH_BYTES_MAX:
        raise DamagedBatch(f"{len(data)} bytes are too many", None, _NO_COUNT)
    header = read_header(data)

    def damaged(reason: str) -> NoReturn:
        raise DamagedBatch(reason, header, header.count)

    view = memoryview(data)
    if int.from_bytes(view[_PREFIX.size : _HEADER.size], "little") != _checksum(
        view[: _PREFIX.size], view[_HEADER.size :]
    ):
        damaged("the checksum is wrong")
    try:
        body = _decode(view[_HEADER.size :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise DamagedBatch(f"the body cannot be decoded: {why}", header, header.count) from why
    reads, count = len(body.clients), header.count
    if (len(body.credentials), len(body.arrivals), len(body.counts)) != (reads, 8 * reads, 4 * reads):
        damaged("the columns of the reads differ in length")
    if (len(body.topics), len(body.payloads), len(body.flags)) != (count, count, 4 * count):
        damaged("the columns of the messages differ in length")
    arrivals, counts = np.frombuffer(body.arrivals, "<i8"), np.frombuffer(body.counts, "<u4").astype(np.int64)
    if not reads or int(counts.min()) < 1 or int(counts.sum()) != count or int(arrivals.min()) < 0:
        damaged("the reads do not fit the messages")
    if body.properties and not 0 <= min(body.properties) <= max(body.properties) < count:
        damaged("properties of a message that is not there")
    return IntakeBatch(
        header,
        body.clients,
        body.credentials,
        arrivals,
        counts,
        body.topics,
        body.payloads,
        np.frombuffer(body.flags, "<u4"),
        body.properties,
    )


def _checksum(prefix: bytes | memoryview, body: bytes | memoryview) -> int:
    hasher = xxhash.xxh3_64(prefix)
    hasher.update(body)
    return hasher.intdigest()


def _repeated(words: list[str], counts: I64) -> list[str]:
    """Return each word as often as its count says."""
    if len(words) == len(counts) == int(counts.sum()):
        return words
    return list(chain.from_iterable(map(repeat, words, counts.tolist())))
