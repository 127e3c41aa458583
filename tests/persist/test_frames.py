"""Radio frames: one heard by two networks is one reading; a counter that starts again is a new life, never a repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensegate.decode.envelope import frame_key
from sensegate.persist import conflicts
from sensegate.persist.identity import COUNTER_EPOCH_US, VERDICTS
from sensegate.persist.identity import FRAME as KIND
from sensegate.quantities.quality import Flag
from tests.persist.rig import FRAME, NOW, Rig, Row, Sent

SECOND, MINUTE = 1_000_000, 60_000_000
FIRST, OTHER = 1, 2
"""Ways of two networks."""


class Air:
    """What networks hand on, and what becomes of it; the process may be started anew at any time."""

    def __init__(self, directory: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self.rig = Rig(directory)
        self._loop.run_until_complete(self.rig.open())
        self._messages = 0

    def heard(
        self, path: int, at: int, *, counter: int = 0, value: float = 21.5, data: bytes = b"\xd7", resent: bytes = b""
    ) -> str:
        """Return the verdict on a frame that a network heard at `at` (from NOW); `again`: the very message, again."""
        self._messages += 1
        row = Row(FRAME, value, NOW + at, frame_key(counter, data, 0))
        sent = Sent((row,), resent or str(self._messages).encode(), path, NOW + at)
        judgement = self._loop.run_until_complete(self.rig.commit([sent])).results[0]
        conflict = bool(judgement.flags[0] & int(Flag.CONFLICT))
        return f"{VERDICTS[judgement.kind[0]]}, conflict" if conflict else str(VERDICTS[judgement.kind[0]])

    def restart(self) -> None:
        """Kill the process; on disk and in the log is what it knows then."""
        self.rig.clock._now += 31 * SECOND
        self.heard(9, 0, counter=999)
        self.rig.duplicates.wait_idle()
        self._loop.run_until_complete(self.rig.restart())

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def air(tmp_path: Path) -> Iterator[Air]:
    """Two networks and a device."""
    made = Air(tmp_path)
    yield made
    made.close()


def test_one_frame_by_two_networks_is_one_reading(air: Air) -> None:
    """Whichever is first, whatever their clocks differ by, and again after a restart."""
    assert air.heard(FIRST, 0, counter=5) == "accepted"
    assert air.heard(OTHER, 900_000, counter=5) == "cross_path"
    assert air.heard(OTHER, 20 * MINUTE, counter=6) == "accepted"
    assert air.heard(FIRST, 20 * MINUTE - 3 * SECOND, counter=6) == "cross_path"
    air.restart()
    assert air.heard(OTHER, 5 * MINUTE, counter=5) == "cross_path"  # a retry, heard by the other only


def test_one_message_twice_is_a_redelivery(air: Air) -> None:
    """Byte for byte the same, by the same way; also where the server gave no time and the arrivals differ."""
    assert air.heard(FIRST, 0, resent=b"m") == "accepted"
    assert air.heard(FIRST, 0, resent=b"m") == "redelivery"
    assert air.heard(FIRST, 30 * SECOND, resent=b"m") == "redelivery"


def test_one_frame_handed_on_twice_is_a_repeat(air: Air) -> None:
    """In other bytes with the same time: a server that tells of the frame and then of all its gateways."""
    assert air.heard(FIRST, 0) == "accepted"
    assert air.heard(FIRST, 0) == "repeat"


@pytest.mark.parametrize("gap", [10 * SECOND, 9 * MINUTE, 30 * MINUTE, 61 * MINUTE, 5 * 60 * MINUTE])
@pytest.mark.parametrize("anew", [False, True])
def test_a_counter_that_starts_again_is_never_a_repeat(air: Air, gap: int, anew: bool) -> None:  # noqa: FBT001
    """The same counter and the same bytes, by the same network at another time: another life, and no conflict."""
    assert [air.heard(FIRST, at * MINUTE, counter=at) for at in range(3)] == ["accepted"] * 3
    if anew:
        air.restart()
    assert [air.heard(FIRST, 2 * MINUTE + gap + at * MINUTE, counter=at) for at in range(3)] == ["accepted"] * 3


def test_second_life_heard_by_both_networks(air: Air) -> None:
    """Each of its frames counts once; a copy that comes first is lost to the first life, its twin is not."""
    assert air.heard(FIRST, 0) == "accepted"
    assert air.heard(OTHER, 1 * SECOND) == "cross_path"
    assert air.heard(FIRST, 3 * MINUTE) == "accepted"  # joined anew
    assert air.heard(OTHER, 3 * MINUTE + 1 * SECOND) == "cross_path"
    assert air.heard(OTHER, 6 * MINUTE) == "cross_path"  # joined again, the copy is first: taken for the one before
    assert air.heard(FIRST, 6 * MINUTE - 1 * SECOND) == "accepted"
    assert air.heard(OTHER, 60 * MINUTE) == "accepted"  # and much later: no network's copy of anything


def test_other_bytes_are_another_frame(air: Air) -> None:
    """A counter that starts again with other values conflicts with nothing; one frame read two ways does."""
    assert air.heard(FIRST, 0, data=b"\xd7") == "accepted"
    assert air.heard(FIRST, 20 * SECOND, data=b"\xd8", value=21.6) == "accepted"
    assert air.heard(FIRST, 0, data=b"\xd7", value=215.0) == "accepted, conflict"  # decoded again by a repaired profile


def test_control_a_plain_counter_would_swallow_the_second_life(air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: judged like any sequence number, a device that joined anew loses its readings."""
    monkeypatch.setitem(conflicts._SAME_EPOCH, KIND, conflicts._same_counter)
    monkeypatch.setattr(conflicts, "_same_frames", lambda _print, _path, apart: apart <= COUNTER_EPOCH_US)
    assert air.heard(FIRST, 0) == "accepted"
    assert air.heard(FIRST, 3 * MINUTE) == "repeat"


def test_control_one_network_alone_would_double(air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: judged by the time alone, two networks' receptions are two readings."""
    monkeypatch.setitem(conflicts._SAME_EPOCH, KIND, lambda kept, this: kept.time == this.time)
    monkeypatch.setattr(conflicts, "_same_frames", lambda _print, _path, apart: apart == 0)
    assert air.heard(FIRST, 0) == "accepted"
    assert air.heard(OTHER, 1 * SECOND) == "accepted"
