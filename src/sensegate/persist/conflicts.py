"""Conflict resolution among readings of one identity: which are accepted, and of which kind the duplicates are."""

from __future__ import annotations

from collections.abc import Callable

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


def _groups(candidates: Candidates) -> tuple[I64, I64]:
    """Return (rows ordered by identity, then arrival; index of the first row of each identity)."""
    rows = np.argsort(candidates.hash, kind="stable")
    hashed, number = candidates.hash[rows], candidates.number[rows]
    alike = hashed[1:] == hashed[:-1]
    if bool((alike & (number[1:] != number[:-1])).any()):
        rows = np.lexsort((candidates.number, candidates.hash))
        hashed, number = candidates.hash[rows], candidates.number[rows]
        alike = hashed[1:] == hashed[:-1]
    new = np.empty(len(rows), np.bool_)
    new[:1] = True
    new[1:] = ~(alike & (number[1:] == number[:-1]))
    return rows, np.flatnonzero(new)


def resolve(candidates: Candidates, may_be_known: BOOL, find: Find) -> tuple[U8, U8]:
    """Return (kind, revision) of each row; `asked` rows may have been seen in earlier batches.

    The plain case (all readings of an identity say the same) is told in columns, the others one by one.
    """
    count = len(candidates.hash)
    kind = np.zeros(count, np.uint8)
    revision = np.zeros(count, np.uint8)
    rows, first = _groups(candidates)
    length = np.diff(np.append(first, count))
    group = np.repeat(np.arange(len(first)), length)
    leader = rows[first]
    counted = candidates.kinds == SEQUENCE
    framed = candidates.kinds == FRAME
    # One query per identity suffices, except for counters, whose result depends on the time.
    ask = np.zeros(count, np.bool_)
    ask[leader] = True
    questions = np.flatnonzero((ask | counted | framed) & may_be_known)
    found = find(candidates, questions) if questions.size else Matches.empty()
    place = np.empty(count, np.int64)
    place[rows] = group
    owner = place[questions[found.query]]
    known = np.bincount(owner, minlength=len(first))
    # The others are compared with the reading accepted earlier, or else the first one of this batch.
    bits, printed = candidates.bits[leader], candidates.fingerprints[leader]
    single = owner[known[owner] == 1]
    bits[single] = found.bits[known[owner] == 1]
    printed[single] = found.fingerprints[known[owner] == 1]
    differs = candidates.bits[rows] != bits[group]
    hard = np.zeros(len(first), np.bool_)
    hard[group[differs]] = True
    hard |= known > 1
    hard |= framed[leader] & ((known > 0) | (length > 1))
    # A counter restarts with each epoch: in the simple case all rows are of one epoch.
    lives = counted[leader]
    if lives.any():
        since = candidates.time[leader]
        since[single] = found.time[known[owner] == 1]
        hard[group[lives[group] & (np.abs(candidates.time[rows] - since[group]) > COUNTER_EPOCH_US)]] = True
    again = (known[group] == 1) | (np.arange(count) != first[group])
    mine = printed[group]
    same_print = candidates.fingerprints[rows] == mine
    # The same reading twice in a message is not a redelivery.
    same_print &= (known[group] == 1) | (candidates.message[rows] != candidates.message[leader][group])
    same_path = (candidates.fingerprints[rows] & _PATH) == (mine & _PATH)
    told = np.where(same_print, REDELIVERY, np.where(same_path, REPEAT, CROSS_PATH))
    kind[rows] = np.where(again, told, ACCEPTED)
    if hard.any():
        _resolve_row_by_row(candidates, rows, first, length, np.flatnonzero(hard), questions, found, kind, revision)
    return kind, revision


def _resolve_row_by_row(  # noqa: PLR0917 - the columns of `resolve`
    candidates: Candidates,
    rows: I64,
    first: I64,
    length: I64,
    hard: I64,
    questions: I64,
    found: Matches,
    kind: U8,
    revision: U8,
) -> None:
    """Resolve identities with several values or epochs of a counter, row by row in order of arrival."""
    answers: dict[int, list[_AcceptedReading]] = {}
    columns = zip(
        questions[found.query].tolist(),
        found.bits.tolist(),
        found.fingerprints.tolist(),
        found.time.tolist(),
        strict=True,
    )
    for row, bits, printed, time in columns:
        answers.setdefault(row, []).append(_AcceptedReading(bits, printed, time, -1))
    for place in hard.tolist():
        members = rows[first[place] : first[place] + length[place]].tolist()
        same_life = _SAME_EPOCH.get(int(candidates.kinds[members[0]]))
        known = [] if same_life else list(answers.get(members[0], []))
        for row in members:
            this = _AcceptedReading(
                int(candidates.bits[row]),
                int(candidates.fingerprints[row]),
                int(candidates.time[row]),
                int(candidates.message[row]),
            )
            near = known
            if same_life:
                near = [kept for kept in (*answers.get(row, []), *known) if same_life(kept, this)]
            kind[row] = _verdict(this, near)
            if kind[row] == ACCEPTED:
                revision[row] = min(len(near), 255)
                known.append(this)


def _same_counter(kept: _AcceptedReading, reading: _AcceptedReading) -> bool:
    return abs(kept.time - reading.time) <= COUNTER_EPOCH_US


def _same_frame(kept: _AcceptedReading, reading: _AcceptedReading) -> bool:
    """Return whether two receptions with equal counter and bytes are of the same radio frame.

    A network server forwards a frame once, so its second reception is a frame of another epoch of the device's
    counter, unless it has the time of the first one. Another network's clock differs.
    """
    if kept.fingerprint == reading.fingerprint and kept.message != reading.message:
        return abs(kept.time - reading.time) <= COUNTER_EPOCH_US
    if kept.fingerprint & _PATH_MASK == reading.fingerprint & _PATH_MASK:
        return kept.time == reading.time
    return abs(kept.time - reading.time) <= FRAME_WINDOW_US


_SAME_EPOCH = {SEQUENCE: _same_counter, FRAME: _same_frame}
"""Kinds whose keys repeat in other epochs of the device: predicates whether two equal keys are of one epoch."""


def _verdict(reading: _AcceptedReading, accepted: list[_AcceptedReading]) -> int:
    """Return the code of a reading, given the accepted ones of its identity."""
    alike = [kept for kept in accepted if kept.bits == reading.bits]
    if not alike:
        return ACCEPTED
    if any(kept.fingerprint == reading.fingerprint and kept.message != reading.message for kept in alike):
        return REDELIVERY
    if any(kept.fingerprint & _PATH_MASK == reading.fingerprint & _PATH_MASK for kept in alike):
        return REPEAT
    return CROSS_PATH
