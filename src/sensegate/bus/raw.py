"""Encoding of received messages on the log: for replay, reprocessing and the quarantine.

Encoding (MessagePack inside zstd, format 1): ``v``, ``rows``, packed integer columns (`packing`), dictionary-encoded
strings, ``length`` of each payload in ``body``; in the quarantine also reason, detail, device and profile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Annotated, Any

import msgspec
import numpy as np

from sensegate.bus.packing import Column, VersionedMap, decode_map, encode_map, pack, require_backing_bytes, unpack
from sensegate.model import Message, MessageBatch, MqttMetadata

BYTES_MAX = 512 * 1024**2
"""Largest size after decompression; more is refused."""


_Words = tuple[Annotated[list[str], msgspec.Meta(max_length=1 << 20)], Column]


class _Tree(VersionedMap):
    rows: int
    topic: _Words
    principal: _Words
    source: _Words
    received: Column
    sequence: Column
    best_effort: Column
    length: Column
    body: bytes
    redelivered: Column | None = None
    """Absent where no message is."""
    metadata: Annotated[dict[int, MqttMetadata], msgspec.Meta(max_length=1 << 20)] | None = None
    """Row -> what MQTT states of the message; of messages whose profile reads it."""
    reason: _Words | None = None
    detail: _Words | None = None
    device: _Words | None = None
    profile: _Words | None = None
    piece: Column | None = None
    pieces: Column | None = None


_decoder = msgspec.msgpack.Decoder(_Tree)


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as stored on the log, whole or a piece of it; with the reason where it is in quarantine."""

    message: Message
    source: str
    reason: str
    """Value of `model.QuarantineReason`; empty: not in quarantine."""
    detail: str = ""
    device: str = ""
    """Device id; empty where it is unknown."""
    profile: str = ""
    piece: int = 0
    pieces: int = 1
    """A message too large for one log message is stored in `pieces` pieces; this is number `piece`."""


def join_pieces(members: Iterable[StoredMessage]) -> Iterator[StoredMessage]:
    """Yield whole messages from the stored ones of consecutive payloads, joining pieces."""
    parts: list[bytes] = []
    for member in members:
        if member.pieces == 1:
            yield member
            continue
        parts = [*parts, member.message.payload] if member.piece else [member.message.payload]
        if len(parts) == member.pieces:
            whole = msgspec.structs.replace(member.message, payload=b"".join(parts))
            yield msgspec.structs.replace(member, message=whole, piece=0, pieces=1)


def split_pieces(stored: StoredMessage, bytes_max: int) -> list[StoredMessage]:
    """Return a message split into pieces of at most `bytes_max` bytes of payload."""
    payload = stored.message.payload
    cuts = range(0, len(payload), bytes_max)
    return [
        msgspec.structs.replace(
            stored,
            message=msgspec.structs.replace(stored.message, payload=payload[start : start + bytes_max]),
            piece=piece,
            pieces=len(cuts),
        )
        for piece, start in enumerate(cuts)
    ]


def _words(words: Sequence[str]) -> list[Any]:
    first = words[0] if words else ""
    if words.count(first) == len(words):
        return [[first], [0, 0]]
    table = list(dict.fromkeys(words))
    place = dict(zip(table, range(len(table)), strict=True))
    index = np.fromiter(map(place.__getitem__, words), np.int64, len(words))
    return [table, pack(index, delta=False)]


def _unwords(packed: _Words, rows: int) -> list[str]:
    table, index = packed
    if index == [0, 0] and table:  # most columns of most entries, and no array is made for them
        return table[:1] * rows
    places = unpack(index, rows)
    if rows and not 0 <= int(places.min()) <= int(places.max()) < len(table):
        raise ValueError("a string index is out of range")
    return [table[place] for place in places.tolist()]


def _tree(messages: MessageBatch, sources: Sequence[str] | str) -> dict[str, Any]:
    redelivered = messages.redelivered
    metadata = {row: messages[row].metadata for row in np.flatnonzero(messages.has_metadata).tolist()}
    return {
        **({"redelivered": pack(redelivered.astype(np.uint8))} if redelivered.any() else {}),
        **({"metadata": metadata} if metadata else {}),
        "rows": len(messages),
        "topic": _words(messages.topics),
        "principal": _words(messages.principals),
        "source": _words([sources] if isinstance(sources, str) else list(sources)),
        "received": pack(messages.received),
        "sequence": pack(messages.sequences),
        "best_effort": pack(messages.best_effort.astype(np.uint8)),
        "length": pack(messages.lengths, delta=False),
        "body": b"".join(messages.payloads),
    }


def encode(messages: Sequence[Message], sources: Sequence[str] | str) -> bytes:
    """Return messages as the payload of a log message; `sources`: a name for all, or one per message.

    Compression releases the GIL.
    """
    return encode_map(_tree(MessageBatch.of(messages), sources))


def encode_quarantined(messages: Sequence[StoredMessage]) -> bytes:
    """Return quarantined messages as the payload of a log message."""
    tree = _tree(MessageBatch(message.message for message in messages), [message.source for message in messages])
    for name in ("reason", "detail", "device", "profile"):
        tree[name] = _words([getattr(message, name) for message in messages])
    for name in ("piece", "pieces"):
        tree[name] = pack(np.array([getattr(message, name) for message in messages], np.int64))
    return encode_map(tree)


def _open_tree(payload: bytes) -> _Tree:
    """Return the decoded map; the messages must fill its body exactly. Raises `ValueError`."""
    tree = decode_map(payload, _decoder, limit=BYTES_MAX, subject="messages")
    require_backing_bytes(tree.rows, [tree.body, 0], tree.received, tree.sequence, tree.length)
    length = unpack(tree.length, tree.rows)
    body = len(tree.body)
    # Each length is checked first, because the sum of many large numbers would wrap at 2**64.
    if bool(((length < 0) | (length > body)).any()) or int(length.sum()) != body:
        raise ValueError("messages: the lengths do not match the body")
    return tree


def _messages(tree: _Tree) -> Iterator[tuple[Message, str]]:
    rows = tree.rows
    body, start = memoryview(tree.body), 0
    metadata = tree.metadata or {}
    if rows == 0:
        return
    columns = zip(
        _unwords(tree.topic, rows),
        unpack(tree.received, rows).tolist(),
        unpack(tree.sequence, rows).tolist(),
        _unwords(tree.principal, rows),
        unpack(tree.best_effort, rows).tolist(),
        unpack(tree.length, rows).tolist(),
        unpack(tree.redelivered, rows).tolist() if tree.redelivered else repeat(0, rows),
        _unwords(tree.source, rows),
        strict=True,
    )
    for row, (topic, received, sequence, principal, best_effort, length, redelivered, origin) in enumerate(columns):
        payload = bytes(body[start : start + length])
        start += length
        message = Message(
            topic,
            payload,
            received,
            sequence,
            principal,
            bool(best_effort),
            redelivered=bool(redelivered),
            metadata=metadata.get(row),
        )
        yield message, origin


def decode(payload: bytes) -> Iterator[tuple[Message, str]]:
    """Yield (message, source) in the order of receipt.

    Raises:
        ValueError: the payload is not of a known format, or holds pieces: see `decode_any` and `join_pieces`.
    """
    tree = _open_tree(payload)
    if tree.pieces is not None and any(of != 1 for of in unpack(tree.pieces, tree.rows).tolist()):
        raise ValueError("messages: contains a piece of a message; use decode_any and join_pieces")
    yield from _messages(tree)


def decode_any(payload: bytes) -> list[StoredMessage]:
    """Return the messages of any payload, with reasons where they are in quarantine; pieces stay pieces.

    Raises `ValueError` as `decode`.
    """
    return _any(_open_tree(payload))


def _any(tree: _Tree) -> list[StoredMessage]:
    if tree.pieces is not None:
        return list(_quarantined(tree))
    return [StoredMessage(message, source, "") for message, source in _messages(tree)]


def decode_of(payload: bytes, names: Collection[str]) -> list[StoredMessage]:
    """Return the messages as `decode_any`, or none where no credential, topic or device of them contains a name.

    Raises `ValueError` as `decode`.
    """
    tree = _open_tree(payload)
    words = [word for column in (tree.topic, tree.principal, tree.device) if column for word in column[0]]
    if not any(name in word for name in names for word in words):
        return []
    return _any(tree)


def decode_quarantined(payload: bytes) -> Iterator[StoredMessage]:
    """Yield quarantined messages with their reasons. Raises as `decode`."""
    return _quarantined(_open_tree(payload))


def _quarantined(tree: _Tree) -> Iterator[StoredMessage]:
    rows = tree.rows
    if None in (tree.reason, tree.detail, tree.device, tree.profile, tree.piece, tree.pieces):
        raise ValueError("messages: the columns of the quarantine are missing")
    extra = [_unwords(words, rows) for words in (tree.reason, tree.detail, tree.device, tree.profile) if words]
    pieces = [unpack(column, rows).tolist() for column in (tree.piece, tree.pieces) if column]
    columns = zip(_messages(tree), *extra, *pieces, strict=True)
    for (message, source), reason, detail, device, profile, piece, of in columns:
        yield StoredMessage(message, source, reason, detail, device, profile, piece, of)
