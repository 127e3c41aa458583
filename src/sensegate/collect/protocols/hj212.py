"""HJ 212: a station is its MN, proved by PW; it asks for answers frame by frame."""

from __future__ import annotations

from typing import Final

from sensegate.frames import hj212
from sensegate.frames.framing import Framing
from sensegate.frames.hj212 import Convention, Hj212Packet, RejectionCode
from sensegate.model import FrameOutcome, ReceivedFrame

_REFUSALS: Final = {
    FrameOutcome.CHECK_FAILED: RejectionCode.CRC,
    FrameOutcome.UNKNOWN: RejectionCode.STATION,
    FrameOutcome.WRONG_PASSWORD: RejectionCode.PASSWORD,
}
_ALIVE: Final = frozenset({hj212.HEARTBEAT, "9011", "9012", "9013", "9014"})
"""Heartbeats, and a station's answers to requests: no data in them."""


class Hj212Talk:
    """One connection; several stations may share it, each frame names its own."""

    def cut(self, buffer: bytes) -> Framing:
        return hj212.next_frame(buffer)

    def hear(self, frame: bytes) -> ReceivedFrame:
        packet = hj212.parse(frame)
        return ReceivedFrame(
            name=packet.fields.get("MN", ""),
            parsed=packet,
            password=packet.fields.get("PW", ""),
            is_logged=packet.fields.get("CN") not in _ALIVE,
            # Of encrypted content only decoding, which has the key, can tell.
            is_intact=hj212.detect_convention(packet.data, packet.crc) is not None or packet.may_be_encrypted,
        )

    def answer(self, heard: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:  # noqa: ARG002 - it carries the QN of the request
        packet: Hj212Packet = heard.parsed
        if not packet.expects_answer:
            return b""
        # A device that reckons its check value in its own way expects ours to be made in the same.
        convention = hj212.detect_convention(packet.data, packet.crc) or Convention.ANSI
        return hj212.build_answer(packet, convention, _REFUSALS.get(outcome))
