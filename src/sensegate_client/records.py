"""Records as objects, and the pages of JSON that hold them."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A reading. `cursor` is empty where the record does not come from the log."""

    id: str
    device: str
    property: str
    value: float | bool | str | None
    time: datetime
    """Phenomenon time, UTC."""
    received: datetime
    unit: str = ""
    channel: str = ""
    time_quality: str = ""
    quality: str = ""
    division: str = ""
    lon: float | None = None
    lat: float | None = None
    grade: int = 0
    profile: str = ""
    flags: tuple[str, ...] = ()
    revision: int = 0
    node: str = ""
    cursor: str = ""


class RecordPage(msgspec.Struct, frozen=True):
    """Page of records as JSON."""

    records: tuple[Record, ...]
    next: str = ""


class FeedDescription(msgspec.Struct, frozen=True):
    """Feed as the catalogue of the gateway names it."""

    name: str
    title: str = ""
    description: str = ""


class AggregateWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Aggregates of one property, of one group, in one window; a function without readings is None."""

    property: str
    channel: str
    start: datetime
    end: datetime
    device: str = ""
    division: str = ""
    values: dict[str, float | None]


class AggregatePage(msgspec.Struct, frozen=True):
    """Answer of the gateway with aggregates."""

    rows: tuple[dict[str, str | float | None], ...]


_GROUP_KEYS = frozenset({"property", "channel", "device", "division", "start", "end"})


def windows_of(page: AggregatePage) -> list[AggregateWindow]:
    """Return the rows of an answer as windows: what is no key of the group is a function's value."""
    windows = []
    for row in page.rows:
        values = {name: value for name, value in row.items() if name not in _GROUP_KEYS}
        keys = {name: value for name, value in row.items() if name in _GROUP_KEYS}
        windows.append(msgspec.convert({**keys, "values": values}, AggregateWindow))
    return windows
