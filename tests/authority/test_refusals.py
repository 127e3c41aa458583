"""Refusals are counted per device; an alarm tells that they began, not each one."""

from __future__ import annotations

import pytest
import structlog
from structlog.testing import capture_logs

from sensegate.authority import refusals as refusals_module
from sensegate.authority.refusals import DEVICES_MAX, DeniedOperation, LastRefusal, Refusals
from sensegate.bus.server_log import mask_name
from sensegate.clock import FakeClock


async def test_one_alarm_a_minute_that_counts_the_rest(clock: FakeClock) -> None:
    """The first raises an alarm at once; the next alarm tells how many there were since."""
    refusals = Refusals(clock)
    for _ in range(5):
        refusals.add("a", DeniedOperation.PUBLISH, "sg.b.up", address="127.0.0.1:1")
    refusals.add("a", DeniedOperation.SUBSCRIBE, "sg.b.down")
    assert [(alarm.operation, alarm.count) for alarm in refusals.alarms] == [
        (DeniedOperation.PUBLISH, 1),
        (DeniedOperation.SUBSCRIBE, 1),
    ]
    await clock.advance(60)
    refusals.add("a", DeniedOperation.PUBLISH, "sg.c.up")
    assert (refusals.alarms[-1].count, refusals.alarms[-1].detail) == (5, "sg.c.up")
    assert refusals.of("a") == {DeniedOperation.PUBLISH: 6, DeniedOperation.SUBSCRIBE: 1}
    assert refusals.of("b") == {}
    assert refusals.totals[DeniedOperation.PUBLISH] == 6


async def test_the_latest_is_known(clock: FakeClock) -> None:
    """With its time, its reason and how many of its kind there were; between alarms too."""
    refusals = Refusals(clock)
    assert refusals.last_of("a") is None
    refusals.add("a", DeniedOperation.PUBLISH, "sg.b.up", address="192.0.2.1", count=3)
    await clock.advance(5)
    refusals.add("a", DeniedOperation.CONNECT, "wrong password", address="192.0.2.7")
    await clock.advance(5)
    refusals.add("a", DeniedOperation.CONNECT, "the device is disabled or retired", address="192.0.2.8")
    last = LastRefusal(clock.now(), DeniedOperation.CONNECT, "the device is disabled or retired", "192.0.2.8", 2)
    assert refusals.last_of("a") == last
    assert len(refusals.alarms) == 2, "the last one was none"


async def test_strangers_cannot_fill_the_memory(clock: FakeClock) -> None:
    """Names and alarms are bounded; the sum stays exact."""
    refusals = Refusals(clock)
    for number in range(DEVICES_MAX + 500):
        refusals.add(f"stranger-{number}" + "x" * 500, DeniedOperation.CONNECT, "no such device" * 100)
    assert len(refusals.by_device()) == DEVICES_MAX
    assert refusals.totals[DeniedOperation.CONNECT] == DEVICES_MAX + 500
    assert len(refusals.alarms) == 1_000
    assert all(len(alarm.device) <= 128 and len(alarm.detail) <= 256 for alarm in refusals.alarms)


async def test_an_alarm_is_told(clock: FakeClock) -> None:
    """Listeners hear of it at once."""
    refusals = Refusals(clock)
    heard: list[str] = []
    refusals.on_alarm.append(lambda alarm: heard.append(alarm.device))
    refusals.add("a", DeniedOperation.CONNECT, "wrong password")
    refusals.add("a", DeniedOperation.CONNECT, "wrong password")
    assert heard == ["a"]


async def test_the_log_names_only_who_has_proved_its_name(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user name of a failed connect may be a password in the wrong field; that of a denied publish is proved."""
    structlog.reset_defaults()  # a gateway of another test may have set a level
    monkeypatch.setattr(refusals_module, "_log", structlog.get_logger("authority"))
    refusals = Refusals(clock)
    with capture_logs() as lines:
        refusals.add("13800138000", DeniedOperation.CONNECT, "no such device", address="192.0.2.1")
        refusals.add("air-1", DeniedOperation.PUBLISH, "sg.b.up")
    assert lines[0]["device"] == mask_name("13800138000")
    assert "13800138000" not in str(lines)
    assert lines[0]["address"] == "192.0.2.1"
    assert lines[1]["device"] == "air-1"
