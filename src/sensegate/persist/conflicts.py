"""Conflict resolution among readings of one identity: which are accepted, and of which kind the duplicates are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from sensegate.model import BOOL, I32, I64, U8, U32, U64
from sensegate.persist.identity import (
    ACCEPTED,
    COUNTER_EPOCH_US,
    CROSS_PATH,
    FRAME,
    FRAME_WINDOW_US,
    REDELIVERY,
    REPEAT,
    SEQUENCE,
)
from sensegate.persist.memtable import Matches

_PATH = np.uint64(0xFFFF)
_PATH_MASK = 0xFFFF


class Candidates(msgspec.Struct, frozen=True, eq=False):
    """Rows of a batch that may be duplicates, in order of arrival."""

    hash: U64
    number: U32
    kinds: U8
    bits: U64
    fingerprints: U64
    time: I64
    received: I64
    message: I32


class _AcceptedReading(msgspec.Struct, frozen=True, gc=False):
    """An accepted reading of an identity."""

    bits: int
    fingerprint: int
    time: int
    message: int
    """Index of its message in this batch; -1: it is of an earlier batch."""


Find = Callable[[Candidates, I64], Matches]
"""Returns the accepted readings of the identities of the given rows; `query` indexes these rows."""


class _Identities(NamedTuple):
    """Rows grouped by identity."""

    rows: I64
    """Rows ordered by identity, then arrival."""
    first: I64
    """Index in `rows` of the first row of each identity."""
    length: I64
    """Number of rows of each identity."""


def _group(candidates: Candidates) -> _Identities:
    rows = np.argsort(candidates.hash, kind="stable")
    hashed, number = candidates.hash[rows], candidates.number[rows]
    equal = hashed[1:] == hashed[:-1]
    if bool((equal & (number[1:] != number[:-1])).any()):
        rows = np.lexsort((candidates.number, candidates.hash))
        hashed, number = candidates.hash[rows], candidates.number[rows]
        equal = hashed[1:] == hashed[:-1]
    is_first = np.empty(len(rows), np.bool_)
    is_first[:1] = True
    is_first[1:] = ~(equal & (number[1:] == number[:-1]))
    first = np.flatnonzero(is_first)
    return _Identities(rows, first, np.diff(np.append(first, len(rows))))


def resolve(candidates: Candidates, may_be_known: BOOL, find: Find) -> tuple[U8, U8]:
    """Return (kind, revision) of each row; `may_be_known`: rows that may have been received in earlier batches.

    The simple case (all readings of an identity are equal) is resolved vectorised, the others row by row.
    """
    count = len(candidates.hash)
    kind = np.zeros(count, np.uint8)
    revision = np.zeros(count, np.uint8)
    identities = _group(candidates)
    rows, first, length = identities
    group = np.repeat(np.arange(len(first)), length)
    leader = rows[first]
    counted = candidates.kinds == SEQUENCE
    framed = candidates.kinds == FRAME
    # One query per identity suffices, except for counters, whose result depends on the time.
    ask = np.zeros(count, np.bool_)
    ask[leader] = True
    questions = np.flatnonzero((ask | counted | framed) & may_be_known)
    matches = find(candidates, questions) if questions.size else Matches.empty()
    place = np.empty(count, np.int64)
    place[rows] = group
    owner = place[questions[matches.query]]
    known = np.bincount(owner, minlength=len(first))
    # The others are compared with the reading accepted earlier, or else the first one of this batch.
    bits, printed = candidates.bits[leader], candidates.fingerprints[leader]
    single = owner[known[owner] == 1]
    bits[single] = matches.bits[known[owner] == 1]
    printed[single] = matches.fingerprints[known[owner] == 1]
    differs = candidates.bits[rows] != bits[group]
    hard = np.zeros(len(first), np.bool_)
    hard[group[differs]] = True
    hard |= known > 1
    of_frame = framed[leader] & ((known > 0) | (length > 1))
    hard |= of_frame
    # A counter restarts with each epoch: in the simple case all rows are of one epoch.
    is_counter = counted[leader]
    if is_counter.any():
        since = candidates.time[leader]
        since[single] = matches.time[known[owner] == 1]
        hard[group[is_counter[group] & (np.abs(candidates.time[rows] - since[group]) > COUNTER_EPOCH_US)]] = True
    is_duplicate = (known[group] == 1) | (np.arange(count) != first[group])
    reference = printed[group]
    same_print = candidates.fingerprints[rows] == reference
    # The same reading twice in a message is not a redelivery.
    same_print &= (known[group] == 1) | (candidates.message[rows] != candidates.message[leader][group])
    same_path = (candidates.fingerprints[rows] & _PATH) == (reference & _PATH)
    duplicate_kind = np.where(same_print, REDELIVERY, np.where(same_path, REPEAT, CROSS_PATH))
    kind[rows] = np.where(is_duplicate, duplicate_kind, ACCEPTED)
    pairs = np.flatnonzero(of_frame & (known == 1) & (length == 1))
    if pairs.size:
        _resolve_frame_pairs(candidates, leader, matches, owner, pairs, kind=kind, revision=revision)
        hard[pairs] = False
    if hard.any():
        _resolve_row_by_row(
            candidates, identities, np.flatnonzero(hard), questions, matches, kind=kind, revision=revision
        )
    return kind, revision


def _resolve_frame_pairs(
    candidates: Candidates, leader: I64, matches: Matches, owner: I64, pairs: I64, *, kind: U8, revision: U8
) -> None:
    """Resolve frames of which one reading was accepted earlier and one is in this batch, as `_same_frame` does.

    `owner`: identity of each match; `pairs`: the identities.
    """
    match_of = np.zeros(len(leader), np.int64)
    match_of[owner] = np.arange(len(owner))
    earlier, rows = match_of[pairs], leader[pairs]
    printed, before = candidates.fingerprints[rows], matches.fingerprints[earlier]
    same_print, same_path = printed == before, (printed & _PATH) == (before & _PATH)
    known = _same_frames(same_print, same_path, np.abs(candidates.time[rows] - matches.time[earlier]))
    alike = candidates.bits[rows] == matches.bits[earlier]
    duplicate = np.where(same_print, REDELIVERY, np.where(same_path, REPEAT, CROSS_PATH))
    kind[rows] = np.where(known & alike, duplicate, ACCEPTED)
    revision[rows] = known & ~alike


def _same_frames(same_print: BOOL, same_path: BOOL, apart: I64) -> BOOL:
    """Return for each pair what `_same_frame` does; `apart`: distance in time, µs."""
    of_network: BOOL = np.where(same_path, apart == 0, apart <= FRAME_WINDOW_US)
    return np.where(same_print, apart <= COUNTER_EPOCH_US, of_network)


def _resolve_row_by_row(
    candidates: Candidates,
    identities: _Identities,
    hard: I64,
    questions: I64,
    matches: Matches,
    *,
    kind: U8,
    revision: U8,
) -> None:
    """Resolve identities with several values or epochs of a counter, row by row in order of arrival."""
    answers: dict[int, list[_AcceptedReading]] = {}
    columns = zip(
        questions[matches.query].tolist(),
        matches.bits.tolist(),
        matches.fingerprints.tolist(),
        matches.time.tolist(),
        strict=True,
    )
    for row, bits, printed, time in columns:
        answers.setdefault(row, []).append(_AcceptedReading(bits, printed, time, -1))
    for place in hard.tolist():
        start = identities.first[place]
        members = identities.rows[start : start + identities.length[place]].tolist()
        is_same_epoch = _SAME_EPOCH.get(int(candidates.kinds[members[0]]))
        known = [] if is_same_epoch else list(answers.get(members[0], []))
        for row in members:
            reading = _AcceptedReading(
                int(candidates.bits[row]),
                int(candidates.fingerprints[row]),
                int(candidates.time[row]),
                int(candidates.message[row]),
            )
            same_epoch = known
            if is_same_epoch:
                same_epoch = [kept for kept in (*answers.get(row, []), *known) if is_same_epoch(kept, reading)]
            kind[row] = _verdict(reading, same_epoch)
            if kind[row] == ACCEPTED:
                revision[row] = min(len(same_epoch), 255)
                known.append(reading)


def _same_counter(earlier: _AcceptedReading, reading: _AcceptedReading) -> bool:
    return abs(earlier.time - reading.time) <= COUNTER_EPOCH_US


def _same_frame(earlier: _AcceptedReading, reading: _AcceptedReading) -> bool:
    """Return whether two receptions with equal counter and bytes are of the same radio frame.

    A network server forwards a frame once, so its second reception is a frame of another epoch of the device's
    counter, unless it has the time of the first one. Another network's clock differs.
    """
    if earlier.fingerprint == reading.fingerprint and earlier.message != reading.message:
        return abs(earlier.time - reading.time) <= COUNTER_EPOCH_US
    if earlier.fingerprint & _PATH_MASK == reading.fingerprint & _PATH_MASK:
        return earlier.time == reading.time
    return abs(earlier.time - reading.time) <= FRAME_WINDOW_US


_SAME_EPOCH = {SEQUENCE: _same_counter, FRAME: _same_frame}
"""Kinds whose keys repeat in other epochs of the device: predicates whether two equal keys are of one epoch."""


def _verdict(reading: _AcceptedReading, accepted: list[_AcceptedReading]) -> int:
    """Return the code of a reading, given the accepted ones of its identity."""
    alike = [earlier for earlier in accepted if earlier.bits == reading.bits]
    if not alike:
        return ACCEPTED
    if any(earlier.fingerprint == reading.fingerprint and earlier.message != reading.message for earlier in alike):
        return REDELIVERY
    if any(earlier.fingerprint & _PATH_MASK == reading.fingerprint & _PATH_MASK for earlier in alike):
        return REPEAT
    return CROSS_PATH
