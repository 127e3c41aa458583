"""Rows that are looked through to answer a request or to deliver a feed, metered apart from the rows that are returned.

Whatever reads rows calls `add`: the search of the log, last values, the history. The count belongs to the request or
delivery in whose context it runs, and `Metering.count` takes it. So an interface that reads by these parts need not
hand a counter through. Rows of the log are those of the entries that were searched, also where a cache knew the
result; rows of the history are those that a query fetched or aggregated.
"""

from __future__ import annotations

from contextvars import ContextVar

from sensegate import metrics

DELIVERY = "delivery"
"""Interface of what is pushed, or read by no request."""


class ScanCount:
    """Rows looked through for one request, not yet taken."""

    __slots__ = ("interface", "rows")

    def __init__(self, interface: str) -> None:
        """`interface`: path of the route, or `DELIVERY`."""
        self.interface = interface
        self.rows = 0


_current: ContextVar[ScanCount | None] = ContextVar("scanned rows", default=None)


def begin(interface: str) -> ScanCount:
    """Begin to count for a request, in the present context and those that it starts."""
    count = ScanCount(interface)
    _current.set(count)
    return count


def add(rows: int) -> None:
    """Count rows that were looked through."""
    count = _current.get() or begin(DELIVERY)
    count.rows += rows
    metrics.SCANNED.labels(count.interface).inc(rows)


def take() -> int:
    """Return the rows that were looked through since they were last taken."""
    count = _current.get()
    if count is None:
        return 0
    rows, count.rows = count.rows, 0
    return rows
