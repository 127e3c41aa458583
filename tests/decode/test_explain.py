"""`explain` tells the walk of one message."""

from __future__ import annotations

from sensegate.clock import FakeClock
from sensegate.decode import ProfileSet
from sensegate.decode.explain import Stage, explain


def said(stages: list[Stage]) -> str:
    return "\n".join(f"{stage['stage']}: {line}" for stage in stages for line in stage["lines"])


def test_every_stage_is_told(profiles: ProfileSet) -> None:
    """Claim, rule, fields, readings in canonical units, identity, and what would be committed."""
    text = said(
        explain(profiles, "tele/t1/SENSOR", b'{"AM2301":{"Temperature":70.7},"TempUnit":"F"}', clock=FakeClock())
    )
    assert "claim: tasmota/sensor@1 message 1 (telemetry of the sensors): {device} = t1" in text
    assert "fields: AM2301.Temperature = 70.7" in text
    assert "readings: t1 air_temperature[AM2301] = 21.5 Cel at 2026-01-01T00:00:00.000000Z (received)" in text
    assert "identity: nothing identifies these readings" in text
    assert "commit: 1 message decoded: 1 values to be judged, 0 rejected, 0 empty" in text


def test_reasons_are_told(profiles: ProfileSet) -> None:
    """No claim, a refusal, a rejection, a value out of range, a deciding member."""
    assert "no profile has a topic that matches 'x/y'" in said(explain(profiles, "x/y", b"1"))
    assert "quarantined: malformed" in said(explain(profiles, "sg/d1/up", b"{"))
    text = said(explain(profiles, "sg/d1/up", b'{"seq":1,"values":{"air_temperature":9999,"foo":1,"pm10":null}}'))
    assert "foo: rejected: unknown_property" in text
    assert "outside -90 to 70" in text or "outside" in text
    assert "identity: device, property and sequence" in text
    text = said(explain(profiles, "citysense/manhole/d1/event", b'{"type":"heartbeat","bat":3500}'))
    assert "does not hold (type = 'heartbeat')" in text
    text = said(explain(profiles, "citysense/lamp/g1/report", b'{"lamps":[{"id":"l1","on":1}]}'))
    assert "l1 illumination_on = true" in text
