"""The centre's view of its nodes: whether each is connected, and how far its log has been forwarded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec

from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.bus.record import LaneRecord, decode_lane
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.errors import Unavailable
from sensegate.ports import Log
from sensegate.tiers.report import NodeReports, ReceivedReport

POLL_S = 1.0


class LinkState(StrEnum):
    """State of a node's uplink."""

    UP = "up"
    """Connected."""
    SILENT = "silent"
    """Not connected now."""
    NEVER = "never"
    """Has never sent anything."""


class NodeStatus(msgspec.Struct, frozen=True):
    """Status of one node as its centre sees it."""

    member: str
    state: LinkState
    last_commit: int = 0
    """Time of its newest span, µs UTC of the node's clock."""
    backlog: int = 0
    """Entries of its log that its backlog lane has still to forward."""
    forwarded: int = 0
    withheld: int = 0
    refused: int = 0
    """Rows refused by the centre."""
    position: int = 0
    """Greatest sequence of its log that was assigned to a lane."""
    log_epoch: str = ""
    """Epoch of its log."""
    counts: dict[str, int] = {}
    """Its own ledger as forwarded: kind -> count since its lanes began."""
    last_report: ReceivedReport | None = None
    """Last report of the node."""


class NodeMonitor:
    """Keeps the status of all nodes up to date, once a second."""

    def __init__(
        self,
        log: Log,
        members: Callable[[], Sequence[str]],
        connected: Callable[[], Awaitable[set[str]]],
        clock: Clock,
        reports: NodeReports | None = None,
    ) -> None:
        """Prepare to watch.

        Args:
            log: of the centre.
            members: returns the ids of all nodes.
            connected: returns the ids of the connected nodes; may raise `Unavailable`.
            clock: source of time.
            reports: the nodes' own reports.
        """
        self._log = log
        self._reports = reports
        self._members = members
        self._connected = connected
        self._clock = clock
        self.nodes = [NodeStatus(member, LinkState.NEVER) for member in members()]

    async def run(self) -> None:
        """Keep `nodes` up to date until cancelled."""
        while True:
            try:
                connected = await self._connected()
                self.nodes = [await self._status_of(member, is_up=member in connected) for member in self._members()]
            except Unavailable:
                # Our own engine is away: the last status stays, and readiness reports the engine.
                pass
            await self._clock.sleep(POLL_S)

    async def _status_of(self, member: str, *, is_up: bool) -> NodeStatus:
        records = await lane_records(self._log, member)
        counts = [record.totals for record in records]
        state = LinkState.UP if is_up else LinkState.SILENT if records else LinkState.NEVER
        return NodeStatus(
            member,
            state,
            max((record.committed_at for record in records), default=0),
            sum(until - after for record in records for after, until in record.ranges),
            sum(totals.get(FORWARDED, 0) for totals in counts),
            _family(counts, WITHHELD),
            _family(counts, REFUSED_BY_CENTRE),
            max((record.position for record in records), default=0),
            next((record.log_epoch for record in records), ""),
            _sums(counts),
            self._reports.latest.get(member) if self._reports else None,
        )


async def lane_records(log: Log, member: str) -> list[LaneRecord]:
    """Return the present lane records of a node. Raises `Unavailable`."""
    records = []
    for lane in ("live", "backlog"):
        last = await log.last(f"commit.{member}.{lane}")
        if last and (record := read(last, "links", decode_lane)) is not None:
            records.append(record)
    return records


def _family(counts: Sequence[dict[str, int]], family: str) -> int:
    return sum(count for totals in counts for kind, count in totals.items() if kind.partition(".")[0] == family)


def _sums(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for totals in counts:
        for kind, count in totals.items():
            sums[kind] = sums.get(kind, 0) + count
    return sums
