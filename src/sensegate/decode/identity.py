"""Identify readings: by the first identity kind, in the rule's order, that a message has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from sensegate.decode.envelope import frame_key
from sensegate.decode.profile import FRAME, NONE, SEQUENCE, TIME, CompiledRule
from sensegate.decode.times import BAD
from sensegate.model import BOOL, I64, U8
from sensegate.quantities.quality import TimeQuality


def key_of(kind: int, raw: Any) -> int | None:
    """Return the key for a sequence number or a message id, None if it is not usable."""
    if isinstance(raw, bool):
        return None
    if kind == SEQUENCE:
        if isinstance(raw, float) and raw.is_integer():
            raw = int(raw)
        return raw if isinstance(raw, int) and -(2**63) < raw < 2**63 else None
    if isinstance(raw, (str, int)):
        return xxhash.xxh64_intdigest(str(raw).encode("utf-8", "surrogatepass")) - 2**63
    return None


def number_of(raw: Any) -> int | None:
    """Return the sequence number that a device sent, None if there is no usable one."""
    number = key_of(SEQUENCE, raw)
    return number if number is not None and number >= 0 else None


def numbers_of(raws: Sequence[Any]) -> tuple[I64, BOOL]:
    """Return the sequence numbers that devices sent, and a mask of where there is one."""
    if {*map(type, raws)} == {int}:
        column = np.array(raws)
        if column.dtype == np.int64:  # otherwise one of them is too large
            given = column >= 0
            return column[given], given
    numbers = list(map(number_of, raws))
    given = np.array([number is not None for number in numbers], np.bool_)
    return np.array([number for number in numbers if number is not None], np.int64), given


class Reception(NamedTuple):
    """Metadata of an envelope for readings of its frame that have none of their own."""

    time: int
    """Time of reception; `BAD` if it cannot be parsed."""
    quality: int
    """Quality of that time."""
    identity: int
    key: int | None
    counter: Any
    data: bytes

    def identify(self, place: int) -> tuple[int, int | None]:
        """Return (identity, key) of the frame's element at `place`."""
        if self.identity == FRAME:
            return FRAME, frame_key(self.counter, self.data, place)
        return self.identity, self.key


def identify(
    rule: CompiledRule, time: int | None, sequence: Any, message_id: Any, data: bytes = b"", place: int = 0
) -> tuple[int, int | None]:
    """Return (identity, key) of an element; (NONE, None) if it has none. `time`: None if it must not identify."""
    for kind in rule.identity:
        if kind == FRAME:
            return FRAME, frame_key(sequence, data, place)
        key = time if kind == TIME else key_of(kind, sequence if kind == SEQUENCE else message_id)
        if key is not None:
            return kind, key
    return NONE, None


def is_stable(rule: CompiledRule, quality: int) -> bool:
    """Return whether a time of this quality is the same when the message is repeated (an age is not)."""
    if rule.reader.shift:
        return quality == TimeQuality.DERIVED
    return quality in {TimeQuality.DEVICE, TimeQuality.ASSUMED_ZONE}


def identify_columns(
    rule: CompiledRule,
    timed: tuple[I64, U8] | None,
    sequences: Sequence[Any] | None,
    message_ids: Sequence[Any] | None,
    times: I64,
    framed: Sequence[int] | None = None,
) -> tuple[int | NDArray[np.intp], I64]:
    """Return the identity of all rows, or of each if they differ, and the keys.

    Args:
        rule: the rule.
        timed: the times that rows state, with their quality.
        sequences: the sequence numbers.
        message_ids: the message ids.
        times: the time of each row, which is the key of those without another; not changed.
        framed: the frame keys, if the rule's messages are frames.
    """
    identities = np.full(len(times), NONE, np.intp)
    keys = times
    unidentified: BOOL | None = None
    """None: all."""
    for kind in rule.identity:
        usable: BOOL | None = None
        candidates = times
        if kind == FRAME:
            candidates = np.array(framed, np.int64)
        elif kind == TIME:
            if timed is None:
                continue
            usable = _is_sure(rule, timed)
        else:
            raws = sequences if kind == SEQUENCE else message_ids
            if raws is None:
                continue
            candidates, usable = _keys_of(kind, raws)
        if usable is not None and usable.all():
            usable = None
        if unidentified is None and usable is None:
            return kind, candidates
        if unidentified is None:
            unidentified = np.ones(len(times), np.bool_)
            keys = times.copy()
        new = unidentified if usable is None else unidentified & usable
        identities[new] = kind
        keys[new] = candidates[new]
        unidentified &= ~new
        if not unidentified.any():
            break
    return (NONE, times) if unidentified is None else (identities, keys)


def _is_sure(rule: CompiledRule, timed: tuple[I64, U8]) -> BOOL:
    """Return whether each time is the same when its message is repeated."""
    sure: BOOL = timed[0] != BAD
    sure &= timed[1] == TimeQuality.DERIVED if rule.reader.shift else timed[1] <= TimeQuality.ASSUMED_ZONE
    return sure


def _keys_of(kind: int, raws: Sequence[Any]) -> tuple[I64, BOOL | None]:
    """Return the keys for sequence numbers or message ids, and which are usable; None: all."""
    types = set(map(type, raws))
    if kind == SEQUENCE and types == {int}:
        numbers = np.array(raws)
        if numbers.dtype == np.int64 and int(numbers.min()) > -(2**63):  # otherwise one of them is too large
            return numbers, None
    if kind != SEQUENCE and types == {str}:
        digest = xxhash.xxh64_intdigest
        return np.array([digest(raw.encode("utf-8", "surrogatepass")) - 2**63 for raw in raws], np.int64), None
    keys = [key_of(kind, raw) for raw in raws]
    usable = np.array([key is not None for key in keys], np.bool_)
    return np.array([key or 0 for key in keys], np.int64), usable
