"""Open a carrier's envelope: the frame in it, its reception, and the rules that decode it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sensegate.decode.envelope import port_of
from sensegate.decode.extract import Element, bind
from sensegate.decode.frame import PayloadFrame
from sensegate.decode.identity import Reception, identify, is_stable
from sensegate.decode.plan_cache import WrappedRule
from sensegate.decode.profile import NONE, CompiledRule
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.quantities.quality import TimeQuality


class FrameRejected(Rejected):
    """The frame in an envelope cannot be decoded, whatever else the message holds."""

    def __init__(self, rejection: Rejected, device: int) -> None:
        super().__init__(rejection.reason, rejection.detail)
        self.device = device
        """Index of the frame's device, -1 if unknown."""


class OpenedFrame(NamedTuple):
    """A frame taken out of its envelope."""

    name: str
    """The device's name in the envelope; empty: the topic names it."""
    port: int | None
    reception: Reception

    @property
    def data(self) -> bytes:
        """The bytes that the device sent."""
        return self.reception.data


class CarriedRoute(NamedTuple):
    """The route of a frame (`extract.RouteInfo`): its device is the source, and the gateway of devices behind it."""

    text: str
    path: int
    device: int
    gateway: int


def open_frame(rule: CompiledRule, element: Element, received: int) -> OpenedFrame:
    """Return the frame in an element of an envelope. Raises `Rejected` if its bytes or its port cannot be read."""
    if rule.payload is None or element.frame is None:
        raise Rejected(QuarantineReason.SCHEMA, "the envelope holds no frame")
    data = rule.payload.bytes_of(element.frame.raw)
    port = None
    if element.port is not None:
        port = port_of(element.port.raw)
        if port is None:
            raise Rejected(QuarantineReason.SCHEMA, "the frame's port is not a port number")
    time, quality, stable_time = received, int(TimeQuality.RECEIVED), None
    if element.time is not None:
        time, quality = rule.reader.parse(element.time.raw, received)
        if time != BAD and is_stable(rule, quality):
            stable_time = time
    counter = element.sequence.raw if element.sequence else None
    message_id = element.message_id.raw if element.message_id else None
    identity, key = identify(rule, stable_time, counter, message_id, data) if rule.identity else (NONE, None)
    name = str(element.device.raw) if element.device is not None else ""
    return OpenedFrame(name, port, Reception(time, quality, identity, key, counter, data))


def open_frames(holders: Iterable[WrappedRule], frame: PayloadFrame) -> Iterator[tuple[CompiledRule, OpenedFrame]]:
    """Yield the frames of an envelope by the first rule that finds any. Raises `Rejected` as the rules do."""
    for rule, wrap in holders:
        bound = bind(rule, wrap, rule.parse(frame), []) if rule.chains else None
        if bound is not None and bound.elements:
            yield from ((rule, open_frame(rule, element, frame.received)) for element in bound.elements)
            return
