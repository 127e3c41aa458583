"""The VIID source: objects that cameras and platforms push by GA/T 1400, redacted here and answered after the commit.

A body may contain megabytes of pictures; only permitted fields are passed on, in messages that fit the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.collect.pushed import PushSource
from sensegate.config import IngestConfig
from sensegate.errors import Overloaded, Rejected, Unavailable
from sensegate.model import Device
from sensegate.video import stored
from sensegate.video.format import Pseudonymiser, Redacted
from sensegate.video.formats.viid_ids import is_device
from sensegate.video.formats.viid_records import CatalogueRecord, InvalidRecord, Sighting, ViidBody, ViidRecord
from sensegate.video.formats.viid_redaction import RedactedObject, redact_body
from sensegate.video.formats.viid_responses import BAD_CONTENT, INVALID_OPERATION, ObjectResult

FORMAT: Final = "viid"
TIMEOUT_S: Final = 25.0
PART_BYTES: Final = 160_000
"""Most bytes of redacted objects in a message, without its envelope and counts."""
PART_OBJECTS: Final = 500
_encode = msgspec.json.Encoder().encode

Owner = Callable[[str], Device | None]
"""Function that returns the enabled device of a camera's code, None if there is none."""


class BodyOutcome(NamedTuple):
    """The outcome of a committed body."""

    answers: list[ObjectResult]
    """Results of the objects in the order of the body; for notifications, one per notification."""
    listed: bool = True
    """True if the body was a list, which is answered by a list."""
    at: int = 0
    """Latest time among the objects (µs UTC); 0: none has a time."""


class ViidSource(PushSource):
    """A source of pushed bodies; `take` returns when all messages of a body were acknowledged."""

    def __init__(
        self,
        limits: IngestConfig,
        clock: Clock,
        pseudonymiser: Pseudonymiser,
        owner: Owner,
        adopt: Callable[[Device, Sequence[CatalogueRecord]], Awaitable[None]],
        *,
        trusts: Callable[[Device], bool] = lambda _sender: False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Create a source.

        Args:
            limits: limits of the intake.
            clock: gives the time of arrivals.
            pseudonymiser: pseudonymises plates and free ids.
            owner: finds the device of a camera's code.
            adopt: takes the catalogue entries of a body, before its objects are processed.
            trusts: whether unknown cameras in a sender's objects are registered behind it.
            timeout_s: time limit for a commit.
        """
        super().__init__(FORMAT, limits, clock)
        self._pseudonymiser = pseudonymiser
        self._owner = owner
        self._adopt = adopt
        self._trusts = trusts
        self._timeout_s = timeout_s

    async def take(self, sender: Device, payload: bytes, kinds: frozenset[str] = frozenset()) -> BodyOutcome:
        """Take the body of a request of an authenticated device; return when it is committed.

        `kinds` are the permitted kinds of objects; empty: any.

        Raises:
            Rejected: the body is invalid as a whole; a trace without content is in quarantine.
            Overloaded: too many messages are waiting; nothing was accepted.
            Unavailable: not committed in time, but it still may be; send it again.
        """
        if self.full:
            metrics.LIMIT_HITS.labels("depth_messages_max").inc()
            raise Overloaded("too many messages are waiting for their commit; try again")
        try:
            redacted = redact_body(payload, sender.alias or sender.id, self._pseudonymiser, self._clock.now())
            if kinds and any(element.kind not in kinds and not element.inside for element in redacted.objects):
                raise Rejected("schema", f"holds other objects than {', '.join(sorted(kinds))}")  # noqa: TRY301
        except Rejected as why:
            await self._committed(
                [self._put(sender, stored.encode_withheld(FORMAT, payload, why, self._pseudonymiser))]
            )
            raise
        entries = [element.record for element in redacted.objects if isinstance(element.record, CatalogueRecord)]
        if self._trusts(sender):
            cameras = {element.record.camera for element in redacted.objects if element.record is not None} - {
                entry.id for entry in entries
            }
            new = sorted(name for name in cameras if is_device(name) and self._owner(name) is None)
            entries += [CatalogueRecord(kind="APE", id=name, unique_id=True, camera=name) for name in new]
        if entries:
            await self._adopt(sender, entries)
        for element in redacted.objects:
            for rule in element.record.deviations if element.record is not None else ():
                metrics.VIID_NONCONFORMANT.labels(rule).inc()
        answers = [self._answer(sender, element) for element in redacted.objects]
        parts = _parts(redacted.objects, redacted.removed)
        await self._committed([self._put(sender, stored.encode_redacted(FORMAT, part)) for part in parts])
        records = [element.record for element in redacted.objects]
        results = [answer for element, answer in zip(redacted.objects, answers, strict=True) if not element.inside]
        return BodyOutcome(
            _notification_answers(redacted.notices, redacted.objects, answers) if redacted.notices else results,
            redacted.listed,
            max(
                (element.time for element in records if isinstance(element, Sighting) and element.time_quality),
                default=0,
            ),
        )

    def report_state(self, device: Device, *, online: bool) -> None:
        """Record that a device registered, or that its registration ended, without waiting for the commit."""
        if self.full:
            return
        entry = CatalogueRecord(kind="APE", id=device.id, camera=device.id, time=self._clock.now(), online=online)
        self._put(device, stored.encode_redacted(FORMAT, Redacted(_encode(ViidBody((entry,))))))

    def _put(self, sender: Device, payload: bytes) -> asyncio.Future[None]:
        return self.put(f"http/{sender.id}", payload, sender.id, redacted=True)

    async def _committed(self, waiting: list[asyncio.Future[None]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*waiting)
        except TimeoutError as why:
            raise Unavailable(
                f"not committed within {self._timeout_s:g} s, the outcome is unknown; send it again"
            ) from why

    def _answer(self, sender: Device, element: RedactedObject) -> ObjectResult:
        """Return the result of an object, by the same rules as the ingest pipeline."""
        if isinstance(element.record, InvalidRecord):
            return ObjectResult(element.id, BAD_CONTENT, element.record.detail)
        if element.record is None or not element.record.camera:
            return ObjectResult(element.id)
        owner = self._owner(element.record.camera)
        if owner is None or (owner.id != sender.id and sender.id not in owner.gateways):
            # In one sentence: a sender does not learn which cameras of others there are.
            return ObjectResult(element.id, INVALID_OPERATION, "its camera is not registered here as yours")
        return ObjectResult(element.id)


def _notification_answers(
    names: Sequence[str], objects: Sequence[RedactedObject], answers: Sequence[ObjectResult]
) -> list[ObjectResult]:
    """Return a result per notification: success unless all of its objects are refused.

    A repetition would not help refused objects, so the peer is not asked to send the notification again.
    """
    by_notification: dict[str, list[ObjectResult]] = {}
    for element, answer in zip(objects, answers, strict=True):
        by_notification.setdefault(element.notice, []).append(answer)
    results: list[ObjectResult] = []
    for notice in names:
        inner = by_notification.get(notice, [])
        refused = [element for element in inner if element.code]
        if refused and len(refused) == len(inner):
            results.append(
                ObjectResult(
                    notice, refused[0].code, f"all {len(refused)} objects are refused; the first: {refused[0].text}"
                )
            )
        elif refused:
            results.append(
                ObjectResult(
                    notice, text=f"{len(refused)} of {len(inner)} objects are refused; the first: {refused[0].text}"
                )
            )
        else:
            results.append(ObjectResult(notice))
    return results


def _parts(objects: Sequence[RedactedObject], removed: Mapping[str, int]) -> list[Redacted]:
    """Return the redacted objects in parts that fit a message; the first part carries the counts of removed fields."""
    parts: list[Redacted] = []
    part: list[ViidRecord] = []
    size = 0
    ignored = sum(element.record is None for element in objects)
    for element in objects:
        if element.record is None:
            continue
        length = len(_encode(element.record))
        if part and (size + length > PART_BYTES or len(part) >= PART_OBJECTS):
            parts.append(Redacted(_encode(ViidBody(tuple(part))), {} if parts else removed))
            part, size = [], 0
        part.append(element.record)
        size += length
    if part or ignored or not parts:
        parts.append(Redacted(_encode(ViidBody(tuple(part), ignored)), {} if parts else removed))
    return parts
