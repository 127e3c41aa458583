"""Messages as received ↔ bytes: for replay, decoding again, and the quarantine, which keeps them whole.

Form (MessagePack inside zstd, format 1): ``v``, ``rows``, columns of packed integers (`packing`), tables of words with
their index, ``ends`` of the payloads in ``body``; in the quarantine also reason, detail, device and profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from sensegate.bus.packing import Column, Sealed, demand_held, pack, seal, unpack, unseal
from sensegate.model import Message, Span

BYTES_MAX = 512 * 1024**2
"""Largest member after decompression; a larger one is refused."""


_Words = tuple[Annotated[list[str], msgspec.Meta(max_length=1 << 20)], Column]


class _Tree(Sealed):
    rows: int
    topic: _Words
    principal: _Words
    source: _Words
    received: Column
    sequence: Column
    best_effort: Column
    length: Column
    body: bytes
    reason: _Words | None = None
    detail: _Words | None = None
    device: _Words | None = None
    profile: _Words | None = None
    piece: Column | None = None
    pieces: Column | None = None


_decoder = msgspec.msgpack.Decoder(_Tree)


class Kept(msgspec.Struct, frozen=True):
    """A message as it stands in quarantine: whole, with the reason."""

    message: Message
    source: str
    reason: str
    """A word of `model.QuarantineReason`."""
    detail: str = ""
    device: str = ""
    """Device id where it was known."""
    profile: str = ""
    piece: int = 0
    pieces: int = 1
    """A message too large for one member stands in several: this is number `piece` of `pieces`; see `join`."""


def join(kept: Iterable[Kept]) -> Iterator[Kept]:
    """Yield whole messages of what `decode_kept` gave, member after member; pieces follow one another."""
    parts: list[bytes] = []
    for one in kept:
        if one.pieces == 1:
            yield one
            continue
        parts = [*parts, one.message.payload] if one.piece else [one.message.payload]
        if len(parts) == one.pieces:
            whole = msgspec.structs.replace(one.message, payload=b"".join(parts))
            yield msgspec.structs.replace(one, message=whole, piece=0, pieces=1)


def split(one: Kept, bytes_max: int) -> list[Kept]:
    """Return a message in pieces of at most `bytes_max` bytes of payload."""
    payload = one.message.payload
    cuts = range(0, len(payload), bytes_max)
    return [
        msgspec.structs.replace(
            one,
            message=msgspec.structs.replace(one.message, payload=payload[start : start + bytes_max]),
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
    places = unpack(index, rows)
    if rows and not 0 <= int(places.min()) <= int(places.max()) < len(table):
        raise ValueError("a word that is not there")
    return [table[place] for place in places.tolist()]


def _tree(messages: Span, sources: Sequence[str] | str) -> dict[str, Any]:
    return {
        "rows": len(messages),
        "topic": _words(messages.topics),
        "principal": _words(messages.principals),
        "source": _words([sources] if isinstance(sources, str) else list(sources)),
        "received": pack(messages.received),
        "sequence": pack(np.array([message.sequence for message in messages], np.int64)),
        "best_effort": pack(messages.best_effort.astype(np.uint8)),
        "length": pack(messages.lengths, delta=False),
        "body": b"".join(messages.payloads),
    }


def encode(messages: Sequence[Message], sources: Sequence[str] | str) -> bytes:
    """Return messages as one member of the log; `sources` is one name or one for each message.

    Pure; compressing releases the interpreter lock.
    """
    return seal(_tree(Span.of(messages), sources))


def encode_kept(kept: Sequence[Kept]) -> bytes:
    """Return quarantined messages as one member of the log."""
    tree = _tree(Span(one.message for one in kept), [one.source for one in kept])
    for name in ("reason", "detail", "device", "profile"):
        tree[name] = _words([getattr(one, name) for one in kept])
    for name in ("piece", "pieces"):
        tree[name] = pack(np.array([getattr(one, name) for one in kept], np.int64))
    return seal(tree)


def _opened(payload: bytes) -> _Tree:
    """Return the map of a member whose messages fill its body exactly. Raises `ValueError`."""
    tree = unseal(payload, _decoder, limit=BYTES_MAX, what="messages")
    demand_held(tree.rows, [tree.body, 0], tree.received, tree.sequence, tree.length)
    length = unpack(tree.length, tree.rows)
    body = len(tree.body)
    # Each by itself first: a sum of many great numbers is taken modulo 2**64.
    if bool(((length < 0) | (length > body)).any()) or int(length.sum()) != body:
        raise ValueError("messages: they do not fill the body")
    return tree


def _messages(tree: _Tree) -> Iterator[tuple[Message, str]]:
    rows = tree.rows
    body, start = memoryview(tree.body), 0
    if rows == 0:
        return
    columns = zip(
        _unwords(tree.topic, rows),
        unpack(tree.received, rows).tolist(),
        unpack(tree.sequence, rows).tolist(),
        _unwords(tree.principal, rows),
        unpack(tree.best_effort, rows).tolist(),
        unpack(tree.length, rows).tolist(),
        _unwords(tree.source, rows),
        strict=True,
    )
    for topic, received, sequence, principal, best_effort, length, origin in columns:
        payload = bytes(body[start : start + length])
        start += length
        yield Message(topic, payload, received, sequence, principal, bool(best_effort)), origin


def decode(payload: bytes) -> Iterator[tuple[Message, str]]:
    """Yield (message, source) one by one, in the order of receipt.

    Raises:
        ValueError: if these are not messages of a format known here, or a piece of one: see `decode_kept` and `join`.
    """
    tree = _opened(payload)
    if tree.pieces is not None and any(of != 1 for of in unpack(tree.pieces, tree.rows).tolist()):
        raise ValueError("messages: a piece of one; read it with decode_kept and join")
    yield from _messages(tree)


def decode_any(payload: bytes) -> list[Kept]:
    """Return the messages of any member, with the reasons where it is one of quarantine, pieces as pieces.

    Raises `ValueError` as `decode`, and nothing after it has begun.
    """
    tree = _opened(payload)
    if tree.pieces is not None:
        return list(decode_kept(payload))
    return [Kept(message, source, "") for message, source in _messages(tree)]


def decode_kept(payload: bytes) -> Iterator[Kept]:
    """Yield the messages of a quarantine member with their reasons; errors as `decode`."""
    tree = _opened(payload)
    rows = tree.rows
    if None in (tree.reason, tree.detail, tree.device, tree.profile, tree.piece, tree.pieces):
        raise ValueError("messages: without the reasons for which they are kept")
    extra = [_unwords(words, rows) for words in (tree.reason, tree.detail, tree.device, tree.profile) if words]
    pieces = [unpack(column, rows).tolist() for column in (tree.piece, tree.pieces) if column]
    columns = zip(_messages(tree), *extra, *pieces, strict=True)
    for (message, source), reason, detail, device, profile, piece, of in columns:
        yield Kept(message, source, reason, detail, device, profile, piece, of)
