"""SL 651: a station is identified by address and password; the centre has an address, too."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sensegate.frames import sl651
from sensegate.frames.sl651 import Sl651Report
from sensegate.model import FrameOutcome, Framing, ReceivedFrame


class Sl651Session:
    """A connection. Reports are confirmed; `hang_up`: the confirmation lets the station go off line."""

    def __init__(self, zone: ZoneInfo, *, allow_offline: bool) -> None:
        self._zone = zone
        self._end = sl651.EOT if allow_offline else sl651.ESC

    def find_frame(self, buffer: bytes) -> Framing:
        return sl651.next_frame(buffer)

    def parse(self, frame: bytes) -> ReceivedFrame:
        report = sl651.parse(frame)
        return ReceivedFrame(
            name=report.station,
            parsed=report,
            password=report.password,
            centre=f"{report.centre:02X}",
            is_stored=report.up and report.function != sl651.KEEP_ALIVE,
            checksum_ok=report.checksum_ok,
        )

    def build_reply(self, frame: ReceivedFrame, outcome: FrameOutcome, now: int) -> bytes:
        report: Sl651Report = frame.parsed
        if outcome is not FrameOutcome.COMMITTED or report.function not in sl651.REPORTS:
            return b""  # the station repeats an unconfirmed report
        return sl651.build_confirmation(
            report, datetime.fromtimestamp(now / 1e6, UTC).astimezone(self._zone), self._end
        )
