"""What a node tells its centre of itself, every few seconds, and what it is told in return."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from sensegate import __version__
from sensegate.bus.decoding import decoder
from sensegate.clock import Clock
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.tiers.config_distribution import table_digests

INTERVAL_S = 2.0

_log = structlog.get_logger("tiers")


class NodeReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a node. What a release does not know is left out, and what it does not know of others' is passed over."""

    version: str
    sent_at: int
    """The node's clock, µs UTC."""
    generation: int = 0
    load: float = 0.0
    """Runnable processes of its machine, mean of a minute."""
    cores: int = 0
    rss_mb: float = 0.0
    devices: int = 0
    connected: int = 0
    """Open connections of devices."""
    counts: dict[str, int] = {}
    """Ledger kind -> count since its log began."""
    tables: dict[str, str] = {}
    """Name of a table that must be the same everywhere -> its digest."""
    problems: tuple[str, ...] = ()
    """Why it is not well, a sentence each."""


class ReportReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of the centre."""

    version: str
    answered_at: int
    """The centre's clock, µs UTC."""
    base: str = ""
    """Digest of the base data that this node should have; another than it has: it asks for them."""
    orders: str = ""
    """Digest of what is ordered of this node; empty: nothing."""


_encode = msgspec.msgpack.Encoder().encode
decode_report = decoder(NodeReport, "report of a node")
decode_reply = decoder(ReportReply, "answer to a report")


def machine_load() -> tuple[float, int, float]:
    """Return (load, cores, peak memory of this process in MB)."""
    return os.getloadavg()[0], os.cpu_count() or 1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report_of(now: int, counts: dict[str, int], devices: int, problems: list[str]) -> NodeReport:
    """Return what a node tells of itself."""
    load, cores, rss_mb = machine_load()
    return NodeReport(
        __version__,
        now,
        load=round(load, 2),
        cores=cores,
        rss_mb=round(rss_mb, 1),
        devices=devices,
        counts=counts,
        tables=table_digests(),
        problems=tuple(problems),
    )


class Reporter:
    """Tells the centre of this node while `run`."""

    def __init__(
        self, report: Callable[[], Awaitable[NodeReport]], ask: Callable[[str, bytes], Awaitable[bytes]], clock: Clock
    ) -> None:
        """`ask`: (what, payload) -> the centre's answer."""
        self._report = report
        self._ask = ask
        self._clock = clock
        self.reply: ReportReply | None = None
        self._moved = asyncio.Event()

    async def next_reply(self) -> ReportReply:
        """Return the centre's next answer to a report."""
        await self._moved.wait()
        assert self.reply is not None  # noqa: S101 - set before the event
        return self.reply

    async def run(self) -> None:
        """Report until cancelled; a centre that does not answer is asked again."""
        refused = ""
        while True:
            try:
                self.reply = decode_reply(await self._ask("report", _encode(await self._report())))
                refused = ""
                self._moved.set()
                self._moved = asyncio.Event()
            except (Unavailable, PermissionDenied, ValueError) as why:
                if str(why) != refused:
                    _log.info("the centre has not heard our report", reason=str(why))
                refused = str(why)
            await self._clock.sleep(INTERVAL_S)


class ReceivedReport(msgspec.Struct, frozen=True):
    """The last report of a node."""

    report: NodeReport
    received_at: int
    """The centre's clock when it came."""

    @property
    def clock_offset_s(self) -> float:
        """By how much the node's clock is ahead of the centre's, less its way here."""
        return (self.report.sent_at - self.received_at) / 1e6


class NodeReports:
    """The last report of each node, as the centre heard it."""

    def __init__(self, version: str, clock: Clock, reply: Callable[[str, NodeReport], Mapping[str, str]]) -> None:
        """`reply`: (division, its report) -> digests by which it sees that there is something for it."""
        self._version = version
        self._clock = clock
        self._reply = reply
        self.latest: dict[str, ReceivedReport] = {}

    async def answer_report(self, division: str, payload: bytes) -> bytes:
        """Answer a node's report."""
        report = decode_report(payload)
        now = self._clock.now()
        self.latest[division] = ReceivedReport(report, now)
        return _encode(ReportReply(self._version, now, **self._reply(division, report)))
