"""GB/T 26875.3: a transmission device is identified by its source address only; the network must be trusted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from sensegate.frames import gbt26875
from sensegate.frames.gbt26875 import Gbt26875Frame
from sensegate.model import FrameOutcome, Framing, ReceivedFrame

_REPLIES: Final = {
    FrameOutcome.COMMITTED: gbt26875.CONFIRM,
    FrameOutcome.ALIVE: gbt26875.CONFIRM,
    FrameOutcome.CHECK_FAILED: gbt26875.REJECT,
}


class Gbt26875Session:
    """A connection; frames are confirmed, or rejected with a wrong checksum so that the device repeats them."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def find_frame(self, buffer: bytes) -> Framing:
        return gbt26875.next_frame(buffer)

    def parse(self, frame: bytes) -> ReceivedFrame:
        unit = gbt26875.parse(frame)
        return ReceivedFrame(
            name=gbt26875.format_address(unit.source),
            parsed=unit,
            centre=gbt26875.format_address(unit.target),
            is_stored=bool(unit.data) and unit.command in {gbt26875.SEND, gbt26875.RESPONSE},
            checksum_ok=unit.checksum_ok,
        )

    def build_reply(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:
        unit: Gbt26875Frame = frame.parsed
        reply = _REPLIES.get(outcome)
        if reply is None or unit.command != gbt26875.SEND:
            return b""
        return gbt26875.build_answer(unit, datetime.fromtimestamp(now / 1e6, UTC).astimezone(self._zone), reply)
