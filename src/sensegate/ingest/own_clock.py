"""Judgement of the gateway's own clock by the agreement of others.

    NTP servers, the centre, an engine elsewhere   the majority decides; of two that differ, the first of these
    devices                                        only where there is no such clock, and only if they agree

A device is evidence only with a steady lag, and devices behind one gateway only once. A backlog tells nothing, nor does
a lag of eight hours (a time zone) or of the device's own interval (the beginning of a period). Devices decide when at
least `DEVICES_MIN` of them, and `SHARE_MIN` of all that are in use, lie within `SPREAD_S` of one another. Otherwise the
clock is not judged, which counts as right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.index import DeviceIndex
from sensegate.bus.commit_records import decode_commit
from sensegate.bus.contract import Log
from sensegate.bus.names import writer_of
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import Unavailable
from sensegate.ingest import sntp
from sensegate.model import F64
from sensegate.normalise.clocks import SPREAD_S, DeviceAgreement, TimeChecks

CHECK_S = 10.0
NTP_S = 64.0
"""Interval of questions to an NTP server."""
DEVICES_MIN = 8
SHARE_MIN = 2 / 3
"""Least share of the devices with a clock of their own that must agree before they decide."""

_log = structlog.get_logger("clock")


class ClockReference(msgspec.Struct, frozen=True):
    """A clock with which ours was compared."""

    name: str
    offset_s: float
    """Seconds by which the reference is ahead of our clock."""


class ClockJudgement(msgspec.Struct, frozen=True):
    """Judgement of the gateway's own clock, with the references for it."""

    is_off: bool = False
    offset_s: float | None = None
    """Seconds by which the references are ahead of our clock; None: unknown."""
    judged_by: str = "nothing yet"


def judge(references: Sequence[ClockReference], devices: DeviceAgreement, limit_s: float) -> ClockJudgement:
    """Return the judgement; `references` in the order of their rank."""
    if references:
        off = [reference for reference in references if abs(reference.offset_s) > limit_s]
        right = [reference for reference in references if reference not in off]
        is_off = len(off) > len(right) or (len(off) == len(right) and references[0] in off)
        deciding = off if is_off else right
        names = ", ".join(reference.name for reference in deciding)
        if others := ", ".join(f"{r.name} ({r.offset_s:+.0f} s)" for r in (right if is_off else off)):
            names += f", against {others}"
        return ClockJudgement(is_off, deciding[0].offset_s, names)
    counts = f"{devices.agreeing} of {devices.heard} devices agree within {SPREAD_S:.0f} s"
    if devices.agreeing < max(DEVICES_MIN, SHARE_MIN * devices.heard):
        needed = f"{DEVICES_MIN} and {SHARE_MIN:.0%} are needed"
        return ClockJudgement(judged_by=f"no NTP server, no centre, and only {counts}; {needed}")
    return ClockJudgement(abs(devices.offset_s) > limit_s, devices.offset_s, counts)


class ClockSources(msgspec.Struct, frozen=True, eq=False):
    """Sources of time with which the own clock is compared."""

    intervals_s: Callable[[], F64]
    """Returns the expected interval of each device, 0 where it is not known."""
    centre_s: Callable[[], float | None]
    """Returns the offset of the centre's clock; None: unknown."""
    ask_ntp: Callable[[str, Clock], Awaitable[float]] = sntp.offset_s
    """Returns the offset of a server."""


class ClockMonitor:
    """Checks the clock periodically; while it is wrong, checks of time are suspended."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        log: Log,
        clocks: TimeChecks,
        *,
        index: DeviceIndex,
        sources: ClockSources,
    ) -> None:
        """Begin unjudged.

        Args:
            config: limits, NTP servers.
            clock: the clock that is judged.
            log: its commits tell the time of the store.
            clocks: its checks are suspended.
            index: gateways of devices.
            sources: what the clock is compared with.
        """
        self._config = config
        self._clock = clock
        self._store = log
        self._clocks = clocks
        self._index = index
        self._intervals_s = sources.intervals_s
        self._centre_s = sources.centre_s
        self._ask_ntp = sources.ask_ntp
        self._ntp: dict[str, float] = {}
        self._ntp_due = float("-inf")
        self.judgement = ClockJudgement()

    def not_ready(self) -> list[str]:
        """Return that the clock is wrong, by whose judgement."""
        judgement = self.judgement
        if not judgement.is_off or judgement.offset_s is None:
            return []
        side = "behind" if judgement.offset_s > 0 else "ahead"
        state = f"{abs(judgement.offset_s):.0f} s {side}, judged by {judgement.judged_by}"
        return [f"clock: {state}; readings are marked, none is judged by time. Set the clock (NTP)"]

    def describe(self) -> str:
        """Return the references by which the clock was judged, and its offset."""
        judgement = self.judgement
        if judgement.offset_s is None:
            return f"not judged: {judgement.judged_by}"
        return f"{'off' if judgement.is_off else 'right'}, {judgement.offset_s:+.1f} s, judged by {judgement.judged_by}"

    async def run(self) -> None:
        """Check periodically, until cancelled."""
        while True:
            await self._clock.sleep(CHECK_S)
            await self.check()

    async def check(self) -> None:
        """Judge the clock now."""
        index = self._index
        devices = self._clocks.agreement(self._clock.now(), index.gateway, index.enabled, self._intervals_s())
        judgement = judge(await self._references(), devices, self._config.time.clock_error_max_s)
        if judgement.is_off != self.judgement.is_off:
            event = "system clock is wrong" if judgement.is_off else "system clock is correct again"
            _log.error(event, offset_s=judgement.offset_s, judged_by=judgement.judged_by)
        self.judgement = judgement
        self._clocks.own_clock_off = judgement.is_off
        metrics.CLOCK_OFFSET.set(judgement.offset_s or 0.0)

    async def _references(self) -> list[ClockReference]:
        await self._refresh_ntp()
        references = [ClockReference(f"NTP server {name}", offset_s) for name, offset_s in self._ntp.items()]
        if (centre_s := self._centre_s()) is not None:
            references.append(ClockReference("the centre", centre_s))
        engine_s = await self._engine_s()
        # The engine on this machine has our clock: it tells of a jump, and never that the clock is right.
        is_evidence = self._config.engine.url or abs(engine_s or 0.0) > self._config.time.clock_error_max_s
        if engine_s is not None and is_evidence:
            references.append(ClockReference("the engine", engine_s))
        return references

    async def _engine_s(self) -> float | None:
        """Return the offset of the engine's clock to ours at our last commit; None: there is none."""
        config = self._config
        last = await self._store.last(f"commit.{writer_of(config.member_id)}")
        record = read(last, "own clock", decode_commit) if last else None
        return (last.time - record.committed_at) / 1e6 if last and record else None

    async def _refresh_ntp(self) -> None:
        servers, now = self._config.time.ntp_servers, self._clock.monotonic()
        if not servers or now < self._ntp_due:
            return
        self._ntp_due = now + NTP_S
        answers = await asyncio.gather(*(self._ask(server) for server in servers))
        self._ntp = {server: answer for server, answer in zip(servers, answers, strict=True) if answer is not None}

    async def _ask(self, server: str) -> float | None:
        try:
            return await self._ask_ntp(server, self._clock)
        except Unavailable as why:
            _log.warning("NTP server not usable", server=server, reason=str(why))
            return None
