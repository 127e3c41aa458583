"""Status reports of a node to its centre, every few seconds, and the answers to them."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import structlog

from sensegate import __version__
from sensegate.bus.decoding import decoder
from sensegate.clock import Clock
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.tiers.config_distribution import table_digests
from sensegate.tiers.indicator_hours import ROWS_MAX, HourIndicators

INTERVAL_S = 2.0
PROBLEMS_MAX = 50
"""Most problems of a node that its centre shows."""
PROBLEM_MAX = 1_000
"""Most characters of one."""

_log = structlog.get_logger("tiers")


class NodeReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Status report of a node. Releases may differ: missing fields have defaults, unknown ones are ignored."""

    version: str
    sent_at: int
    """The node's clock, µs UTC."""
    generation: int = 0
    load: float = 0.0
    """Load average of its machine over one minute."""
    cores: int = 0
    rss_mb: float = 0.0
    devices: int = 0
    connected: int = 0
    """Number of open connections of devices."""
    counts: dict[str, int] = {}
    """Ledger kind -> count since the node's log began."""
    tables: dict[str, str] = {}
    """Common table -> its digest, which must be the same everywhere."""
    problems: tuple[str, ...] = ()
    """Problems of the node, one sentence each."""
    indicators: Annotated[tuple[HourIndicators, ...], msgspec.Meta(max_length=ROWS_MAX)] = ()
    """Hourly sums of its quality indicators, those that the centre's last answer asked for."""


class ReportReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of the centre to a report."""

    version: str
    answered_at: int
    """The centre's clock, µs UTC."""
    base: str = ""
    """Digest of the configuration that this node should have; where it differs the node asks for it."""
    orders: str = ""
    """Digest of the open orders for this node; empty: there are none."""
    indicators_after: int = -1
    """Hour (since 1970) after which the next report should hold the sums of indicators; -1: it should hold none."""


_encode = msgspec.msgpack.Encoder().encode
decode_report = decoder(NodeReport, "report of a node")
decode_reply = decoder(ReportReply, "answer to a report")


def machine_load() -> tuple[float, int, float]:
    """Return (load, cores, peak memory of this process in MB)."""
    return os.getloadavg()[0], os.cpu_count() or 1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report_of(now: int, counts: dict[str, int], devices: int, problems: list[str]) -> NodeReport:
    """Return the present report of this node."""
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
    """Sends the reports of this node while `run`."""

    def __init__(
        self,
        report: Callable[[int], Awaitable[NodeReport]],
        ask: Callable[[str, bytes], Awaitable[bytes]],
        clock: Clock,
        note_clock: Callable[[float], None],
    ) -> None:
        """Begin without a reply.

        Args:
            report: returns the present report, with the indicators after an hour; -1: without any.
            ask: sends a question to the centre.
            clock: the node's clock.
            note_clock: hears by how many seconds the centre's clock is ahead, at each reply.
        """
        self._note_clock = note_clock
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
        """Report until cancelled; failures are logged once per cause."""
        failure = ""
        while True:
            try:
                report = _encode(await self._report(self.reply.indicators_after if self.reply else -1))
                sent = self._clock.now()
                self.reply = decode_reply(await self._ask("report", report))
                self._note_clock((self.reply.answered_at - (sent + self._clock.now()) / 2) / 1e6)
                failure = ""
                self._moved.set()
                self._moved = asyncio.Event()
            except (Unavailable, PermissionDenied, ValueError) as why:
                if str(why) != failure:
                    _log.info("report not delivered to the centre", reason=str(why))
                failure = str(why)
            await self._clock.sleep(INTERVAL_S)


class ReceivedReport(msgspec.Struct, frozen=True):
    """A report of a node with its time of arrival."""

    report: NodeReport
    received_at: int
    """Time when it arrived, µs UTC of the centre's clock."""

    @property
    def clock_offset_s(self) -> float:
        """Offset of the node's clock from the centre's, transit included."""
        return (self.report.sent_at - self.received_at) / 1e6


class NodeReports:
    """The latest report of each node, at the centre."""

    def __init__(self, clock: Clock, reply: Callable[[str, NodeReport], ReportReply]) -> None:
        """`reply`: takes (member, its report); returns the answer."""
        self._clock = clock
        self._reply = reply
        self.latest: dict[str, ReceivedReport] = {}

    async def answer_report(self, member: str, payload: bytes) -> bytes:
        """Answer a node's report."""
        report = decode_report(payload)
        problems = tuple(problem[:PROBLEM_MAX] for problem in report.problems[:PROBLEMS_MAX])
        report = msgspec.structs.replace(report, problems=problems)
        reply = self._reply(member, report)
        # What was taken out of it is not kept twice.
        self.latest[member] = ReceivedReport(msgspec.structs.replace(report, indicators=()), reply.answered_at)
        return _encode(reply)
