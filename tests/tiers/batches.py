"""Batches of a node as the centre checks them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from sensegate.bus.batch import Batch, Origins, WordColumn

NOW = 1_767_225_600_000_000


def batch(rows: int = 6, **changes: Any) -> Batch:
    """Return rows of three devices, in the order of the encoding, with some columns replaced."""
    made = Batch(
        "4401",
        0,
        Origins(
            ["a", "b", "own-c"],
            WordColumn.of(["440106", "440106", "441502001"]),
            WordColumn.of(["eco", "eco", "water"]),
            WordColumn.of(["air"] * 3),
            WordColumn.of(["acme/th@1"] * 3),
            np.array([113.0, np.nan, 115.0]),
            np.array([23.0, np.nan, 22.8]),
            np.array([2, 2, 2], np.uint8),
        ),
        ["air_temperature", "pm2_5"],
        np.arange(rows, dtype=np.uint32) % 3,
        (np.arange(rows) % 2).astype(np.uint16),
        NOW - np.arange(rows) * 1_000_000,
        np.full(rows, NOW - 500_000),
        np.arange(rows) / 10,
        {},
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.uint32),
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.uint8),
        np.full(rows, 77, np.int64),
        np.arange(rows, dtype=np.uint32),
    )
    origins = {key: changes.pop(key) for key in list(changes) if key in Origins.__struct_fields__}
    made = msgspec.structs.replace(made, origins=msgspec.structs.replace(made.origins, **origins))
    return msgspec.structs.replace(made, **changes)
