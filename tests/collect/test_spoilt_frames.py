"""Frames with right check values and anything in them, on a connection: taken, answered or refused, nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sensegate.collect.protocols.gbt26875 import Gbt26875Session
from sensegate.collect.protocols.hj212 import Hj212Session
from sensegate.collect.protocols.jtt808 import Jtt808Session
from sensegate.collect.protocols.sl651 import Sl651Session
from sensegate.errors import Rejected
from sensegate.frames import jtt808
from sensegate.model import FrameOutcome
from tests.frames import made
from tests.frames.made import FRAMES
from tests.spoil import UNWRITABLE, in_frame

EACH = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 41
ZONE = ZoneInfo("Asia/Shanghai")
TALKS: dict[str, Callable[[], Any]] = {
    "hj212": Hj212Session,
    "sl651": lambda: Sl651Session(ZONE, allow_offline=True),
    "gbt26875": lambda: Gbt26875Session(ZONE),
    "jtt808": lambda: Jtt808Session(accept_any=True),
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
@pytest.mark.parametrize("name", sorted(TALKS))
def test_any_frame_is_answered_or_refused(name: str) -> None:
    talk = TALKS[name]()
    heard_of = 0
    for frame in [*FRAMES[name][1], *MORE.get(name, [])]:
        for fault, make in islice(in_frame(frame), 0, None, EACH):
            try:
                payload = make()
            except UNWRITABLE:
                continue
            talk.find_frame(payload)
            try:
                heard = talk.parse(payload)
            except Rejected:
                continue
            heard_of += 1
            for outcome in FrameOutcome:
                answer = talk.build_reply(heard, outcome, NOW)
                assert isinstance(answer, bytes), fault
                result = talk.find_frame(answer)
                assert not answer or name == "sl651" or result.length, f"{fault}: an answer that is no frame"
    assert heard_of
