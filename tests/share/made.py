"""Made-up readings for the tests of `share`, `web` and the contract of deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from sensegate.bus import columns
from sensegate.bus.columns import Batch, Origins, WordColumn
from sensegate.bus.ledger import Ledger
from sensegate.clock import HOUR_US
from sensegate.model import LogMessage
from sensegate.share.applications import Decision, RequestedAccess
from sensegate.share.grants import Grant

NOW = 1_767_225_600_000_000


class Place(msgspec.Struct, frozen=True):
    """A device and where it stands."""

    device: str
    division: str = "440106"
    department: str = "env"
    domain: str = "air"
    grade: int = 1
    lon: float = 113.3612
    lat: float = 23.1247


DEVICES = (
    Place("gz-air-1"),
    Place("gz-air-2", "440103", "env", "air", 2),
    Place("gz-cam-1", "440106", "police", "safety", 3, float("nan"), float("nan")),
    Place("gz-core-1", "440106", "env", "air", 4),
)


def make_batch(
    rows: Sequence[tuple[int, str, float | str]],
    *,
    places: Sequence[Place] = DEVICES,
    node: str = "4401",
    start: int = NOW,
    **columns_: object,
) -> Batch:
    """Return a batch of rows (index of the place, property, value), a millisecond apart, in the encoded order."""
    names = sorted({name for _, name, _ in rows})
    size = len(rows)
    batch = Batch(
        node,
        0,
        Origins(
            [place.device for place in places],
            WordColumn.of([place.division for place in places]),
            WordColumn.of([place.department for place in places]),
            WordColumn.of([place.domain for place in places]),
            WordColumn.of(["acme/th10@3" for _ in places]),
            np.array([place.lon for place in places]),
            np.array([place.lat for place in places]),
            np.array([place.grade for place in places], np.uint8),
        ),
        names,
        np.array([place for place, _, _ in rows], np.uint32),
        np.array([names.index(name) for _, name, _ in rows], np.uint16),
        start + np.arange(size, dtype=np.int64) * 1_000,
        start + np.arange(size, dtype=np.int64) * 1_000 + 5_000,
        np.array([np.nan if isinstance(value, str) else value for _, _, value in rows], np.float64),
        {row: value for row, (_, _, value) in enumerate(rows) if isinstance(value, str)},
        np.zeros(size, np.uint8),
        np.zeros(size, np.uint32),
        np.zeros(size, np.uint8),
        np.zeros(size, np.uint8),
        np.zeros(size, np.int64),
        np.arange(size, dtype=np.uint32),
    )
    return columns.ordered(msgspec.structs.replace(batch, **columns_))


def ledger_of(batch: Batch) -> Ledger:
    """Return a balanced ledger: one message a row, all accepted but for one rejected value a device."""
    ledger = Ledger()
    hour = int(batch.received[0]) // HOUR_US
    for entry, device in enumerate(batch.origins.device):
        rows = int((batch.origin == entry).sum())
        for kind, count in (("messages", rows), ("decoded", rows), ("values", rows + 1), ("accepted", rows)):
            ledger.add(hour, device, "mqtt", kind, count)
        ledger.add(hour, device, "mqtt", "rejected.wrong_type", 1)
    return ledger


def members(batch: Batch, *, subject: str = "readings.4401.440106.1", ttl_h: int = 168) -> list[LogMessage]:
    """Return the members of a commit that holds the batch."""
    return [
        LogMessage("raw.4401-0", b"raw", 72),
        LogMessage(subject, columns.encode(batch), ttl_h),
        LogMessage(f"ledger.{batch.node}-0", ledger_of(batch).encode(), 168),
        LogMessage("commit.4401-0", b"commit", rollup=True),
    ]


def access_request(values: dict[str, Any]) -> RequestedAccess:
    """Return the record of a request for access."""
    return msgspec.convert(values, RequestedAccess)


def decision_of(values: dict[str, Any]) -> Decision:
    """Return the record of a decision."""
    return msgspec.convert(values, Decision)


def grant_record(values: dict[str, Any]) -> Grant:
    """Return the record of a grant."""
    return msgspec.convert(values, Grant)
