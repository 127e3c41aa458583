"""The centre's view of its nodes: whose connection is up, and how far each node's log has come up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec

from sensegate.bus.commit_records import LaneRecord, decode_lane
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.errors import Unavailable
from sensegate.ports import Log
from sensegate.tiers.report import Heard, Reports

LOOK_S = 1.0


class State(StrEnum):
    """Whether a node's uplink is connected."""

    UP = "up"
    SILENT = "silent"
    NEVER = "never"


class Node(msgspec.Struct, frozen=True):
    """One node as seen from above."""

    member: str
    state: State
    last_commit: int = 0
    """When its newest span was made, µs UTC of the node's clock."""
    backlog: int = 0
    """Entries of its log that its backlog lane has still to bring."""
    forwarded: int = 0
    withheld: int = 0
    refused: int = 0
    """Rows that were not taken of it."""
    position: int = 0
    """Greatest sequence of its log that was given to a lane."""
    life: str = ""
    """Epoch of that log."""
    counts: dict[str, int] = {}
    """Its own ledger, as it has come up: kind -> count since its lanes began."""
    heard: Heard | None = None
    """Its last report."""


class Links:
    """Looks once a second."""

    def __init__(
        self,
        log: Log,
        members: Callable[[], Sequence[str]],
        connected: Callable[[], Awaitable[set[str]]],
        clock: Clock,
        reports: Reports | None = None,
    ) -> None:
        """Look at nothing yet.

        Args:
            log: the centre's.
            members: gives the ids of all nodes that there are.
            connected: gives the ids of those whose connection is open; it may raise `Unavailable`.
            clock: paces the looking.
            reports: what the nodes tell of themselves.
        """
        self._log = log
        self._reports = reports
        self._members = members
        self._connected = connected
        self._clock = clock
        self.nodes = [Node(member, State.NEVER) for member in members()]

    async def run(self) -> None:
        """Keep `nodes` true until cancelled."""
        while True:
            try:
                connected = await self._connected()
                self.nodes = [await self._look(member, member in connected) for member in self._members()]
            except Unavailable:
                # Our own engine is away: what was seen last stays, and the wiring says so.
                pass
            await self._clock.sleep(LOOK_S)

    async def lanes(self, member: str) -> list[LaneRecord]:
        """Return the records of a node's lanes as they are now. Raises `Unavailable`."""
        records = []
        for lane in ("live", "backlog"):
            last = await self._log.last(f"commit.{member}.{lane}")
            if last and (record := read(last, "links", decode_lane)) is not None:
                records.append(record)
        return records

    async def _look(self, member: str, up: bool) -> Node:  # noqa: FBT001 - private
        records = await self.lanes(member)
        counts = [record.totals for record in records]
        state = State.UP if up else State.SILENT if records else State.NEVER
        return Node(
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
            self._reports.heard.get(member) if self._reports else None,
        )


def _family(counts: Sequence[dict[str, int]], family: str) -> int:
    return sum(count for totals in counts for kind, count in totals.items() if kind.partition(".")[0] == family)


def _sums(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in counts:
        for kind, count in one.items():
            sums[kind] = sums.get(kind, 0) + count
    return sums
