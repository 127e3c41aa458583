"""From a carrier's envelope to the frame in it: how it was heard, and by which rules it is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sensegate.decode.envelope import port_of
from sensegate.decode.extract import Element, bind
from sensegate.decode.frame import Frame
from sensegate.decode.identity import Reception, identify, settled
from sensegate.decode.plan_cache import Holder
from sensegate.decode.profile import NONE, Rule
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.quantities.quality import TimeQuality


class FrameRejected(Rejected):
    """The frame in an envelope cannot be decoded, whatever else the message holds."""

    def __init__(self, why: Rejected, device: int) -> None:
        super().__init__(why.reason, why.detail)
        self.device = device
        """Index of the frame's device, -1 where none is known."""


class Opened(NamedTuple):
    """A frame out of its envelope."""

    name: str
    """The device's name in the envelope; empty: the topic names it."""
    port: int | None
    reception: Reception

    @property
    def data(self) -> bytes:
        """The bytes that the device sent."""
        return self.reception.data


class Carried(NamedTuple):
    """The way of a frame (`extract.Way`): its device speaks for itself, and as a gateway for those behind it."""

    text: str
    path: int
    device: int
    gateway: int


def opened(rule: Rule, element: Element, received: int) -> Opened:
    """Return the frame in an element of an envelope. Raises `Rejected` where its bytes or its port cannot be read."""
    if rule.payload is None or element.frame is None:
        raise Rejected(QuarantineReason.SCHEMA, "no frame")
    data = rule.payload.bytes_of(element.frame.raw)
    port = None
    if element.port is not None:
        port = port_of(element.port.raw)
        if port is None:
            raise Rejected(QuarantineReason.SCHEMA, "the frame's port is no port")
    time, quality, steady = received, int(TimeQuality.RECEIVED), None
    if element.time is not None:
        time, quality = rule.reader.one(element.time.raw, received)
        if time != BAD and settled(rule, quality):
            steady = time
    counter = element.sequence.raw if element.sequence else None
    message_id = element.message_id.raw if element.message_id else None
    identity, key = identify(rule, steady, counter, message_id, data) if rule.identity else (NONE, None)
    name = str(element.device.raw) if element.device is not None else ""
    return Opened(name, port, Reception(time, quality, identity, key, counter, data))


def frames(holders: Iterable[Holder], frame: Frame) -> Iterator[tuple[Rule, Opened]]:
    """Yield the frames of an envelope with the first rule that finds any. Raises `Rejected` as the rules do."""
    for rule, wrap in holders:
        bound = bind(rule, wrap, rule.parse(frame), []) if rule.chains else None
        if bound is not None and bound.elements:
            yield from ((rule, opened(rule, element, frame.received)) for element in bound.elements)
            return
