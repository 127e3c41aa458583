"""Verdicts on several readings of one identity: the columns say what a plain reading of the rules says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.clock import HOUR_US
from sensegate.model import I64
from sensegate.persist.conflicts import Candidates, resolve
from sensegate.persist.identity import ACCEPTED, COUNTER_EPOCH_US, CROSS_PATH, REDELIVERY, REPEAT, SEQUENCE, TIME
from sensegate.persist.memtable import Matches


class Row(NamedTuple):
    """A reading, or one that was kept in an earlier batch."""

    identity: int
    bits: int
    printed: int
    time: int
    message: int = -1


def plainly(rows: list[Row], kinds: list[int], earlier: list[Row]) -> list[tuple[int, int]]:
    """Return (kind, revision) of each row, one after another."""
    kept = list(earlier)
    results = []
    for row in rows:
        near = [element for element in kept if element.identity == row.identity]
        if kinds[row.identity] == SEQUENCE:
            near = [neighbour for neighbour in near if abs(neighbour.time - row.time) <= COUNTER_EPOCH_US]
        alike = [neighbour for neighbour in near if neighbour.bits == row.bits]
        if not alike:
            results.append((ACCEPTED, len(near)))
            kept.append(row)
        elif any(plan.printed == row.printed and plan.message != row.message for plan in alike):
            results.append((REDELIVERY, 0))
        elif any((plan.printed ^ row.printed) & 0xFFFF == 0 for plan in alike):
            results.append((REPEAT, 0))
        else:
            results.append((CROSS_PATH, 0))
    return results


some = st.tuples(
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from([0x10001, 0x10002, 0x20001]),
    st.sampled_from([0, COUNTER_EPOCH_US // 2, COUNTER_EPOCH_US, COUNTER_EPOCH_US + 1, 3 * COUNTER_EPOCH_US]),
)


@settings(max_examples=settings().max_examples * 4)
@given(
    st.lists(st.tuples(some, st.booleans()), min_size=1, max_size=8),
    st.lists(st.sampled_from([TIME, SEQUENCE]), min_size=3, max_size=3),
    st.lists(some, max_size=3),
)
def test_columns_say_what_the_rules_say(
    drawn: list[tuple[tuple[int, int, int, int], bool]], kinds: list[int], before: list[tuple[int, int, int, int]]
) -> None:
    """Whatever came before and comes together, in one life of a counter or in several."""
    message, rows = 0, []
    for reading, fresh in drawn:
        message += fresh
        rows.append(Row(*reading, message))
    # What was kept of one identity differs in its value, within a counter's life.
    earlier: list[Row] = []
    for row in (Row(*values) for values in before):
        if plainly([row], kinds, earlier)[0][0] == ACCEPTED:
            earlier.append(row)
    hashed = np.array([row.identity * 1_000 for row in rows], np.uint64)
    cut = Candidates(
        hashed,
        np.array([row.identity for row in rows], np.uint32),
        np.array([kinds[row.identity] for row in rows], np.uint8),
        np.array([row.bits for row in rows], np.uint64),
        np.array([row.printed for row in rows], np.uint64),
        np.array([row.time for row in rows], np.int64),
        np.array([row.time for row in rows], np.int64),
        np.array([row.message for row in rows], np.int32),
    )

    def find(candidates: Candidates, questions: I64) -> Matches:
        rows = [
            (at, row_before)
            for at, row in enumerate(questions.tolist())
            for row_before in earlier
            if row_before.identity == int(candidates.number[row])
            # A counter's question goes to the hours beside its own, as `seen` asks.
            and (
                candidates.kinds[row] != SEQUENCE
                or abs(row_before.time // HOUR_US - int(candidates.time[row]) // HOUR_US) <= 1
            )
        ]
        return Matches(
            np.array([at for at, _ in rows], np.int64),
            np.array([row.bits for _, row in rows], np.uint64),
            np.array([row.printed for _, row in rows], np.uint64),
            np.array([row.time for _, row in rows], np.int64),
        )

    kind, revision = resolve(cut, np.ones(len(rows), np.bool_), find)
    assert list(zip(kind.tolist(), revision.tolist(), strict=True)) == plainly(rows, kinds, earlier)
