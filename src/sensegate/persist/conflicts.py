"""Several readings of one identity: which is kept, and what the others are."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from sensegate.model import BOOL, I32, I64, U8, U32, U64
from sensegate.persist.identity import (
    ACCEPTED,
    CROSS_PATH,
    FRAME,
    FRAME_US,
    LIFE_US,
    REDELIVERY,
    REPEAT,
    SEQUENCE,
)
from sensegate.persist.memtable import Found

_PATH = np.uint64(0xFFFF)
_PATH_MASK = 0xFFFF


class Cut(msgspec.Struct, frozen=True, eq=False):
    """The rows of a batch that may have been seen before, in order of arrival."""

    hash: U64
    number: U32
    kinds: U8
    bits: U64
    prints: U64
    time: I64
    received: I64
    message: I32


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """A kept reading of an identity."""

    bits: int
    prints: int
    time: int
    message: int
    """Of this batch; -1: from an earlier one."""


Find = Callable[[Cut, I64], Found]
"""Returns the kept readings of the identities of some rows; `query` counts in these rows."""


def _groups(cut: Cut) -> tuple[I64, I64]:
    """Return (rows ordered by identity, then arrival; where each identity begins)."""
    rows = np.argsort(cut.hash, kind="stable")
    hashed, number = cut.hash[rows], cut.number[rows]
    alike = hashed[1:] == hashed[:-1]
    if bool((alike & (number[1:] != number[:-1])).any()):
        rows = np.lexsort((cut.number, cut.hash))
        hashed, number = cut.hash[rows], cut.number[rows]
        alike = hashed[1:] == hashed[:-1]
    new = np.empty(len(rows), np.bool_)
    new[:1] = True
    new[1:] = ~(alike & (number[1:] == number[:-1]))
    return rows, np.flatnonzero(new)


def verdicts(cut: Cut, asked: BOOL, find: Find) -> tuple[U8, U8]:
    """Return (kind, revision) of each row; `asked` rows may have been seen in earlier batches.

    The plain case (all readings of an identity say the same) is told in columns, the others one by one.
    """
    count = len(cut.hash)
    kind = np.zeros(count, np.uint8)
    revision = np.zeros(count, np.uint8)
    rows, first = _groups(cut)
    length = np.diff(np.append(first, count))
    group = np.repeat(np.arange(len(first)), length)
    leader = rows[first]
    counted = cut.kinds == SEQUENCE
    framed = cut.kinds == FRAME
    # All rows of an identity ask the same question, but for a counter's: its answer depends on the time.
    ask = np.zeros(count, np.bool_)
    ask[leader] = True
    questions = np.flatnonzero((ask | counted | framed) & asked)
    found = find(cut, questions) if questions.size else Found.none()
    place = np.empty(count, np.int64)
    place[rows] = group
    owner = place[questions[found.query]]
    known = np.bincount(owner, minlength=len(first))
    # The one that the others are compared with: the one kept earlier, else the first of this batch.
    bits, printed = cut.bits[leader], cut.prints[leader]
    single = owner[known[owner] == 1]
    bits[single] = found.bits[known[owner] == 1]
    printed[single] = found.prints[known[owner] == 1]
    differs = cut.bits[rows] != bits[group]
    hard = np.zeros(len(first), np.bool_)
    hard[group[differs]] = True
    hard |= known > 1
    hard |= framed[leader] & ((known > 0) | (length > 1))
    # A counter starts again with each life: its plain case is that all are of one life.
    lives = counted[leader]
    if lives.any():
        since = cut.time[leader]
        since[single] = found.time[known[owner] == 1]
        hard[group[lives[group] & (np.abs(cut.time[rows] - since[group]) > LIFE_US)]] = True
    again = (known[group] == 1) | (np.arange(count) != first[group])
    mine = printed[group]
    same_print = cut.prints[rows] == mine
    # Twice in one message is not a second delivery of it.
    same_print &= (known[group] == 1) | (cut.message[rows] != cut.message[leader][group])
    same_path = (cut.prints[rows] & _PATH) == (mine & _PATH)
    told = np.where(same_print, REDELIVERY, np.where(same_path, REPEAT, CROSS_PATH))
    kind[rows] = np.where(again, told, ACCEPTED)
    if hard.any():
        _one_by_one(cut, rows, first, length, np.flatnonzero(hard), questions, found, kind, revision)
    return kind, revision


def _one_by_one(  # noqa: PLR0917 - the columns of `verdicts`
    cut: Cut,
    rows: I64,
    first: I64,
    length: I64,
    hard: I64,
    questions: I64,
    found: Found,
    kind: U8,
    revision: U8,
) -> None:
    """Settle identities with several values or with a counter's lives, row by row in order of arrival."""
    answers: dict[int, list[_Kept]] = {}
    columns = zip(
        questions[found.query].tolist(), found.bits.tolist(), found.prints.tolist(), found.time.tolist(), strict=True
    )
    for row, bits, printed, time in columns:
        answers.setdefault(row, []).append(_Kept(bits, printed, time, -1))
    for place in hard.tolist():
        members = rows[first[place] : first[place] + length[place]].tolist()
        same_life = _SAME_LIFE.get(int(cut.kinds[members[0]]))
        known = [] if same_life else list(answers.get(members[0], []))
        for row in members:
            this = _Kept(int(cut.bits[row]), int(cut.prints[row]), int(cut.time[row]), int(cut.message[row]))
            near = known
            if same_life:
                near = [kept for kept in (*answers.get(row, []), *known) if same_life(kept, this)]
            kind[row] = _verdict(this, near)
            if kind[row] == ACCEPTED:
                revision[row] = min(len(near), 255)
                known.append(this)


def _same_counter(kept: _Kept, this: _Kept) -> bool:
    return abs(kept.time - this.time) <= LIFE_US


def _same_frame(kept: _Kept, this: _Kept) -> bool:
    """Return whether two receptions with one counter and the same bytes are of one radio frame.

    A network server hands a frame on once, so its second reception is a frame of another life of the device's
    counter, unless it bears the time of the first. Another network's clock is not the same.
    """
    if kept.prints == this.prints and kept.message != this.message:
        return abs(kept.time - this.time) <= LIFE_US
    if kept.prints & _PATH_MASK == this.prints & _PATH_MASK:
        return kept.time == this.time
    return abs(kept.time - this.time) <= FRAME_US


_SAME_LIFE = {SEQUENCE: _same_counter, FRAME: _same_frame}
"""Kinds whose keys come again in another life of the device: whether two of one key are of one life."""


def _verdict(this: _Kept, near: list[_Kept]) -> int:
    """Return what a reading is, given the kept ones of its identity."""
    alike = [kept for kept in near if kept.bits == this.bits]
    if not alike:
        return ACCEPTED
    if any(kept.prints == this.prints and kept.message != this.message for kept in alike):
        return REDELIVERY
    if any(kept.prints & _PATH_MASK == this.prints & _PATH_MASK for kept in alike):
        return REPEAT
    return CROSS_PATH
