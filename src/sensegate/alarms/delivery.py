"""Delivery of alarms: one task a channel reads the events from the log and delivers them, in order, from its position.

An event is delivered at least once. The position is written after the receiver accepted; a kill in between repeats the
delivery with the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from sensegate import metrics
from sensegate.alarms.channels import AlarmChannel, AlarmChannels, ChannelKind, ChannelState
from sensegate.alarms.notices import Notice, is_wanted, notices_of
from sensegate.alarms.transports import NoticeTransport
from sensegate.bus.names import ALARM_EVENTS
from sensegate.bus.unreadable import read_rows
from sensegate.clock import Clock, wait_or_sleep
from sensegate.errors import Conflict, StoreFull, Unavailable
from sensegate.model import LogEntry
from sensegate.share.transports.contract import DeliveryResult

EVENTS_SUBJECT = f"{ALARM_EVENTS}.*.*.*"
GRADE_MAX = 3
"""Alarms about devices of a higher grade leave the gateway by no channel."""
NOTICES_MAX = 20
"""Most events of one message."""
POLL_S = 5.0
ROBOT_PAUSE_S = 3.1
"""Between messages of a robot, which takes 20 a minute."""
AGE_MAX_US = 24 * 3_600_000_000
"""Older events are skipped: a day later they are in the feed and in the console, and no news."""

_log = structlog.get_logger("alarms")


class EventLog(Protocol):
    """The part of the log that deliveries need."""

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]: ...
    async def bounds(self) -> tuple[int, int]: ...


class DeliveryPolicy(msgspec.Struct, frozen=True):
    """Waits after failures (`egress` in the configuration)."""

    retry_initial_s: float
    retry_max_s: float


class AlarmDeliveries:
    """The deliveries of all channels; `run` until cancelled."""

    def __init__(
        self,
        channels: AlarmChannels,
        log: EventLog,
        clock: Clock,
        transports: Mapping[ChannelKind, NoticeTransport],
        policy: DeliveryPolicy,
    ) -> None:
        self._channels = channels
        self._log = log
        self._clock = clock
        self._transports = transports
        self._policy = policy
        self._changed = asyncio.Event()
        self._news: dict[str, asyncio.Event] = {}
        """Name of a channel -> set when there are new events of this gateway."""
        channels.records.on_change.append(lambda _before, _after: self._changed.set())

    def warnings(self) -> list[str]:
        """Return how many channels do not deliver; names and reasons are not for everybody who asks for readiness."""
        failing = sum(self._channels.state(channel.name).failures >= 3 for channel in self._channels.records)
        return [f"alarms: {failing} channels do not deliver; see `sensegate alarm channel list`"] if failing else []

    def wake(self) -> None:
        """Look for new events at once; those of other gateways are found within `POLL_S`."""
        for event in self._news.values():
            event.set()

    async def end(self) -> int:
        """Return the sequence after which a new channel delivers. Raises `Unavailable`."""
        return (await self._log.bounds())[1]

    async def run(self) -> None:
        """Run a task for each channel; one that is changed, or ended by an error, is started anew."""
        running: dict[str, tuple[AlarmChannel, asyncio.Task[None]]] = {}
        try:
            while True:
                self._changed.clear()
                wanted = {channel.name: channel for channel in self._channels.records if channel.enabled}
                for name, (channel, task) in list(running.items()):
                    if wanted.get(name) != channel or task.done():
                        task.cancel()
                        (error,) = await asyncio.gather(task, return_exceptions=True)
                        del running[name]
                        if isinstance(error, Exception):
                            await self._count_broken(name, error)
                for name, channel in wanted.items():
                    if name not in running:
                        running[name] = channel, asyncio.create_task(self._follow(channel))
                await wait_or_sleep(self._changed, self._clock, POLL_S)
        finally:
            for _, task in running.values():
                task.cancel()
            await asyncio.gather(*(task for _, task in running.values()), return_exceptions=True)

    async def _count_broken(self, name: str, error: Exception) -> None:
        """Count a delivery that ended by an unexpected error as a failure of its channel."""
        state = self._channels.state(name)
        failures = state.failures + 1
        _log.error("alarms are not delivered", channel=name, failures=failures, exc_info=error)
        reason = f"an error of the gateway ({type(error).__name__}), see its log"
        try:
            await self._channels.settle(name, msgspec.structs.replace(state, failures=failures, reason=reason))
        except (Unavailable, Conflict, StoreFull) as why:
            _log.warning("delivery of alarms waits for the store", channel=name, reason=str(why))

    async def _follow(self, channel: AlarmChannel) -> None:
        """Deliver to a channel until cancelled; failures of the log and of the receiver are waited out."""
        wait_s = self._policy.retry_initial_s
        news = self._news.setdefault(channel.name, asyncio.Event())
        while True:
            news.clear()
            try:
                settled = await self.step(channel)
                state = self._channels.state(channel.name)
                if not state.failures:
                    wait_s = self._policy.retry_initial_s
                if settled:
                    continue
                if not state.failures:
                    await wait_or_sleep(news, self._clock, POLL_S)
                    continue
            except (Unavailable, Conflict, StoreFull) as why:
                _log.warning("delivery of alarms waits for the store", channel=channel.name, reason=str(why))
            await self._clock.sleep(wait_s)
            wait_s = min(wait_s * 2, self._policy.retry_max_s)

    async def step(self, channel: AlarmChannel) -> bool:
        """Deliver the next events; return whether the position moved. Raises as `AlarmChannels.settle`."""
        state = self._channels.state(channel.name)
        entries = await self._log.fetch_of(EVENTS_SUBJECT, state.position)
        notices: list[Notice] = []
        position, skipped = state.position, state.skipped
        for entry in entries:
            is_open = int(entry.subject.rpartition(".")[2]) <= GRADE_MAX
            batch = read_rows(entry, "alarms") if is_open else None
            wanted = [notice for notice in notices_of(batch) if is_wanted(channel, notice)] if batch else []
            if wanted and entry.time < self._clock.now() - AGE_MAX_US:
                skipped += len(wanted)
                metrics.ALARM_DELIVERIES.labels(channel.kind, "skipped").inc(len(wanted))
                wanted = []
            if notices and len(notices) + len(wanted) > NOTICES_MAX:
                break
            notices += wanted
            position = entry.sequence
        if position == state.position:
            return False
        if not notices:
            await self._channels.settle(
                channel.name, msgspec.structs.replace(state, position=position, skipped=skipped)
            )
            return True
        result = await self.attempt(channel, notices)
        metrics.ALARM_DELIVERIES.labels(channel.kind, "delivered" if result.accepted else "failed").inc(len(notices))
        if not result.accepted:
            failures = state.failures + 1
            _log.warning("alarms are not delivered", channel=channel.name, failures=failures, reason=result.reason)
            failed = msgspec.structs.replace(state, failures=failures, reason=result.reason[:200])
            await self._channels.settle(channel.name, failed)
            return False
        delivered = state.delivered + len(notices)
        await self._channels.settle(channel.name, ChannelState(position, delivered, skipped, last=self._clock.now()))
        if channel.kind in {ChannelKind.WECOM, ChannelKind.DINGTALK}:
            await self._clock.sleep(ROBOT_PAUSE_S)
        return True

    async def attempt(self, channel: AlarmChannel, notices: Sequence[Notice]) -> DeliveryResult:
        """Deliver notices once."""
        return await self._transports[channel.kind].send(channel, notices)
