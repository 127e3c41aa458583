"""Columns of several nodes in one page stand in the order that the gateway names."""

from __future__ import annotations

import numpy as np

from sensegate.share import records
from sensegate.share.records import RowSlice
from sensegate_client import Columns
from tests.share.made import make_batch


def test_rows_of_several_parts_are_put_in_their_places() -> None:
    """Values, texts and nodes of each row go together; without places the order is that of the parts (the control)."""
    first = make_batch([(0, "air_temperature", 1.0), (0, "air_temperature", 3.0)], node="4401")
    second = make_batch([(0, "state", "two"), (0, "state", "four")], node="4403")
    parts = [RowSlice(batch, np.arange(2), 7, 0) for batch in (first, second)]
    ordered = Columns(records.columns(parts, "", np.array([0, 2, 1, 3])))
    assert [(row.value, row.node) for row in ordered.records()] == [
        (1.0, "4401"),
        ("two", "4403"),
        (3.0, "4401"),
        ("four", "4403"),
    ]
    plain = Columns(records.columns(parts, ""))
    assert [row.value for row in plain.records()] == [1.0, 3.0, "two", "four"]
