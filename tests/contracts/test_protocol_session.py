"""Contract of `ports.ProtocolSession`: every registered protocol frames, parses and replies, for any bytes."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.collect.contract import ProtocolSession
from sensegate.collect.protocols import PROTOCOLS
from sensegate.config import TcpConfig
from sensegate.errors import Rejected
from sensegate.model import FrameOutcome, ReceivedFrame
from tests.frames.made import FRAMES

NOW = 1_767_225_600_000_000
OUTCOMES = sorted(FrameOutcome)


def session(name: str) -> ProtocolSession:
    """Return a new connection's side of a protocol, as `collect/tcp.py` opens it."""
    config = msgspec.convert({"protocol": name, "port": 1}, TcpConfig)
    return PROTOCOLS[name](config, ZoneInfo("Asia/Shanghai"))


def test_every_protocol_is_under_contract() -> None:
    """A protocol that is registered has frames here, by which it is tested."""
    assert sorted(PROTOCOLS) == sorted(FRAMES)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_frames_are_found_parsed_and_answered(name: str) -> None:
    """A frame is found after noise, names its sender, is intact, and each outcome gives a reply of bytes."""
    for sent in FRAMES[name][1]:
        protocol = session(name)
        framing = protocol.find_frame(b"\r\n" + sent)
        frame = (b"\r\n" + sent)[framing.skip : framing.skip + framing.length]
        assert frame.strip(b"\r\n") == sent.strip(b"\r\n")
        parsed = protocol.parse(frame)
        assert isinstance(parsed, ReceivedFrame)
        assert parsed.name
        assert parsed.checksum_ok
        for outcome in OUTCOMES:
            assert isinstance(protocol.build_reply(parsed, outcome, NOW), bytes)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_an_unknown_device_learns_nothing(name: str) -> None:
    """What is committed is never told as to an unknown device: the replies differ, or there is none for it."""
    for sent in FRAMES[name][1]:
        committed, unknown = (session(name) for _ in range(2))
        good = committed.build_reply(committed.parse(sent), FrameOutcome.COMMITTED, NOW)
        bad = unknown.build_reply(unknown.parse(sent), FrameOutcome.UNKNOWN, NOW)
        assert not good or good != bad


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
@given(data=st.data())
def test_any_bytes_are_framed_or_skipped(name: str, data: st.DataObject) -> None:
    """Whatever a device sends: framing stays within the buffer, and parsing gives a frame or `Rejected`."""
    known = data.draw(st.sampled_from(FRAMES[name][1]))
    at = data.draw(st.integers(0, len(known) - 1))
    buffer = known[:at] + bytes([data.draw(st.integers(0, 255))]) + known[at + 1 :]
    protocol = session(name)
    framing = protocol.find_frame(buffer)
    assert framing.skip >= 0
    assert framing.skip + framing.length <= len(buffer)
    if not framing.length:
        return
    try:
        parsed = protocol.parse(buffer[framing.skip : framing.skip + framing.length])
    except Rejected:
        return
    assert isinstance(protocol.build_reply(parsed, FrameOutcome.CHECK_FAILED, NOW), bytes)
