"""The numbers that devices give their messages, as runs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus import sequences

NUMBERS = st.integers(0, 12) | st.integers(2**63 - 4, 2**63 - 1)


def one_by_one(rows: list[tuple[int, int]]) -> dict[int, list[int]]:
    runs: dict[int, list[int]] = {}
    for device, number in sorted(set(rows)):
        mine = runs.setdefault(device, [])
        if mine and mine[-1] + 1 == number:
            mine[-1] = number
        else:
            mine += [number, number]
    return runs


@given(st.lists(st.tuples(st.integers(0, 4), NUMBERS), max_size=40))
def test_columns_have_the_runs_that_single_rows_have(rows: list[tuple[int, int]]) -> None:
    table = np.array(rows, np.int64).reshape(-1, 2)
    assert sequences.runs_of(table[:, 0], table[:, 1]) == one_by_one(rows)


def test_they_come_back_from_the_log_in_parts() -> None:
    runs = {f"device-{number}": [number, number + 2] for number in range(50)}
    parts = [sequences.decode(part) for part in sequences.encode_parts("life", runs, 200)]
    assert len(parts) > 3
    assert sequences.merged(parts) == runs
