"""Frames of which one reading is known and one comes: columns judge as the comparison of two readings does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensegate.persist import conflicts
from sensegate.persist.conflicts import Candidates, resolve
from sensegate.persist.identity import ACCEPTED, COUNTER_EPOCH_US, FRAME, FRAME_WINDOW_US, hashes
from sensegate.persist.memtable import Matches

SHIFTS = st.sampled_from([0, 1, FRAME_WINDOW_US, FRAME_WINDOW_US + 1, COUNTER_EPOCH_US, COUNTER_EPOCH_US + 1, 10**12])
SIGNED = st.tuples(SHIFTS, st.sampled_from([1, -1])).map(lambda pair: pair[0] * pair[1])
PAIRS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 1), st.sampled_from([0, 1, 1 << 20]), SIGNED), min_size=1, max_size=30
)
"""(known, bits of the value that comes, change of the fingerprint, distance in time) of each frame."""


@given(PAIRS)
def test_pairs_are_judged_as_two_readings(pairs: list[tuple[bool, int, int, int]]) -> None:
    """Any value, path, bytes and distance in time: kind and revision are those of the comparison row by row."""
    count, time = len(pairs), 10**15
    number, key = np.zeros(count, np.uint32), np.arange(count, dtype=np.int64)
    candidates = Candidates(
        hashes(number, key),
        number,
        np.full(count, FRAME, np.uint8),
        np.array([bits for _, bits, _, _ in pairs], np.uint64),
        np.array([5 ^ change for _, _, change, _ in pairs], np.uint64),
        np.array([time + shift for *_, shift in pairs], np.int64),
        np.full(count, time, np.int64),
        np.arange(count, dtype=np.int32),
    )
    known = np.array([pair[0] for pair in pairs])

    def find(_: Candidates, rows: np.ndarray) -> Matches:
        query = np.flatnonzero(known[rows])
        filled = len(query)
        return Matches(
            query, np.zeros(filled, np.uint64), np.full(filled, 5, np.uint64), np.full(filled, time, np.int64)
        )

    kind, revision = resolve(candidates, np.ones(count, np.bool_), find)
    for row, (is_known, bits, change, shift) in enumerate(pairs):
        earlier = conflicts._AcceptedReading(0, 5, time, -1)
        reading = conflicts._AcceptedReading(bits, 5 ^ change, time + shift, row)
        same = [earlier] if is_known and conflicts._same_frame(earlier, reading) else []
        expected = conflicts._verdict(reading, same)
        assert kind[row] == expected
        assert revision[row] == (len(same) if expected == ACCEPTED else 0)
