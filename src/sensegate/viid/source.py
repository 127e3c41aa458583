"""Objects that cameras and platforms push by GA/T 1400: cut here, walked as messages, answered after the commit.

A body may hold megabytes of pictures; of it only what may be kept goes on, in messages that the log takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.collect.pushed import Pushed
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
"""So many bytes of kept objects are one message; its envelope and counts come on top."""
PART_OBJECTS: Final = 500
_encode = msgspec.json.Encoder().encode

Owner = Callable[[str], Device | None]
"""Returns the enabled device of a camera's code, None where none is registered."""


class Outcome(NamedTuple):
    """What became of a body, once it is committed."""

    answers: list[ObjectResult]
    """One an object, in the order of the body; of notifications one a notification."""
    listed: bool = True
    """Whether the body was an envelope of many: it is answered by a list."""
    at: int = 0
    """The newest time that an object of it tells (µs UTC); 0: none does."""


class ViidSource(Pushed):
    """Gives what `take` brings; `take` returns once all of it was acknowledged."""

    def __init__(
        self,
        limits: IngestConfig,
        clock: Clock,
        veil: Pseudonymiser,
        owner: Owner,
        adopt: Callable[[Device, Sequence[CatalogueRecord]], Awaitable[None]],
        *,
        trusts: Callable[[Device], bool] = lambda _sender: False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Make a source.

        Args:
            limits: of the intake.
            clock: for arrivals.
            veil: hides plates and free ids.
            owner: finds the device of a camera's code.
            adopt: is told what a body says of cameras, tollgates and lanes, before it is walked.
            trusts: whether cameras that a sender's objects name are taken as its own, though no catalogue named them.
            timeout_s: longest wait for a commit.
        """
        super().__init__(FORMAT, limits, clock)
        self._veil = veil
        self._owner = owner
        self._adopt = adopt
        self._trusts = trusts
        self._timeout_s = timeout_s

    async def take(self, sender: Device, payload: bytes, kinds: frozenset[str] = frozenset()) -> Outcome:
        """Take the body of a request of a device that proved itself; return when it is committed.

        `kinds`: of which its objects must be; empty: any.

        Raises:
            Rejected: the body as a whole cannot be used; a trace of it (no content) is in quarantine.
            Overloaded: too many wait already; nothing was taken.
            Unavailable: not committed in time; it may still be. It is to be sent again.
        """
        if self.full:
            metrics.LIMIT_HITS.labels("depth_messages_max").inc()
            raise Overloaded("too many messages wait for their commit; try again")
        try:
            whole = redact_body(payload, sender.alias or sender.id, self._veil, self._clock.now())
            if kinds and any(element.kind not in kinds and not element.inside for element in whole.objects):
                raise Rejected("schema", f"holds other objects than {', '.join(sorted(kinds))}")  # noqa: TRY301
        except Rejected as why:
            await self._committed([self._put(sender, stored.encode_withheld(FORMAT, payload, why, self._veil))])
            raise
        entries = [element.record for element in whole.objects if isinstance(element.record, CatalogueRecord)]
        if self._trusts(sender):
            cameras = {element.record.camera for element in whole.objects if element.record is not None} - {
                entry.id for entry in entries
            }
            new = sorted(name for name in cameras if is_device(name) and self._owner(name) is None)
            entries += [CatalogueRecord(kind="APE", id=name, unique_id=True, camera=name) for name in new]
        if entries:
            await self._adopt(sender, entries)
        for element in whole.objects:
            for rule in element.record.deviations if element.record is not None else ():
                metrics.VIID_NONCONFORMANT.labels(rule).inc()
        answers = [self._answer(sender, element) for element in whole.objects]
        parts = _parts(whole.objects, whole.removed)
        await self._committed([self._put(sender, stored.encode_redacted(FORMAT, part)) for part in parts])
        kept = [element.record for element in whole.objects]
        told = [answer for element, answer in zip(whole.objects, answers, strict=True) if not element.inside]
        return Outcome(
            _of_notices(whole.notices, whole.objects, answers) if whole.notices else told,
            whole.listed,
            max(
                (element.time for element in kept if isinstance(element, Sighting) and element.time_quality), default=0
            ),
        )

    def state(self, device: Device, *, online: bool) -> None:
        """Take that a device has registered, or that its registration has ended; nobody waits for the commit."""
        if self.full:
            return
        entry = CatalogueRecord(kind="APE", id=device.id, camera=device.id, time=self._clock.now(), online=online)
        self._put(device, stored.encode_redacted(FORMAT, Redacted(_encode(ViidBody((entry,))))))

    def _put(self, sender: Device, payload: bytes) -> asyncio.Future[None]:
        return self.put(f"http/{sender.id}", payload, sender.id, cut=True)

    async def _committed(self, waiting: list[asyncio.Future[None]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*waiting)
        except TimeoutError as why:
            raise Unavailable(
                f"not committed within {self._timeout_s:g} s, the outcome is unknown; send it again"
            ) from why

    def _answer(self, sender: Device, one: RedactedObject) -> ObjectResult:
        """Return what an object will be told: the walk judges by the same rules."""
        if isinstance(one.record, InvalidRecord):
            return ObjectResult(one.id, BAD_CONTENT, one.record.detail)
        if one.record is None or not one.record.camera:
            return ObjectResult(one.id)
        owner = self._owner(one.record.camera)
        if owner is None:
            return ObjectResult(one.id, INVALID_OPERATION, "its camera is not registered here")
        if owner.id != sender.id and sender.id not in owner.gateways:
            return ObjectResult(one.id, INVALID_OPERATION, "its camera belongs to another platform")
        return ObjectResult(one.id)


def _of_notices(
    names: Sequence[str], objects: Sequence[RedactedObject], answers: Sequence[ObjectResult]
) -> list[ObjectResult]:
    """Return one answer a notification: good unless all of its objects are refused.

    Objects that are refused would be refused again: their notification is not asked for once more.
    """
    of: dict[str, list[ObjectResult]] = {}
    for one, answer in zip(objects, answers, strict=True):
        of.setdefault(one.notice, []).append(answer)
    told: list[ObjectResult] = []
    for notice in names:
        inner = of.get(notice, [])
        bad = [element for element in inner if element.code]
        if bad and len(bad) == len(inner):
            told.append(
                ObjectResult(notice, bad[0].code, f"all {len(bad)} objects are refused; the first: {bad[0].text}")
            )
        elif bad:
            told.append(
                ObjectResult(notice, text=f"{len(bad)} of {len(inner)} objects are refused; the first: {bad[0].text}")
            )
        else:
            told.append(ObjectResult(notice))
    return told


def _parts(objects: Sequence[RedactedObject], removed: Mapping[str, int]) -> list[Redacted]:
    """Return the kept objects in parts that a message holds; what was taken out is told with the first."""
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
