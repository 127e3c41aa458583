"""GB/T 26875.3: a device is identified by its source address, without a password."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from sensegate.frames import gbt26875
from sensegate.frames.framing import Framing
from sensegate.frames.gbt26875 import Gbt26875Frame
from sensegate.model import FrameOutcome, ReceivedFrame

_RESPONSES: Final = {
    FrameOutcome.COMMITTED: gbt26875.CONFIRM,
    FrameOutcome.NOT_LOGGED: gbt26875.CONFIRM,
    FrameOutcome.CHECK_FAILED: gbt26875.REJECT,
}


class Gbt26875Protocol:
    """Side of a connection. Frames are confirmed, or rejected if the checksum is wrong, so that they are sent again."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def next_frame(self, buffer: bytes) -> Framing:
        return gbt26875.next_frame(buffer)

    def parse(self, frame: bytes) -> ReceivedFrame:
        unit = gbt26875.parse(frame)
        return ReceivedFrame(
            name=gbt26875.format_address(unit.source),
            parsed=unit,
            centre=gbt26875.format_address(unit.target),
            is_logged=bool(unit.data) and unit.command in {gbt26875.SEND, gbt26875.RESPONSE},
            is_intact=unit.checksum_ok,
        )

    def respond(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:
        unit: Gbt26875Frame = frame.parsed
        command = _RESPONSES.get(outcome)
        if command is None or unit.command != gbt26875.SEND:
            return b""
        return gbt26875.build_answer(unit, datetime.fromtimestamp(now / 1e6, UTC).astimezone(self._zone), command)
