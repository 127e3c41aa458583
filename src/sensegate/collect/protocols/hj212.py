"""HJ 212: a station is identified by its MN and the password PW; each frame may request a response."""

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
"""Command numbers without data: heartbeats, and responses of a station to requests."""


class Hj212Protocol:
    """Side of a connection; several stations may share it, each frame names its station."""

    def next_frame(self, buffer: bytes) -> Framing:
        return hj212.next_frame(buffer)

    def parse(self, frame: bytes) -> ReceivedFrame:
        packet = hj212.parse(frame)
        return ReceivedFrame(
            name=packet.fields.get("MN", ""),
            parsed=packet,
            password=packet.fields.get("PW", ""),
            is_logged=packet.fields.get("CN") not in _ALIVE,
            # Encrypted content can only be checked by decoding, which has the key.
            is_intact=hj212.detect_convention(packet.data, packet.crc) is not None or packet.may_be_encrypted,
        )

    def respond(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:  # noqa: ARG002 - it carries the QN of the request
        packet: Hj212Packet = frame.parsed
        if not packet.expects_answer:
            return b""
        # A device that computes its check value by a variant expects the same variant in the response.
        convention = hj212.detect_convention(packet.data, packet.crc) or Convention.ANSI
        return hj212.build_answer(packet, convention, _REFUSALS.get(outcome))
