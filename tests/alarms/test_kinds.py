"""Every kind of alarm through the engine: opened and closed once, wherever the process dies in between."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sensegate.alarms import probes
from sensegate.alarms.records import AlarmState
from sensegate.alarms.rules import AlarmKind, AlarmRule
from sensegate.clock import HOUR_US
from sensegate.model import Device, QualityRow
from tests.alarms.made import OPERATOR, Gateway, Process, process

Act = Callable[[Gateway], Awaitable[None]]


class Case(msgspec.Struct, frozen=True):
    """A rule of one kind, what violates it, and what ends the violation."""

    rule: AlarmRule
    steps: tuple[Act, ...]
    """In their order: normal, violated, normal again."""
    events: tuple[str, ...] = ("opened", "closed")


def rule_of(kind: AlarmKind, **more: object) -> AlarmRule:
    """Return an operator's rule, so that the gateway's own one of the kind does not apply."""
    place = {"division": "4401"}
    return msgspec.convert({"name": "rule", "kind": kind, "place": place, **more}, AlarmRule, strict=False)


def value(number: float | str, name: str = "pm2_5") -> Act:
    """Return the step that commits a reading."""

    async def act(gateway: Gateway) -> None:
        await gateway.commit(number, name=name)

    return act


def wait(seconds: float) -> Act:
    """Return the step that lets time pass."""

    async def act(gateway: Gateway) -> None:
        await gateway.clock.advance(seconds)

    return act


def probe(name: str, number: float) -> Act:
    """Return the step that sets a number of the gateway, and waits for it to be looked at."""

    async def act(gateway: Gateway) -> None:
        setattr(gateway, name, number)
        await gateway.clock.advance(10)

    return act


def messages(decoded: int, quarantined: int) -> Act:
    """Return the step in which messages arrive."""

    async def act(gateway: Gateway) -> None:
        await gateway.clock.advance(probes.WINDOW_S / 3)
        gateway.totals = {
            "messages": gateway.totals.get("messages", 0) + decoded + quarantined,
            "quarantined.schema": gateway.totals.get("quarantined.schema", 0) + quarantined,
        }

    return act


def completeness(share: float) -> Act:
    """Return the step to the next hour, with the indicator of the one before."""

    async def act(gateway: Gateway) -> None:
        await gateway.clock.advance(3_600)
        hour = gateway.clock.now() // HOUR_US * HOUR_US - HOUR_US
        gateway.quality = [QualityRow("d1", hour, 1, None, None, None, share)]

    return act


async def speak(gateway: Gateway) -> None:
    """Let the device speak."""
    gateway.devices.observe(np.array([0], np.int32), np.array([gateway.clock.now()], np.int64))


CASES = {
    AlarmKind.THRESHOLD: Case(
        rule_of(AlarmKind.THRESHOLD, property="pm2_5", above=75.0, margin=5.0),
        (value(10), value(80), value(72), value(60)),
    ),
    AlarmKind.CHANGE: Case(
        rule_of(AlarmKind.CHANGE, property="pm2_5", by=50.0), (value(10), value(90), value(95), value(96))
    ),
    AlarmKind.GAP: Case(
        rule_of(AlarmKind.GAP, property="pm2_5", after_s=300.0), (value(10), value(11), wait(900), value(12), value(13))
    ),
    AlarmKind.SILENCE: Case(rule_of(AlarmKind.SILENCE, after_s=600.0), (speak, wait(700), wait(700), speak)),
    AlarmKind.QUALITY: Case(
        rule_of(AlarmKind.QUALITY, indicator="completeness", below=0.8),
        (completeness(0.9), completeness(0.5), completeness(0.4), completeness(0.95)),
    ),
    AlarmKind.QUARANTINE_RATE: Case(
        rule_of(AlarmKind.QUARANTINE_RATE, above=0.2),
        (messages(100, 1), messages(50, 250), messages(40, 60), messages(9_000, 0)),
    ),
    AlarmKind.LAG: Case(
        rule_of(AlarmKind.LAG, above=1_000.0), tuple(probe("lag", lag) for lag in (0, 5_000, 9_000, 10))
    ),
    AlarmKind.DISK: Case(
        rule_of(AlarmKind.DISK, below=0.05, margin=0.02), tuple(probe("free", free) for free in (0.5, 0.04, 0.06, 0.4))
    ),
    AlarmKind.REFUSED_SPANS: Case(
        rule_of(AlarmKind.REFUSED_SPANS, above=0.0), tuple(probe("refused", count) for count in (0, 2, 3, 0))
    ),
    AlarmKind.STORE_MISSING: Case(
        rule_of(AlarmKind.STORE_MISSING, above=0.0), tuple(probe("store_problems", count) for count in (0, 1, 1, 0))
    ),
}


def test_there_is_a_case_for_every_kind() -> None:
    """A kind that is added needs a case here."""
    assert set(CASES) == set(AlarmKind)


async def registered(rule: AlarmRule) -> Gateway:
    """Return a gateway with the rule and a device."""
    gateway = Gateway()
    await gateway.devices.add(Device("d1", "440106", "acme/th10", interval_s=60), by=OPERATOR)
    async with process(gateway) as running:
        await running.rules.put(rule, revision=0, by=OPERATOR)
        await running.step()
    return gateway


async def judged(running: Process, gateway: Gateway) -> None:
    """Judge what is on the log, and the conditions of time."""
    await running.step()
    await gateway.clock.advance(10)
    await running.step()


@pytest.mark.parametrize("kill_after", [None, 1, 2, 3])
@pytest.mark.parametrize("kind", list(AlarmKind))
async def test_each_kind_opens_and_closes_once(kind: AlarmKind, kill_after: int | None) -> None:
    """Also where the process is killed after any step: the next one goes on from the states on the log."""
    case = CASES[kind]
    gateway = await registered(case.rule)
    stack = contextlib.AsyncExitStack()
    running = await stack.enter_async_context(process(gateway))
    await judged(running, gateway)
    for number, step in enumerate(case.steps):
        if number == kill_after:
            await stack.aclose()
            running = await stack.enter_async_context(process(gateway))
            await judged(running, gateway)
        await step(gateway)
        await judged(running, gateway)
    events = [(event, rule) for event, rule, _ in gateway.events()]
    assert events == [(event, "rule") for event in case.events]
    (alarm,) = running.operations.list(OPERATOR)
    assert (alarm.kind, alarm.state) == (kind, AlarmState.CLOSED)
    await stack.aclose()


@pytest.mark.parametrize("kind", list(AlarmKind))
async def test_normal_values_open_nothing(kind: AlarmKind) -> None:
    """Control: it is the violation that opens the alarm."""
    case = CASES[kind]
    gateway = await registered(case.rule)
    async with process(gateway) as running:
        for _ in range(3):
            await case.steps[0](gateway)
            await judged(running, gateway)
    assert gateway.events() == []


def test_a_disk_that_cannot_be_read_has_no_value(tmp_path: Path) -> None:
    """The rule of free space then judges nothing; an error would end the gateway."""
    assert 0 <= (probes.free_share(tmp_path) or 0.0) <= 1
    assert probes.free_share(tmp_path / "gone") is None
