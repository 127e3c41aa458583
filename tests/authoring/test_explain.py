"""`explain` tells the walk of one message."""

from __future__ import annotations

import json

import pytest

from sensegate.authoring.explain import ExplainedStage, explain
from sensegate.clock import FakeClock
from sensegate.decode import ProfileSet
from sensegate.errors import ConfigError


def text_of(stages: list[ExplainedStage]) -> str:
    return "\n".join(f"{stage['stage']}: {line}" for stage in stages for line in stage["lines"])


def line(profiles: ProfileSet, name: str) -> int:
    """Return the line of a profile's first message."""
    profile = profiles.find(name)
    assert profile is not None
    return profile.rules[0].line


def test_every_stage_is_told(profiles: ProfileSet) -> None:
    """Claim, rule, fields, readings in canonical units, identity, and what would be committed."""
    text = text_of(
        explain(profiles, "tele/t1/SENSOR", b'{"AM2301":{"Temperature":70.7},"TempUnit":"F"}', clock=FakeClock())
    )
    assert "claim: tasmota/sensor@3 message 1 (telemetry of the sensors): {device} = t1" in text
    assert "fields: AM2301.Temperature = 70.7" in text
    assert "readings: t1 air_temperature[AM2301] = 21.5 Cel at 2026-01-01T00:00:00.000000Z (received)" in text
    assert "identity: nothing identifies these readings" in text
    assert "commit: 1 message decoded: 1 value to check for duplicates, 0 rejected, 0 empty" in text


def test_numbers_are_those_that_are_stored(profiles: ProfileSet) -> None:
    """Without the noise of single precision or of scaling."""
    payload = b'{"seq":1,"values":{"air_temperature":21.700000762939453,"illuminance":2.8849999904632568}}'
    text = text_of(explain(profiles, "sg/d1/up", payload))
    assert "air_temperature = 21.7 Cel" in text
    assert "illuminance = 2.885 lx" in text


def test_reasons_are_told(profiles: ProfileSet) -> None:
    """No claim, a refusal, a rejection, a value out of range, a deciding member."""
    assert "no profile has a topic that matches 'x/y'" in text_of(explain(profiles, "x/y", b"1"))
    assert "quarantined: malformed" in text_of(explain(profiles, "sg/d1/up", b"{"))
    for time in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        payload = b'{"time":"%b","values":{"air_temperature":1}}' % time.encode()
        assert "beyond the years" in text_of(explain(profiles, "sg/d1/up", payload))
    text = text_of(explain(profiles, "sg/d1/up", b'{"seq":1,"values":{"air_temperature":9999,"foo":1,"pm10":null}}'))
    assert "foo: rejected: unknown_property" in text
    assert "outside -90 to 70" in text or "outside" in text
    assert "identity: device, property and sequence" in text
    text = text_of(explain(profiles, "citysense/manhole/d1/event", b'{"type":"heartbeat","bat":3500}'))
    assert "conditions not met (type = 'heartbeat')" in text
    text = text_of(explain(profiles, "citysense/lamp/g1/report", b'{"lamps":[{"id":"l1","on":1}]}'))
    assert "l1 illumination_on = true" in text


SOIL = "ce2900f107a5099b6e2890"


def envelope(data: str) -> bytes:
    return json.dumps(
        {"cmd": "rx", "EUI": "D1", "ts": 1767225600000, "fcnt": 7, "port": 2, "data": data, "rssi": -91}
    ).encode()


def test_envelope_and_frame_are_told(profiles: ProfileSet) -> None:
    """What the network server's message holds, what the device's own profile makes of it, and what stands beside."""
    text = text_of(explain(profiles, "loriot/d1/rx", envelope(SOIL), profile="dragino/lse01", clock=FakeClock()))
    soil = line(profiles, "dragino/lse01")
    assert (
        f"envelope of loriot/lns: message 1 (line {line(profiles, 'loriot/lns')}): device as the topic says, port 2"
        in text
    )
    assert f"envelope of loriot/lns: 11 bytes: {SOIL}" in text
    assert "envelope of loriot/lns: frame counter 7" in text
    assert f"rules of dragino/lse01: message 1 (line {soil}, format binary): matches; 1 element, 5 values" in text
    assert "readings: d1 soil_moisture = 19.57 % at 2026-01-01T00:00:00.000000Z (device)" in text
    assert "readings: d1 rssi[loriot] = -91 dB" in text
    assert "identity: device, property, frame counter and bytes" in text


def test_without_its_profile_an_envelope_is_told_alone(profiles: ProfileSet) -> None:
    """Whoever can take the frame is named."""
    text = text_of(explain(profiles, "loriot/d1/rx", envelope(SOIL)))
    assert f"11 bytes: {SOIL}" in text
    assert "profile: takes such frames: dragino/lse01" in text
    assert "soil_moisture" not in text


def test_refusals_of_a_chain_are_told(profiles: ProfileSet) -> None:
    """Of the envelope, of the frame; a port that nobody takes; a profile that is not there."""
    assert "envelope of loriot/lns: quarantined: malformed" in text_of(
        explain(profiles, "loriot/d1/rx", envelope("ce2"))
    )
    text = text_of(explain(profiles, "loriot/d1/rx", envelope("ce29"), profile="dragino/lse01"))
    assert f"rules of dragino/lse01: message 1 (line {line(profiles, 'dragino/lse01')}, format binary): schema" in text
    assert "quarantined: schema" in text
    with pytest.raises(ConfigError, match="no profile dragino/lse1"):
        explain(profiles, "loriot/d1/rx", envelope(SOIL), profile="dragino/lse1")


def test_frame_without_an_envelope_is_told(profiles: ProfileSet) -> None:
    """As it stands in a maker's manual: bytes and port."""
    text = text_of(explain(profiles, "", bytes.fromhex(SOIL), profile="dragino/lse01", port=2, clock=FakeClock()))
    assert "readings: device soil_moisture = 19.57 % at 2026-01-01T00:00:00.000000Z (received)" in text
    text = text_of(explain(profiles, "", bytes.fromhex(SOIL), profile="dragino/lse01", port=42))
    assert "'dragino/lse01' has no rule for port 42" in text
