"""The recorded messages of real makes, decoded by the real profiles as their `expected` says.

The recordings are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `mqtt/*.jsonl`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.authoring.examples import parse_micros, same_value
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.units import conversion
from tests.outside.mqtt import SAMPLES, OneDevice, decode, lines, zigbee

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/tasmota.jsonl and the others"
)


def tasmota(sample: dict[str, Any]) -> OneDevice:
    name = next(level for level in sample["topic"].split("/") if level.startswith("tasmota_"))
    return OneDevice(name, "tasmota/sensor")


def shelly(sample: dict[str, Any]) -> OneDevice:
    model = "pro-3em" if sample["model"].startswith("SPEM-003") else "gen2"
    return OneDevice(sample["topic"].split("/")[0], f"shelly/{model}")


def canonical(entry: dict[str, Any], name: str) -> Any:
    """Return an expected value in the unit of its property."""
    value, unit = entry["value"], entry.get("unit")
    if unit is None or isinstance(value, (bool, str)):
        return value
    scale, offset = conversion(unit, PROPERTIES.by_name(name).unit)
    return value * scale + offset


def check(sample: dict[str, Any], device: OneDevice) -> None:
    fields, decoded = decode(sample, device)
    assert not fields.quarantined, fields.quarantined
    assert not fields.rejected, fields.rejected
    expected = sample.get("expected", [])
    if isinstance(expected, dict):
        assert [(row.property, row.value) for row in decoded] == [("online", expected["availability"] == "online")]
        return
    for entry in expected:
        path = entry["name"].replace(".0", "[0]").replace(".1", "[1]") if "Tariff" in entry["name"] else entry["name"]
        matches = [row for row in decoded if row.field == path]
        assert len(matches) == 1, f"{entry['name']}: {[row.field for row in decoded]}"
        assert same_value(canonical(entry, matches[0].property), matches[0].value), (entry, str(matches[0]))
        if "time" in entry:
            assert matches[0].time == parse_micros(entry["time"])
        decoded.remove(matches[0])


@pytest.mark.parametrize("sample", lines("tasmota.jsonl"))
def test_tasmota_message_gives_what_is_expected(sample: dict[str, Any]) -> None:
    """Every expected reading of a Tasmota message comes out, in the canonical unit."""
    check(sample, tasmota(sample))


@pytest.mark.parametrize("sample", lines("zigbee2mqtt.jsonl"))
def test_zigbee2mqtt_message_gives_what_is_expected(sample: dict[str, Any]) -> None:
    """Every expected reading of a Zigbee2MQTT message comes out, and nothing else."""
    check(sample, zigbee(sample))
    _, decoded = decode(sample, zigbee(sample))
    if isinstance(sample["expected"], list):
        assert len(decoded) == len(sample["expected"])
    if "last_seen" in sample["payload"]:
        assert {row.time for row in decoded} == {parse_micros(json.loads(sample["payload"])["last_seen"])}


@pytest.mark.parametrize("sample", lines("shelly-gen2.jsonl"))
def test_shelly_gen2_message_gives_what_is_expected(sample: dict[str, Any]) -> None:
    """Every expected reading of a Shelly status comes out; a full notification is dated by its own time."""
    check(sample, shelly(sample))
    if sample["topic"].endswith("/events/rpc"):
        _, decoded = decode(sample, shelly(sample))
        assert decoded
        assert {row.time for row in decoded} == {round(json.loads(sample["payload"])["params"]["ts"] * 1e6)}


def test_full_notification_carries_the_same_readings_as_its_components() -> None:
    """The readings of a component's status are also in the full notification of its device."""
    samples = [param.values[0] for param in lines("shelly-gen2.jsonl")]
    full = {}
    for sample in samples:
        if sample["topic"].endswith("/events/rpc"):
            _, decoded = decode(sample, shelly(sample))
            full[sample["topic"].split("/")[0]] = {(row.field, row.value) for row in decoded}
    assert full
    for sample in samples:
        if "/status/" in sample["topic"]:
            _, decoded = decode(sample, shelly(sample))
            assert {(row.field, row.value) for row in decoded} <= full[sample["topic"].split("/")[0]]
