"""The order of whole numbers, digit by digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.quantities.sorting import radix_argsort


@given(st.lists(st.integers(0, 2**62), max_size=50), st.sampled_from([8, 16, 17, 32, 62]))
def test_order_is_the_stable_one(numbers: list[int], bits: int) -> None:
    """Equal numbers stay in their order, whatever their size."""
    column = np.array([number % (1 << bits) for number in numbers], np.int64)
    assert radix_argsort(column).tolist() == np.argsort(column, kind="stable").tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_every_kind_of_whole_number(kind: type[np.generic]) -> None:
    """The columns of readings are of several kinds."""
    column = (np.arange(300)[::-1] % 100 * 1_000_003 % 251).astype(kind)
    assert radix_argsort(column).tolist() == np.argsort(column, kind="stable").tolist()
