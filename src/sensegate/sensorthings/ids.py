"""Integer ids of entities, at most 2^53 - 1, derived from the identified object.

The id of a Thing, Datastream, … is a hash of the names that the caller sees. So it needs no table, is the same after a
restart, after a fail-over and on both tiers, and under a mask it tells nothing about the name that the mask hides.
The id of an Observation packs the identity of its record: node, sequence of its first commit, index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

import msgspec

ID_MAX = 2**53 - 1
"""Greatest integer that every JSON implementation keeps exactly."""
_NODE_BITS, _WIDTH_BITS = 6, 2
_INDEX_BITS = (8, 12, 16, 20)
"""Bits of the index by width; a row with a small index leaves more bits to the sequence."""
_PAIR_BITS = 53 - _NODE_BITS - _WIDTH_BITS
_CITIES = 54
"""Numbers below are those of cities, by their code; others are for members with other ids."""


class RecordIdentity(msgspec.Struct, frozen=True):
    """Identity of the record of an observation, as its id states it."""

    node: int
    """Number of the node, see `node_number`."""
    sequence: int
    index: int


def entity_id(kind: str, *words: str) -> int:
    """Return the id of an entity by its kind and names, 1 to `ID_MAX`."""
    digest = hashlib.blake2b("\0".join((kind, *words)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") & ID_MAX) or 1


def free_id(taken: Collection[int], kind: str, *words: str) -> int:
    """Return the id of an entity, or its next id where another entity has that already."""
    number = entity_id(kind, *words)
    salt = 0
    while number in taken:
        salt += 1
        number = entity_id(kind, *words, f"\0{salt}")
    return number


def node_number(node: str) -> int:
    """Return the number of a node, 0 to 63: the last digits of a city's code; 0 for a province.

    Other members share the numbers above the cities.
    """
    if node.isascii() and node.isdigit():
        if len(node) == 2:
            return 0
        if len(node) == 4 and int(node[2:]) < _CITIES:
            return int(node[2:])
    return _CITIES + hashlib.blake2b(node.encode(), digest_size=1).digest()[0] % (64 - _CITIES)


def observation_id(node: str, sequence: int, index: int) -> int:
    """Return the id of an observation. A sequence beyond the bits wraps around, after billions of commits."""
    return _packed(node_number(node), sequence, index)


def _packed(node: int, sequence: int, index: int) -> int:
    width = 0
    while index >= 1 << _INDEX_BITS[width] and width < len(_INDEX_BITS) - 1:
        width += 1
    bits = _INDEX_BITS[width]
    pair = ((sequence & ((1 << (_PAIR_BITS - bits)) - 1)) << bits) | (index & ((1 << bits) - 1))
    return (((node << _WIDTH_BITS) | width) << _PAIR_BITS) | pair


def observation_ids(node: str, sequences: Iterable[int], indices: Iterable[int]) -> list[int]:
    """Return the ids of observations of one node."""
    number = node_number(node)
    return [_packed(number, sequence, index) for sequence, index in zip(sequences, indices, strict=True)]


def identity_of(number: int) -> RecordIdentity:
    """Return the identity in the id of an observation."""
    head, pair = number >> _PAIR_BITS, number & ((1 << _PAIR_BITS) - 1)
    bits = _INDEX_BITS[head & 3]
    return RecordIdentity(head >> _WIDTH_BITS, pair >> bits, pair & ((1 << bits) - 1))
