"""The ingest pipeline, from a delivery to its acknowledged commit: redact, decode, normalise, judge, commit.

This is the one place that may catch `Exception`: a bug in decoding or normalising costs the message that met it, and
nothing else.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, groupby
from typing import TypeVar

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.assets import Assets
from sensegate.authority.devices import Devices
from sensegate.clock import Clock
from sensegate.collect.commands import DownlinkQueue
from sensegate.collect.contract import Source
from sensegate.collect.merging import MergedSources
from sensegate.config import Config
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.redaction import MessageRedactor, removed_of
from sensegate.errors import Fenced, Overloaded, StoreFull, Unavailable
from sensegate.ingest.batches import DecodedBatch
from sensegate.ingest.boundary import BatchBoundary
from sensegate.ingest.interpreter import Interpreter, Reprocessor, delivery_of
from sensegate.ingest.metadata import MetadataReader
from sensegate.ingest.poison import PoisonMessages
from sensegate.model import (
    Delivery,
    Message,
    MessageBatch,
    Quarantined,
    QuarantineReason,
    RejectedValue,
    Spec,
    UnreadableBatch,
)
from sensegate.normalise.indicators import Indicators
from sensegate.persist.commit import Committer, PreparedBatch

LEAVE_S = 0.002
"""Some turns of the loop: nats-py flushes in a task of its own, the socket takes a few writes."""

_log = structlog.get_logger("ingest")

_T = TypeVar("_T")


class PipelineStages(msgspec.Struct, frozen=True, eq=False):
    """The stages that a batch passes, in their order, and the registry that they share."""

    interpreter: Interpreter
    """Decodes and normalises live messages."""
    indicators: Indicators
    committer: Committer
    devices: Devices
    redaction: MessageRedactor | None = None
    """Cuts video metadata down to what may be kept, before anything else sees it."""
    assets: Assets | None = None
    """Marks readings of secondary sources."""
    commands: DownlinkQueue | None = None
    """Sends the requests that decoding has for devices."""
    reprocessor: Reprocessor | None = None
    """Interprets recorded messages once more."""


Observer = Callable[[Sequence[Spec], MessageBatch, DecodedBatch], None]
"""Called once the commit of a batch of live messages is prepared: (specs by index, messages, decoded batch)."""


class IngestPipeline:
    """Takes batches of messages from all sources and commits what they say, until cancelled.

    A batch is decoded, normalised, judged for duplicates and committed in one atomic write; then its deliveries are
    acknowledged. After a lost connection or a refused commit the pipeline starts again from the last commit.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        sources: Sequence[Source],
        stages: PipelineStages,
        *,
        boundary: BatchBoundary | None = None,
        observers: Sequence[Observer] = (),
        has_delivered: Callable[[int], bool] = lambda _sequence: True,
    ) -> None:
        """Build it; `run` processes.

        Args:
            config: the configuration.
            clock: the clock.
            sources: the sources of all batches.
            stages: the stages.
            boundary: what is to run between two batches.
            observers: called with each batch of live messages.
            has_delivered: returns whether the log is delivered up to a sequence, as far as that takes processor time.
        """
        self._config = config
        self._clock = clock
        self._sources = sources
        self._stages = stages
        self._observers = observers
        self._has_delivered = has_delivered
        self._memory = stages.interpreter.decoder.memory
        self._camera_sources = frozenset(
            f"external:{broker.name}" for broker in config.external_brokers if broker.video
        )
        """Sources that deliver nothing but video metadata."""
        self.boundary = boundary or BatchBoundary()
        self._poison = PoisonMessages(clock)
        self._metadata = MetadataReader()
        self.trouble = "starting"
        """Reason why nothing is committed now; empty: readings are committed."""

    def not_ready(self) -> list[str]:
        """Return why nothing is committed at the moment; empty while all is well."""
        return [f"intake: {self.trouble}"] if self.trouble else []

    def apply_profiles(self, profiles: ProfileSet, changed: Sequence[str]) -> None:
        """Use other profiles from the next batch on; `changed`: names of the profiles that differ."""
        self.boundary.add(partial(self._apply_profiles, profiles, changed))

    def _apply_profiles(self, profiles: ProfileSet, changed: Sequence[str]) -> None:
        stages = self._stages
        with metrics.PROFILE_CHANGE_SECONDS.time():
            devices = stages.devices.of_profiles(changed)
            stages.interpreter.apply_profiles(profiles, devices)
            if stages.reprocessor:
                stages.reprocessor.apply_profiles(profiles, devices)
            stages.committer.apply_specs(profiles.specs)
            stages.indicators.forget_rates()

    async def run(self) -> None:
        """Process batches until cancelled; after a loss the messages that were not committed come again."""
        pause_s = 0.05
        while True:
            began = self._clock.monotonic()
            try:
                await self._run_once()
            except (Unavailable, Overloaded, Fenced, StoreFull) as why:
                self.trouble = str(why)
                metrics.RESTARTS.labels("ingest").inc()
                _log.warning("ingest restarted from the last commit", reason=str(why))
            pause_s = 0.05 if self._clock.monotonic() - began > 30 else min(pause_s * 2, 2.0)
            await self._clock.sleep(pause_s)

    async def _run_once(self) -> None:
        positions = await self._stages.committer.open()
        self._memory.rollback()  # what was not committed comes again, to the memory that it met before
        async with MergedSources(self._sources, self._config.ingest, self._clock) as intake:
            await intake.start(positions)
            self.trouble = ""
            written: asyncio.Task[None] | None = None
            committed = 0
            try:
                while True:
                    # Only one commit may be on its way to the subscribers: further ones would overtake its delivery.
                    behind = partial(self._is_behind, committed)
                    deliveries = await intake.batch(written, is_behind=behind)
                    pending = self._process(deliveries)
                    mark = self._memory.savepoint()
                    if written:
                        # The next commit is made ready while the last one is on its way; two are never written at once.
                        await written
                    committed = self._stages.committer.sequence
                    written = asyncio.create_task(self._write(pending, deliveries, intake, mark), name="commit")
                    # The commit must leave the process before the next walk holds the loop, else the log idles.
                    await asyncio.sleep(LEAVE_S)
            finally:
                if written:
                    written.cancel()
                    await asyncio.gather(written, return_exceptions=True)

    def _is_behind(self, committed: int) -> bool:
        return not self._has_delivered(committed)

    def _process(self, deliveries: Sequence[Delivery]) -> PreparedBatch:
        self.boundary.run()
        profiles = self._stages.interpreter.decoder.profiles
        live = [self._metadata.complete(delivery, profiles) for delivery in deliveries if not delivery.recorded_in]
        pending = PreparedBatch([], [])
        for unreadable, group in groupby(live, lambda delivery: delivery.unreadable is not None):
            if unreadable:
                for delivery in group:
                    pending = pending.followed_by(self._quarantine_batch(delivery))
            else:
                for part in self._poison.split(list(group)):
                    pending = pending.followed_by(self._process_guarded(part))
        for delivery in deliveries:
            if delivery.recorded_in == "correction":
                pending = pending.followed_by(self._stages.committer.prepare_correction(delivery))
            elif delivery.recorded_in and self._stages.reprocessor:
                pending = pending.followed_by(self._reprocess(delivery, self._stages.reprocessor))
        return pending

    def _reprocess(self, delivery: Delivery, reprocessor: Reprocessor) -> PreparedBatch:
        """Process recorded messages: they give revisions of readings, and none of the side effects of live messages."""
        span = MessageBatch(delivery.messages)
        span, batch = reprocessor.select(span, self._interpret(span, reprocessor.interpreter))
        if not span:
            return PreparedBatch([], [])
        if self._stages.assets:
            self._stages.assets.mark(batch.readings, compare=False)
        part = [delivery_of(delivery, span)]
        return self._stages.committer.prepare(part, batch.fields, batch.readings, batch.rejected, messages=span)

    def _quarantine_batch(self, delivery: Delivery) -> PreparedBatch:
        """Put a batch that cannot be read in quarantine whole, counted as all of its messages."""
        batch = delivery.unreadable or UnreadableBatch("", 1)
        span, detail = MessageBatch(delivery.messages), batch.reason
        if self._stages.interpreter.decoder.profiles.video or self._camera_sources:
            # It may hold video metadata, of which nothing is kept unredacted.
            detail += f"; its {len(span[0].payload)} bytes are not kept, because they may be video metadata"
            span = MessageBatch([msgspec.structs.replace(span[0], payload=b"", cut=True)])
            delivery = delivery_of(delivery, span)
        whole = Quarantined(0, QuarantineReason.DAMAGED_BATCH, detail, count=batch.count)
        interpreter = self._stages.interpreter
        nothing = msgspec.structs.replace(interpreter.decoder.decode([]), quarantined=[whole])
        readings, rejected = interpreter.normaliser.normalise(nothing, span.received)
        return self._stages.committer.prepare([delivery], nothing, readings, rejected, messages=span)

    def _process_guarded(self, deliveries: Sequence[Delivery]) -> PreparedBatch:
        """Process live messages; a bug behind decoding costs the one poison message too, once it is isolated.

        Raises:
            Unavailable: the pipeline must start again from the last commit.
        """
        error = _result_or_bug(partial(self._process_live, deliveries))
        if not isinstance(error, Exception):
            return error
        # As in `_redact`: neither the error's text nor the frames' values may be told.
        raise self._poison.isolate(deliveries, error, f"{type(error).__name__}\n{_last_frames(error)}")

    def _process_live(self, deliveries: Sequence[Delivery]) -> PreparedBatch:
        self._poison.inspect(deliveries)
        span = self._redact(deliveries)
        batch = self._interpret(span, self._stages.interpreter)
        if self._stages.assets:
            self._stages.assets.mark(batch.readings)
        if taken := removed_of(span):
            batch = msgspec.structs.replace(batch, fields=msgspec.structs.replace(batch.fields, removed=taken))
        if self._stages.commands:
            for request in self._memory.take_requests():
                self._stages.commands.enqueue(request.topic, request.payload, request.about)
        pending = self._stages.committer.prepare(
            deliveries, batch.fields, batch.readings, batch.rejected, messages=span
        )
        self._observe_devices(batch)
        self._stages.indicators.count(
            self._stages.interpreter.normaliser.table,
            batch.readings,
            [*batch.fields.rejected, *batch.rejected],
            keep=pending.accepted,
            received=batch.received,
        )
        specs = self._stages.interpreter.normaliser.table.specs
        for observe in self._observers:
            observe(specs, span, batch)
        return pending

    def _observe_devices(self, batch: DecodedBatch) -> None:
        """Note the arrival of the messages of devices, also of those that gave no reading."""
        devices = self._stages.devices
        devices.observe(batch.readings.device, batch.readings.received)
        numbered = batch.fields.sequence_numbers
        others: list[Quarantined | RejectedValue] = [*batch.fields.quarantined, *batch.fields.rejected]
        device = np.array([*(other.device for other in others), *numbered.device.tolist()], np.int32)
        message = np.array([*(other.message for other in others), *numbered.message.tolist()], np.int64)
        known = device >= 0
        if known.any():
            devices.observe(device[known], batch.received[message[known]])

    def _redact(self, deliveries: Sequence[Delivery]) -> MessageBatch:
        """Return the messages; video metadata is redacted to what may be kept, before anything else sees it."""
        span = MessageBatch.joined([delivery.messages for delivery in deliveries])
        if self._stages.redaction is None:
            return span
        strict: set[int] = set()
        if self._camera_sources:
            ends = list(accumulate((len(delivery.messages) for delivery in deliveries), initial=0))
            for delivery, start in zip(deliveries, ends, strict=False):
                if delivery.source in self._camera_sources:
                    strict.update(range(start, start + len(delivery.messages)))
        decoder = self._stages.interpreter.decoder
        kept_at: dict[int, Message] = {}
        for at, route in self._stages.redaction.pending(span, decoder, strict).items():
            kept = _result_or_bug(partial(self._stages.redaction.redact, span[at], route, decoder))
            if isinstance(kept, Exception):
                # The error's text and the frames' values may hold personal data of the message.
                frames = f"{type(kept).__name__}\n{_last_frames(kept)}"
                _log.error("video format crashed; nothing of its message is kept", formats=route.video, frames=frames)
                kept = self._stages.redaction.replace_crashed(span[at], route, decoder, frames)
            kept_at[at] = kept
        return MessageBatch(kept_at.get(at, message) for at, message in enumerate(span)) if kept_at else span

    def _interpret(self, span: MessageBatch, interpreter: Interpreter) -> DecodedBatch:
        """Decode and normalise; a bug in either puts the one poison message in quarantine, with its traceback."""
        decoder, normaliser = interpreter.decoder, interpreter.normaliser
        mark = decoder.memory.savepoint()

        def interpreted() -> DecodedBatch:
            self._poison.raise_if_poison(span)
            fields, received = decoder.decode(span), span.received
            readings = normaliser.normalise(fields, received, span.best_effort, span.redelivered)
            return DecodedBatch(received, fields, *readings)

        result = _result_or_bug(interpreted)
        if not isinstance(result, Exception):
            return result
        decoder.memory.rollback(mark)
        if len(span) > 1:
            half = len(span) // 2
            first = self._interpret(MessageBatch(span[:half]), interpreter)
            return first.merged_with(self._interpret(MessageBatch(span[half:]), interpreter), half)
        if not (frames := self._poison.bug_of(span[0])):
            frames = f"{type(result).__name__}\n{_last_frames(result)}"
            _log.error(
                "decoder crashed; its message is in quarantine",
                topic=span[0].topic,
                reason=repr(result),
                exc_info=result,
            )
        crash = Quarantined(0, QuarantineReason.CRASHED, frames)
        nothing = msgspec.structs.replace(decoder.decode([]), quarantined=[crash])
        return DecodedBatch(span.received, nothing, *normaliser.normalise(nothing, span.received))

    async def _write(
        self, pending: PreparedBatch, deliveries: Sequence[Delivery], intake: MergedSources, mark: int
    ) -> None:
        await self._stages.committer.write(pending)
        self._memory.release(mark)
        newest = {delivery.source: delivery for delivery in deliveries if delivery.ack_is_cumulative}
        for delivery in deliveries:
            if not delivery.ack_is_cumulative or newest[delivery.source] is delivery:
                await delivery.ack()
        intake.release(deliveries)


def _result_or_bug(work: Callable[[], _T]) -> _T | Exception:
    """Return the result of `work`, or the exception that a bug in it raised."""
    try:
        return work()
    except (Unavailable, StoreFull, Fenced):
        raise  # no bug: the pipeline starts again from the last commit
    except Exception as bug:  # noqa: BLE001 - the one rim: the caller quarantines the message and logs the bug
        return bug


def _last_frames(bug: Exception) -> str:
    """Return the last three frames of a traceback, without values."""
    return "".join(traceback.format_tb(bug.__traceback__)[-3:])
