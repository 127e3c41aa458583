"""The walk of a reading, from its delivery to the acknowledged commit: decode, normalise, persist.

`flow.py` builds the parts and sets it going. Here stands the one place that may catch everything: a bug in decoding or
normalising costs the message that met it, and nothing else.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import TypeVar

import msgspec
import structlog

from sensegate import metrics
from sensegate.assets import Assets
from sensegate.authority.devices import Devices
from sensegate.bus.columns import Batch
from sensegate.clock import Clock
from sensegate.collect.commands import Commands
from sensegate.collect.intake import Intake
from sensegate.config import Config
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.redaction import Redactor, removed_of
from sensegate.errors import Fenced, Lost, StoreFull
from sensegate.eyes import Again, Eyes, delivered
from sensegate.halves import Understood
from sensegate.model import Delivery, Message, Quarantined, QuarantineReason, Span
from sensegate.normalise.indicators import Indicators
from sensegate.persist.commit import Committer, Pending
from sensegate.poison import Poison
from sensegate.ports import Source

DRAIN_S, DRAIN_LOOK_S = 20.0, 0.1
LEAVE_S = 0.002
"""Some turns of the loop: nats-py flushes in a task of its own, the socket takes a few writes."""

_log = structlog.get_logger("walk")

_T = TypeVar("_T")


class Ingest:
    """The walk of a reading from its delivery to the acknowledged commit; one life after another until cancelled."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        sources: Sequence[Source],
        *,
        eyes: Eyes,
        indicators: Indicators,
        committer: Committer,
        devices: Devices,
        commands: Commands | None = None,
        again: Again | None = None,
        assets: Assets | None = None,
        cutting: Redactor | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._sources = sources
        self._eyes = eyes
        self._memory = eyes.decoder.memory
        self._again = again
        self._cutting = cutting
        self._cameras = frozenset(f"foreign:{one.name}" for one in config.foreign if one.video)
        """Sources from which only video metadata comes."""
        self._indicators = indicators
        self._committer = committer
        self._devices = devices
        self._commands = commands
        self._assets = assets
        self.on_walk: list[Callable[[Span, Understood], None]] = []
        """Called with a span and what was understood of it, once its commit is prepared."""
        self._turns: list[Callable[[], None]] = []
        self._poison = Poison(clock)
        self.trouble = "starting"
        """Why nothing is committed at the moment; empty while all is well."""

    def at_border(self, turn: Callable[[], None]) -> None:
        """Have something done before the next walk, never in one: no message is understood half before, half after."""
        self._turns.append(turn)

    def adopt(self, profiles: ProfileSet, changed: Sequence[str]) -> None:
        """Have other profiles in force from the next border on; `changed`: the names of those that are others now."""
        self.at_border(partial(self._adopt, profiles, changed))

    def _adopt(self, profiles: ProfileSet, changed: Sequence[str]) -> None:
        with metrics.PROFILE_CHANGE_SECONDS.time():
            other = self._devices.of_profiles(changed)
            self._eyes.use(profiles, other)
            if self._again:
                self._again.use(profiles, other)
            self._committer.adopt(profiles.specs)
            self._indicators.forget_rates()

    def remember(self, batches: Sequence[Batch]) -> None:
        """Have the identities of batches known, from the next border on, to those who judge duplicates."""

        def turn() -> None:
            for batch in batches:
                self._committer.remember(batch)

        self.at_border(turn)

    async def drained(self, source: str, newest: int) -> None:
        """Return when what a source has, up to this sequence, is committed. Raises `Lost` where that takes long."""
        for _ in range(round(DRAIN_S / DRAIN_LOOK_S)):
            position = self._committer.position(source)
            if newest <= (position.sequence if position else 0):
                return
            await self._clock.sleep(DRAIN_LOOK_S)
        raise Lost("what came is not committed yet; tried again")

    async def run(self) -> None:
        """Walk until cancelled; what was not committed comes again after a loss."""
        pause_s = 0.05
        while True:
            began = self._clock.monotonic()
            try:
                await self._life()
            except (Lost, Fenced, StoreFull) as why:
                self.trouble = str(why)
                metrics.RESTARTS.labels("ingest").inc()
                _log.warning("ingest starts again from the last commit", cause=str(why))
            pause_s = 0.05 if self._clock.monotonic() - began > 30 else min(pause_s * 2, 2.0)
            await self._clock.sleep(pause_s)

    async def _life(self) -> None:
        positions = await self._committer.open()
        self._memory.rollback()  # what was not committed comes again, to the memory that it met before
        async with Intake(self._sources, self._config.ingest, self._clock) as intake:
            await intake.start(positions)
            self.trouble = ""
            written: asyncio.Task[None] | None = None
            try:
                while True:
                    deliveries = await intake.batch(written)
                    pending = self._walk(deliveries)
                    mark = self._memory.savepoint()
                    if written:
                        # The next commit is made ready while the last one is on its way; two are never on their way.
                        await written
                    written = asyncio.create_task(self._write(pending, deliveries, intake, mark), name="commit")
                    # The commit must leave the process before the next walk holds the loop, else the log idles.
                    await asyncio.sleep(LEAVE_S)
            finally:
                if written:
                    written.cancel()
                    await asyncio.gather(written, return_exceptions=True)

    def _walk(self, deliveries: Sequence[Delivery]) -> Pending:
        turns, self._turns = self._turns, []
        for turn in turns:
            turn()
        live = [delivery for delivery in deliveries if not delivery.again]
        pending = Pending([], [])
        for part in self._poison.parts(live):
            pending = pending.then(self._walk_guarded(part))
        for delivery in deliveries:
            if delivery.again and self._again:
                pending = pending.then(self._walk_again(delivery, self._again))
        return pending

    def _walk_again(self, delivery: Delivery, way: Again) -> Pending:
        """Walk messages that are on the log: revisions of what they said, nothing else of what new ones bring."""
        span = Span(delivery.messages)
        span, batch = way.meant(span, self._understand(span, way.eyes))
        if not span:
            return Pending([], [])
        if self._assets:
            self._assets.mark(batch.readings, compare=False)
        part = [delivered(delivery, span)]
        return self._committer.prepare(part, batch.fields, batch.readings, batch.rejected, span=span)

    def _walk_guarded(self, deliveries: Sequence[Delivery]) -> Pending:
        """Walk; a bug behind the decoding costs the message that meets it, too, once it is found.

        Raises:
            Lost: start again.
        """
        found = _or_bug(partial(self._walk_live, deliveries))
        if not isinstance(found, Exception):
            return found
        # As in `_cut`: neither the error's text nor the frames' values may be told.
        raise self._poison.met(deliveries, found, f"{type(found).__name__}\n{_places(found)}")

    def _walk_live(self, deliveries: Sequence[Delivery]) -> Pending:
        self._poison.look(deliveries)
        span = self._cut(deliveries)
        batch = self._understand(span, self._eyes)
        if self._assets:
            self._assets.mark(batch.readings)
        if taken := removed_of(span):
            batch = msgspec.structs.replace(batch, fields=msgspec.structs.replace(batch.fields, removed=taken))
        if self._commands:
            for ask in self._memory.take_requests():
                self._commands.ask(ask.topic, ask.payload, ask.about)
        pending = self._committer.prepare(deliveries, batch.fields, batch.readings, batch.rejected, span=span)
        self._devices.observe(batch.readings.device, batch.readings.received)
        self._indicators.count(
            self._eyes.normaliser.table,
            batch.readings,
            [*batch.fields.rejected, *batch.rejected],
            keep=pending.keep,
            received=batch.received,
        )
        for listener in self.on_walk:
            listener(span, batch)
        return pending

    def _cut(self, deliveries: Sequence[Delivery]) -> Span:
        """Return the messages with those of video metadata cut down to what may be kept: nobody sees them before."""
        span = Span(chain.from_iterable(delivery.messages for delivery in deliveries))
        if self._cutting is None:
            return span
        strict: set[int] = set()
        if self._cameras:
            ends = list(accumulate((len(delivery.messages) for delivery in deliveries), initial=0))
            for delivery, start in zip(deliveries, ends, strict=False):
                if delivery.source in self._cameras:
                    strict.update(range(start, start + len(delivery.messages)))
        decoder = self._eyes.decoder
        kept_at: dict[int, Message] = {}
        for at, route in self._cutting.pending(span, decoder, strict).items():
            kept = _or_bug(partial(self._cutting.redact, span[at], route, decoder))
            if isinstance(kept, Exception):
                # Neither the error's text nor the frames' values may be told: both can hold what the message did.
                where = f"{type(kept).__name__}\n{_places(kept)}"
                _log.error(
                    "a format of video crashed; nothing of its message is kept", formats=route.video, where=where
                )
                kept = self._cutting.replace_crashed(span[at], route, decoder, where)
            kept_at[at] = kept
        return Span(kept_at.get(at, message) for at, message in enumerate(span)) if kept_at else span

    def _understand(self, span: Span, eyes: Eyes) -> Understood:
        """Decode and normalise; a bug in either costs the one message that met it: quarantine, with the traceback."""
        decoder, normaliser = eyes.decoder, eyes.normaliser
        mark = decoder.memory.savepoint()

        def understood() -> Understood:
            self._poison.demand_none(span)
            fields, received = decoder.decode(span), span.received
            return Understood(received, fields, *normaliser.normalise(fields, received, span.best_effort))

        found = _or_bug(understood)
        if not isinstance(found, Exception):
            return found
        decoder.memory.rollback(mark)
        if len(span) > 1:
            half = len(span) // 2
            return self._understand(Span(span[:half]), eyes).then(self._understand(Span(span[half:]), eyes), half)
        if not (where := self._poison.of(span[0])):
            where = f"{type(found).__name__}\n{_places(found)}"
            _log.error(
                "a decoder crashed; its message is in quarantine", topic=span[0].topic, bug=repr(found), exc_info=found
            )
        crash = Quarantined(0, QuarantineReason.CRASHED, where)
        nothing = msgspec.structs.replace(decoder.decode([]), quarantined=[crash])
        return Understood(span.received, nothing, *normaliser.normalise(nothing, span.received))

    async def _write(self, pending: Pending, deliveries: Sequence[Delivery], intake: Intake, mark: int) -> None:
        await self._committer.write(pending)
        self._memory.release(mark)
        newest = {delivery.source: delivery for delivery in deliveries if delivery.covers}
        for delivery in deliveries:
            if not delivery.covers or newest[delivery.source] is delivery:
                await delivery.ack()
        intake.settled(deliveries)


def _or_bug(work: Callable[[], _T]) -> _T | Exception:
    """Return what `work` gives, or the error that a bug in it raised: it costs one message and not the walk."""
    try:
        return work()
    except (Lost, StoreFull, Fenced):
        raise  # no bug: the walk starts again from the last commit
    except Exception as bug:  # noqa: BLE001 - the caller tells it
        return bug


def _places(bug: Exception) -> str:
    """Return the last places in our code that an error came through."""
    return "".join(traceback.format_tb(bug.__traceback__)[-3:])
