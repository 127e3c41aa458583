"""Frames with right check values and anything in them, on a connection: taken, answered or refused, nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sensegate.collect.protocols.gbt26875 import Gbt26875Protocol
from sensegate.collect.protocols.hj212 import Hj212Protocol
from sensegate.collect.protocols.jtt808 import Jtt808Protocol
from sensegate.collect.protocols.sl651 import Sl651Protocol
from sensegate.errors import Rejected
from sensegate.frames import jtt808
from sensegate.model import FrameOutcome
from tests.frames import made
from tests.frames.test_cutting import FRAMES
from tests.spoil import UNWRITABLE, in_frame

EACH = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 41
ZONE = ZoneInfo("Asia/Shanghai")
PROTOCOLS: dict[str, Callable[[], Any]] = {
    "hj212": Hj212Protocol,
    "sl651": lambda: Sl651Protocol(ZONE, hang_up=True),
    "gbt26875": lambda: Gbt26875Protocol(ZONE),
    "jtt808": lambda: Jtt808Protocol(open_registration=True),
}
MORE = {
    "jtt808": [
        made.vehicle(bytes(25) + b"plate", message=jtt808.REGISTER),
        made.vehicle(b"013800138000", message=jtt808.AUTHENTICATE),
        made.vehicle(b"\x04code" + bytes(35), message=jtt808.AUTHENTICATE, phone="00000000013800138000"),
        made.vehicle(b"\x00\x02\x00" + (b"\x00\x1c" + made.position()) * 2, message=jtt808.LOCATIONS),
    ],
}
NOW = 1_767_225_600_000_000


@pytest.mark.fuzz
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_any_frame_is_answered_or_refused(name: str) -> None:
    protocol = PROTOCOLS[name]()
    parsed_count = 0
    for frame in [*FRAMES[name][1], *MORE.get(name, [])]:
        for what, make in islice(in_frame(frame), 0, None, EACH):
            try:
                payload = make()
            except UNWRITABLE:
                continue
            protocol.next_frame(payload)
            try:
                parsed = protocol.parse(payload)
            except Rejected:
                continue
            parsed_count += 1
            for outcome in FrameOutcome:
                answer = protocol.respond(parsed, outcome, NOW)
                assert isinstance(answer, bytes), what
                found = protocol.next_frame(answer)
                assert not answer or name == "sl651" or found.length, f"{what}: an answer that is no frame"
    assert parsed_count
