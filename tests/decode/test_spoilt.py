"""The examples of all profiles, spoilt in each place: readings or a clear refusal, never anything else, never slowly.

`make test` tries a part of the changes, `make fuzz` all of them; what is found is told with the message, all at once.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices, message_of, payload_of
from sensegate.authoring.explain import explain
from sensegate.authoring.learn.learn import learn
from sensegate.authoring.learn.shapes import Sample
from sensegate.authoring.learn.write import draft
from sensegate.authoring.stubs import carrier_payload
from sensegate.clock import FakeClock
from sensegate.config import IngestConfig
from sensegate.decode import Decoder
from sensegate.decode.grammar import Example
from sensegate.decode.profile import CompiledProfile
from sensegate.model import Fields, Message
from sensegate.normalise.clocks import REPRESENTABLE
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.identity import value_bits
from sensegate.quantities.series import SeriesIndex
from tests.decode.decoding import same
from tests.spoil import SIZE, UNWRITABLE, Make, spoilt, swollen
from tests.support.profiles import library
from tests.video.canary import MARKS

WHOLE = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
PROFILES = library()
EACH = 1 if WHOLE else 61
"""Every so-manieth change is tried; those of `make test` are always the same."""
CHUNK = 400
SLOW_S = 2.0
"""Of the process's own time for one message: ten times what the dearest needs, and what grows with the square more."""
NOBODYS = (MARKS["plate"], MARKS["name"])
LIMITS = IngestConfig(rate_per_device_s=1e6)


class Case(NamedTuple):
    """One example of one profile."""

    profile: CompiledProfile
    example: Example
    at: int

    @property
    def video(self) -> bool:
        """Whether what it says may be of people."""
        return any(rule.video for rule in self.profile.rules)

    @property
    def planned(self) -> bool:
        """Whether both paths must give the same: nothing that is remembered of a message changes the next one."""
        return all(rule.format == "json" for rule in self.profile.rules)

    def message(self, payload: bytes) -> Message:
        """Return the example's message with another payload."""
        if not self.example.topic:
            payload = carrier_payload(payload, self.example.port)
        return msgspec.structs.replace(message_of(self.example), payload=payload)

    def decoder(self) -> Decoder:
        """Return a decoder that knows the example's devices."""
        devices = NamedDevices(self.example.devices, self.profile.id, gateway=self.example.gateway)
        return Decoder(PROFILES, devices, LIMITS)


CASES = [
    Case(profile, example, index)
    for name in PROFILES.ids
    if (profile := PROFILES.find(name)) is not None
    for index, example in enumerate(profile.source.examples)
]


def name_of(case: Case) -> str:
    return f"{case.profile.id}-{case.at}"


@lru_cache(8)
def normaliser(received: int) -> Normaliser:
    return Normaliser(PROFILES.specs, series=SeriesIndex(), clock=FakeClock(received + 1_000_000))


def check(case: Case, machine: Decoder, messages: Sequence[Message]) -> None:
    """Take messages through the decoder and the normaliser; all of them must be accounted for."""
    start = time.process_time()
    fields = machine.decode(messages)
    accounted(case, fields)
    received = np.array([message.received for message in messages], np.int64)
    readings, lost = normaliser(messages[0].received).normalise(fields, received)
    assert len(readings) + len(lost) == len(fields)
    assert np.isfinite(readings.value[[row for row in range(len(readings)) if row not in readings.text]]).all()
    if len(readings):
        value_bits(readings.value, readings.text)  # texts can be written
        assert REPRESENTABLE[0] <= readings.time.min() <= readings.time.max() <= REPRESENTABLE[1]
    assert time.process_time() - start < SLOW_S * (1 + len(messages) / 50), "slow"
    if case.planned:
        same(fields, machine.decode_row_by_row(messages))


def accounted(case: Case, fields: Fields) -> None:
    """What is in quarantine became nothing else, and once; nothing is told of anybody."""
    rejected, downsampled = (
        (value.message for value in fields.rejected),
        (downsampled.message for downsampled in fields.downsampled),
    )
    named = {*fields.message.tolist(), *rejected, *downsampled}
    refused = [refusal.message for refusal in fields.quarantined]
    assert not named.intersection(refused)
    assert len(set(refused)) == len(refused)
    assert fields.device.min(initial=0) >= 0
    if case.video:
        details = [refusal.detail for refusal in fields.quarantined] + [
            f"{value.field} {value.detail}" for value in fields.rejected
        ]
        for text in (*details, *fields.text.values()):
            assert not any(mark in text for mark in NOBODYS), f"personal data: {text[:200]}"


def findings(case: Case, changes: Iterator[tuple[str, Make]], chunk: int = CHUNK) -> list[str]:
    """Return what went wrong, one message of each kind."""
    findings: dict[str, str] = {}
    machine = case.decoder()
    good = case.message(payload_of(case.example))
    machine.decode([good] * 60)
    while made := list(islice(changes, chunk)):
        messages: list[tuple[str, Message]] = []
        for fault, make in made:
            try:
                messages.append((fault, case.message(make())))
            except UNWRITABLE:
                continue
        batch = [message for _, message in messages]
        if not batch or wrong(case, machine, [good] * 20 + batch) is None:
            continue
        for fault, message in messages:
            why = wrong(case, machine, [good] * 40 + [message] * 6) or wrong(case, case.decoder(), [message])
            if why is not None:
                findings.setdefault(
                    why, f"{name_of(case)}: {fault}: {why}\n    {message.topic} {message.payload[:600]!r}"
                )
        if not findings:
            findings["batch"] = f"{name_of(case)}: a batch with {messages[0][0]} … {messages[-1][0]}"
    return list(findings.values())


def wrong(case: Case, machine: Decoder, messages: Sequence[Message]) -> str | None:
    """Return what went wrong with messages, by its place in our code; None: nothing did."""
    try:
        check(case, machine, messages)
    except Exception as error:  # noqa: BLE001 - any is a finding
        return place_of(error)
    return None


def place_of(why: Exception) -> str:
    frames = traceback.extract_tb(why.__traceback__)
    place = next((frame for frame in reversed(frames) if "/sensegate/" in frame.filename), frames[-1])
    return f"{type(why).__name__}: {str(why)[:200]} in {Path(place.filename).name}:{place.lineno}"


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("case", CASES if WHOLE else CASES[::3], ids=name_of)
def test_no_change_of_an_example_breaks_anything(case: Case) -> None:
    """Each odd value in each place, each shape, each name: decoded by both paths, normalised, accounted for."""
    start = 0 if WHOLE else CASES.index(case) % EACH
    problems = findings(case, islice(spoilt(payload_of(case.example)), start, None, EACH))
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("case", CASES if WHOLE else CASES[::29], ids=name_of)
def test_no_large_message_takes_long(case: Case) -> None:
    """What is as large as a message may be, in each place: no time that grows faster than its size."""
    problems = findings(case, islice(swollen(payload_of(case.example)), 0, None, 1 if WHOLE else 29), chunk=1)
    assert not problems, "\n".join(problems)


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_several_changes_at_once(data: st.DataObject) -> None:
    """Changes of what is changed already."""
    case = data.draw(st.sampled_from(CASES))
    payload, outcomes = payload_of(case.example), []
    for _ in range(data.draw(st.integers(1, 4))):
        changes = list(islice(spoilt(payload), 20_000))
        if not changes:
            break
        result, make = changes[data.draw(st.integers(0, len(changes) - 1))]
        try:
            payload = make()
        except UNWRITABLE:
            continue
        outcomes.append(result)
    message = case.message(payload)
    assert wrong(case, case.decoder(), [message] * 3) is None, (outcomes, payload)


def unlearned(messages: Sequence[Message]) -> str | None:
    """Return what went wrong where a draft is made of messages; None: nothing did."""
    start = time.process_time()
    try:
        learned = learn([Sample(message.topic, message.payload, message.received) for message in messages])
        assert draft(learned, "acme/x").text
        assert time.process_time() - start < SLOW_S * 2, "slow"
    except Exception as error:  # noqa: BLE001 - any is a finding
        return place_of(error)
    return None


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("case", CASES[::3] if WHOLE else CASES[::61], ids=name_of)
def test_no_change_of_an_example_breaks_learning(case: Case) -> None:
    """What nobody's profile takes is drafted from: a few changed messages of one topic together, and large ones."""
    result: dict[str, str] = {}
    payload = payload_of(case.example)
    changes = islice(spoilt(payload), 0, None, 11 if WHOLE else 311)
    sizes = islice(swollen(payload), 0, None, 7 if WHOLE else 97)
    for source, many in ((changes, 6), (sizes, 1)):
        while made := list(islice(source, many)):
            messages = []
            for _, make in made:
                with suppress(*UNWRITABLE):
                    messages.append(case.message(make()))
            if messages and (why := unlearned(messages)) is not None:
                result.setdefault(why, f"{made[0][0]}: {why}\n    {[message.payload[:300] for message in messages]}")
    assert not result, "\n".join(result.values())


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("case", CASES[::5] if WHOLE else CASES[::71], ids=name_of)
def test_no_change_of_an_example_breaks_what_explains_it(case: Case) -> None:
    """What people ask of a message that went wrong is answered."""
    result: dict[str, str] = {}
    for fault, make in islice(spoilt(payload_of(case.example)), 0, None, 37 if WHOLE else 611):
        with suppress(*UNWRITABLE):
            message = case.message(make())
            try:
                explain(PROFILES, message.topic, message.payload, clock=FakeClock(message.received))
            except Exception as error:  # noqa: BLE001 - any is a finding
                result.setdefault(place_of(error), f"{fault}: {message.payload[:300]!r}")
    assert not result


class _Broken(Decoder):
    """A decoder that fails on a list in a list, tells what it refused, and lingers over what is long."""

    def decode(self, messages: Sequence[Message]) -> Fields:
        if any(message.payload.startswith(b"[[") for message in messages):
            raise IndexError("of a list")
        fields = super().decode(messages)
        sum(range(10_000_000 * any(len(message.payload) > SIZE for message in messages)))
        refusals = [
            msgspec.structs.replace(refusal, detail=f"'{NOBODYS[0]}' is none") for refusal in fields.quarantined
        ]
        return msgspec.structs.replace(fields, quarantined=refusals)


def test_the_search_is_not_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a decoder that fails, one that tells a name, and one that is slow are found."""
    case = next(case for case in CASES if case.video and case.example.expect)
    devices = NamedDevices(case.example.devices, case.profile.id, gateway=case.example.gateway)
    monkeypatch.setattr(Case, "decoder", lambda _: _Broken(PROFILES, devices, LIMITS))
    monkeypatch.setitem(globals(), "SLOW_S", 0.05)
    good = payload_of(case.example)
    problems = findings(case, iter([("a list", lambda: b"[[[1]]]"), ("a name", lambda: b"{}")]), chunk=1)
    assert [item.split(": ")[2] for item in problems] == ["IndexError", "AssertionError"]
    assert "personal data" in problems[1]
    assert "slow" in "".join(findings(case, iter([("blanks", lambda: good + b" " * SIZE)]), chunk=1))
