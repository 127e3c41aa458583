"""SL 651: a station is identified by its address and password; frames also name the centre."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sensegate.frames import sl651
from sensegate.frames.framing import Framing
from sensegate.frames.sl651 import Sl651Report
from sensegate.model import FrameOutcome, ReceivedFrame


class Sl651Protocol:
    """Side of a connection. Reports are confirmed; `hang_up`: the confirmation allows the station to go offline."""

    def __init__(self, zone: ZoneInfo, *, hang_up: bool) -> None:
        self._zone = zone
        self._end = sl651.EOT if hang_up else sl651.ESC

    def next_frame(self, buffer: bytes) -> Framing:
        return sl651.next_frame(buffer)

    def parse(self, frame: bytes) -> ReceivedFrame:
        report = sl651.parse(frame)
        return ReceivedFrame(
            name=report.station,
            parsed=report,
            password=report.password,
            centre=f"{report.centre:02X}",
            is_logged=report.up and report.function != sl651.KEEP_ALIVE,
            is_intact=report.checksum_ok,
        )

    def respond(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:
        report: Sl651Report = frame.parsed
        if outcome is not FrameOutcome.COMMITTED or report.function not in sl651.REPORTS:
            return b""  # an unconfirmed report is sent again
        return sl651.build_confirmation(
            report, datetime.fromtimestamp(now / 1e6, UTC).astimezone(self._zone), self._end
        )
