"""Sums of quality indicators: means over columns are those over rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensegate.model import QualityRow
from sensegate.quantities.indicator_sums import INDICATORS, DeviceIndicatorSums
from tests.support.quality import hours_of

SHARE = st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0])
SIZE = 5


@given(
    st.dictionaries(
        st.tuples(st.integers(0, SIZE - 1), st.integers(0, 3)), st.tuples(st.integers(0, 9), SHARE, SHARE, SHARE, SHARE)
    ),
    st.lists(st.integers(0, 2), min_size=SIZE, max_size=SIZE),
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
)
def test_means_by_group(
    cells: dict[tuple[int, int], tuple[int, float | None, float | None, float | None, float | None]],
    groups: list[int],
    selected: list[bool],
) -> None:
    """Each mean is over the hours of devices of a group in which the indicator is defined; None where it is in none."""
    rows = [QualityRow(str(device), hour, *values) for (device, hour), values in cells.items()]
    # A device that was registered after the sums were begun is left out.
    late = QualityRow(str(SIZE), 0, 1, 1.0, 1.0, 1.0, 1.0)
    sums = DeviceIndicatorSums.of(SIZE, hours_of([*rows, late], int))
    means = sums.means_by(np.array(groups), np.array(selected), 3)
    assert means[1] == sums.means(np.array(selected) & (np.array(groups) == 1))
    for group, mean in enumerate(means):
        members = [row for row in rows if groups[int(row.device)] == group and selected[int(row.device)]]
        assert (mean.devices, mean.hours) == (len({row.device for row in members}), len(members))
        assert mean.received == sum(row.received for row in members)
        for name in INDICATORS:
            known = [value for row in members if (value := getattr(row, name)) is not None]
            assert getattr(mean, name) == (round(sum(known) / len(known), 4) if known else None)
