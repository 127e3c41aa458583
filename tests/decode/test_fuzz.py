"""Property tests: the quick path gives what the general path gives, and no bytes whatever raise."""

from __future__ import annotations

import json
import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices, message_of, payload_of
from sensegate.decode import Decoder
from sensegate.decode.grammar import Example
from sensegate.decode.profile import CompiledProfile
from sensegate.model import Message
from tests.decode.decoding import same
from tests.support.profiles import library

PROFILES = library()
EXAMPLES: list[tuple[CompiledProfile, Example]] = [
    (profile, example)
    for name in PROFILES.ids
    if (profile := PROFILES.find(name)) is not None
    for example in profile.source.examples
]
MANY = settings().max_examples * 6 // 10
"""Each of these examples decodes some hundred messages."""
STEP = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 3
NAMES = ["air_temperature", "relative_humidity", "state", "cover_open", "pm10", "no_such", "voltage"]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, 1, 2, -999, 327.67, "ON", "OPEN", "21.5", "Cel", "[degF]", "hPa", "2026-01-01T00:00:00Z"]),
    st.text(max_size=8),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from([*NAMES, "v", "u"]), inner)),
    max_leaves=12,
)
times = st.one_of(
    scalars,
    st.integers(0, 2 * 10**14),
    st.datetimes().map(lambda at: at.isoformat()),
    st.datetimes().map(lambda at: at.isoformat() + "+08:00"),
    st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z"),
)
plain = st.fixed_dictionaries(
    {"values": st.dictionaries(st.sampled_from(NAMES), st.one_of(scalars, trees), min_size=1, max_size=4)},
    optional={"time": times, "seq": scalars},
)


def decoder(example: Example, profile: CompiledProfile) -> Decoder:
    return Decoder(PROFILES, NamedDevices(example.devices, profile.id, gateway=example.gateway))


@pytest.mark.slow
@pytest.mark.fuzz
def test_examples_give_the_same_by_both_paths() -> None:
    """Each example of each profile, often enough for a plan, decodes alike by plan and one by one.

    `make test` takes every so-manieth example, `make fuzz` all.
    """
    planned = 0
    for profile, example in EXAMPLES[::STEP]:
        machine = decoder(example, profile)
        messages = [message_of(example)] * 60
        machine.decode(messages)
        fields = machine.decode(messages)
        same(fields, machine.decode_row_by_row(messages))
        planned += bool(machine.plans.count)
    quick = [profile for profile, example in EXAMPLES[::STEP] if example.expect and profile.rules[0].format == "json"]
    assert planned > len(quick) // 2


@settings(max_examples=MANY)
@given(st.lists(plain, min_size=1, max_size=4))
def test_plain_layout_gives_the_same_by_both_paths(payloads: list[object]) -> None:
    """Any values, times and numbers in the plain layout: the paths agree to the last bit."""
    machine = Decoder(PROFILES, NamedDevices(["d0", "d1"], "sensegate/plain"))
    texts = [json.dumps(payload).encode() for payload in payloads]
    messages = [
        Message(f"sg/d{index % 2}/up", text, 1_767_225_600_000_000 + index, index)
        for index, text in enumerate(text for text in texts for _ in range(40))
    ]
    machine.decode(messages)
    same(machine.decode(messages), machine.decode_row_by_row(messages))


@settings(max_examples=MANY)
@given(st.data())
def test_spoilt_examples_never_raise_and_the_paths_agree(data: st.DataObject) -> None:
    """Bytes of an example changed, cut or doubled, among good ones of its kind."""
    profile, example = data.draw(st.sampled_from(EXAMPLES))
    payload = payload_of(example)
    spoilt = []
    for _ in range(8):
        raw = bytearray(payload)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
            change = data.draw(st.sampled_from(["set", "cut", "double", "put"]))
            if change == "set" and raw:
                raw[at] = data.draw(st.integers(0, 255))
            elif change == "cut":
                del raw[at : at + data.draw(st.integers(1, 6))]
            elif change == "double":
                raw[at:at] = raw[at : at + 12]
            else:
                raw[at:at] = data.draw(st.sampled_from([b'"', b"{", b"[", b",", b"1e999", b"NaN", b"\\ud800", b"null"]))
        spoilt.append(bytes(raw))
    good = message_of(example)
    messages = [good] * 40 + [msgspec.structs.replace(good, payload=raw) for raw in spoilt] * 6
    machine = decoder(example, profile)
    machine.decode(messages)
    same(machine.decode(messages), machine.decode_row_by_row(messages))


@given(st.sampled_from(EXAMPLES), st.one_of(st.binary(max_size=60), trees.map(lambda tree: json.dumps(tree).encode())))
def test_any_bytes_become_rows_or_a_reason(example: tuple[CompiledProfile, Example], payload: bytes) -> None:
    """Nothing raises, and each message is accounted for: rows, rejections, something ignored, or quarantine."""
    profile, shown = example
    message = msgspec.structs.replace(message_of(shown), payload=payload)
    fields = decoder(shown, profile).decode([message])
    assert len(fields.quarantined) <= 1
    if fields.quarantined:
        assert not len(fields)
        assert not fields.rejected
