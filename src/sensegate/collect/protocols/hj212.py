"""HJ 212: a station is identified by MN and PW; it requests replies frame by frame."""

from __future__ import annotations

from typing import Final

from sensegate.frames import hj212
from sensegate.frames.hj212 import Convention, Hj212Packet, RejectionCode
from sensegate.model import FrameOutcome, Framing, ReceivedFrame

_REFUSALS: Final = {
    FrameOutcome.CHECK_FAILED: RejectionCode.CRC,
    FrameOutcome.UNKNOWN: RejectionCode.STATION,
    FrameOutcome.PASSWORD: RejectionCode.PASSWORD,
}
_ALIVE: Final = frozenset({hj212.HEARTBEAT, "9011", "9012", "9013", "9014"})
"""Heartbeats and replies to requests, which carry no data."""


class Hj212Session:
    """A connection, which several stations may share."""

    def find_frame(self, buffer: bytes) -> Framing:
        return hj212.next_frame(buffer)

    def parse(self, frame: bytes) -> ReceivedFrame:
        packet = hj212.parse(frame)
        return ReceivedFrame(
            name=packet.fields.get("MN", ""),
            parsed=packet,
            password=packet.fields.get("PW", ""),
            is_stored=packet.fields.get("CN") not in _ALIVE,
            # The checksum of encrypted content is verified when it is decoded with the key.
            checksum_ok=hj212.detect_convention(packet.data, packet.crc) is not None or packet.may_be_encrypted,
        )

    def build_reply(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:  # noqa: ARG002 - the reply carries the QN of the request
        packet: Hj212Packet = frame.parsed
        if not packet.expects_answer:
            return b""
        # A device that deviates in its checksum expects the same deviation in the reply.
        convention = hj212.detect_convention(packet.data, packet.crc) or Convention.ANSI
        return hj212.build_answer(packet, convention, _REFUSALS.get(outcome))
