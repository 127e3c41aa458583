"""A commit in columns, with a row of each kind."""

from __future__ import annotations

import numpy as np

from sensegate.bus.columns import Batch, LocalColumns, Origins, WordColumn


def batch(rows: int, seed: int = 0, *, devices: int = 5, node: str = "4401") -> Batch:
    """Return a batch of random rows with texts, places unknown, and local columns."""
    random = np.random.default_rng(seed)
    names = ["air_temperature", "door_state", "pm2_5", "pm2_5"][: max(1, min(4, rows))]
    property_ = random.integers(0, len(names), rows).astype(np.uint16)
    value = np.round(random.normal(20, 5, rows), 2)
    text = {}
    if "door_state" in names:
        for row in np.flatnonzero(property_ == 1).tolist():
            text[row] = f"state-{row % 3}"
            value[row] = np.nan
    places = np.round(random.random(devices) + 113, 6)
    places[0] = np.nan
    messages = max(rows // 2, 1)
    return Batch(
        node,
        0,
        Origins(
            [f"dev-{i:03d}" for i in range(devices)],
            WordColumn.of([f"44010{i % 4}" for i in range(devices)]),
            WordColumn.of([""] * devices),
            WordColumn.of(["air"] * devices),
            WordColumn.of([f"acme/th@{1 + i % 2}" for i in range(devices)]),
            places,
            places / 5,
            (np.arange(devices) % 3).astype(np.uint8),
        ),
        names,
        random.integers(0, devices, rows).astype(np.uint32),
        property_,
        1_767_225_600_000_000 + random.integers(0, 10**9, rows),
        (1_767_225_600_000 + random.integers(0, 10**6, rows)) * 1_000,
        value,
        text,
        random.integers(0, 3, rows).astype(np.uint8),
        random.integers(0, 1 << 14, rows).astype(np.uint32),
        random.integers(0, 4, rows).astype(np.uint8),
        random.integers(0, 2, rows).astype(np.uint8),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.uint32),
        LocalColumns(
            random.integers(-(1 << 60), 1 << 60, rows),
            random.integers(0, 1 << 16, rows).astype(np.uint16),
            random.integers(0, 4, rows).astype(np.uint8),
            (np.arange(rows) % messages).astype(np.uint32),
            random.integers(0, 1 << 63, messages).astype(np.uint64),
        ),
        ["", "", "2", "1"][: len(names)],
    )
