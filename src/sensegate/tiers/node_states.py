"""The centre's view of its nodes: whether each is connected, and how far its log has been forwarded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec

from sensegate.bus.commit_records import LaneRecord, decode_lane
from sensegate.bus.contract import Log
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.errors import Unavailable
from sensegate.tiers.liveness import Liveness
from sensegate.tiers.report import NodeReports, ReceivedReport

POLL_S = 1.0
SHOWN_MAX = 5
"""Most silent nodes that readiness names."""


class LinkState(StrEnum):
    """State of a node's uplink."""

    UP = "up"
    """Connected, and heard a moment ago."""
    SILENT = "silent"
    """Not connected, or not heard for some seconds: it hangs, or its link is half-open."""
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
    silence: str = ""
    """Problem of its link, as a sentence; empty: the link is up, or never was."""


class NodeMonitor:
    """Keeps the status of all nodes up to date, once a second."""

    def __init__(
        self,
        log: Log,
        members: Callable[[], Sequence[str]],
        connected: Callable[[], Awaitable[set[str]]],
        clock: Clock,
        reports: NodeReports | None = None,
        *,
        liveness: Liveness | None = None,
    ) -> None:
        """Prepare to watch.

        Args:
            log: of the centre.
            members: returns the ids of all nodes.
            connected: returns the ids of the connected nodes; may raise `Unavailable`.
            clock: source of time.
            reports: the nodes' own reports.
            liveness: times at which nodes were last heard; None: a connection suffices.
        """
        self._log = log
        self._reports = reports
        self._liveness = liveness
        self._members = members
        self._connected = connected
        self._clock = clock
        self.nodes = [NodeStatus(member, LinkState.NEVER) for member in members()]

    async def run(self) -> None:
        """Keep `nodes` up to date until cancelled."""
        while True:
            try:
                connected = await self._connected()
                self.nodes = [
                    await self._status_of(member, is_connected=member in connected) for member in self._members()
                ]
            except Unavailable:
                # Our own engine is away: the last status stays, and readiness reports the engine.
                pass
            await self._clock.sleep(POLL_S)

    def warnings(self) -> list[str]:
        """Return the nodes that are silent, one sentence each, a few by name."""
        silent = [f"node {node.member}: {node.silence}" for node in self.nodes if node.silence]
        more = [f"nodes: {len(silent) - SHOWN_MAX} more are silent"] if len(silent) > SHOWN_MAX else []
        return silent[:SHOWN_MAX] + more

    async def _status_of(self, member: str, *, is_connected: bool) -> NodeStatus:
        records = await lane_records(self._log, member)
        counts = [record.totals for record in records]
        is_silent = self._liveness is not None and self._liveness.is_silent(member)
        state = LinkState.NEVER
        if is_connected and not is_silent:
            state = LinkState.UP
        elif is_connected or records:
            state = LinkState.SILENT
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
            self._silence(member, is_connected=is_connected) if state is LinkState.SILENT else "",
        )

    def _silence(self, member: str, *, is_connected: bool) -> str:
        seconds = self._liveness.silence_s(member) if self._liveness else 0.0
        if is_connected:
            return f"link: connected, but silent for {seconds:.0f} s; its process hangs, or the link is half-open"
        return f"link: not connected; silent for {seconds:.0f} s"


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
