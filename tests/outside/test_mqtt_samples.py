"""The recorded messages of real makes, decoded by the real profiles as their `expected` says.

The recordings are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `mqtt/*.jsonl`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensegate.authoring.examples import parse_micros, readings_of, same_value
from sensegate.decode import Decoder
from sensegate.model import BOOL, Device, Fields, Message
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.units import conversion
from tests.support.profiles import library

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
RECEIVED = 1_767_225_600_000_000

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/tasmota.jsonl and the others"
)

ZIGBEE = {
    "aqszb-110": ["AQSZB-110"],
    "air": ["VOCKQJK11LM", "TS0601_air_quality_sensor", "TS0601_co2_sensor", "E2112"],
    "soil": ["3RSM0147Z", "TS0601_soil"],
    "meter": ["PJ-1203A", "SPM02", "TS011F_plug_1", "SP 120"],
}
"""Which profile an operator gives a model whose members have other units than the usual battery sensor's."""


class OneDevice:
    """A registry that knows one device by one name."""

    version = 1

    def __init__(self, name: str, profile: str) -> None:
        self._name = name
        self._record = Device(id="d1", division="440106", profile=profile, alias=name)
        self.enabled: BOOL = np.array([True])

    def find(self, name: str, /) -> int:
        return 0 if name == self._name else -1

    def record(self, index: int, /) -> Device:
        assert index == 0
        return self._record


def lines(name: str) -> list[Any]:
    if not SAMPLES:
        return []
    text = (Path(SAMPLES) / "mqtt" / name).read_text(encoding="utf-8")
    stem = name.partition(".")[0]
    return [pytest.param(json.loads(line), id=f"{stem}-{at}") for at, line in enumerate(text.splitlines(), 1)]


def tasmota(sample: dict[str, Any]) -> OneDevice:
    name = next(level for level in sample["topic"].split("/") if level.startswith("tasmota_"))
    return OneDevice(name, "tasmota/sensor")


def shelly(sample: dict[str, Any]) -> OneDevice:
    model = "pro-3em" if sample["model"].startswith("SPEM-003") else "gen2"
    return OneDevice(sample["topic"].split("/")[0], f"shelly/{model}")


def zigbee(sample: dict[str, Any]) -> OneDevice:
    name = sample["topic"].removeprefix("zigbee2mqtt/").removesuffix("/availability")
    if name == "bridge/state":
        return OneDevice("bridge", "zigbee2mqtt/bridge")
    model = sample.get("model", "")
    profile = next((key for key, models in ZIGBEE.items() if model.endswith(tuple(models))), "sensor")
    return OneDevice(name, f"zigbee2mqtt/{profile}")


def decode(sample: dict[str, Any], device: OneDevice) -> tuple[Fields, list[Any]]:
    payload = sample["payload"].encode()
    fields = Decoder(library(), device).decode([Message(sample["topic"], payload, RECEIVED, 1)])
    return fields, readings_of(fields, library().specs, ["d1"])


def canonical(entry: dict[str, Any], name: str) -> Any:
    """Return an expected value in the unit of its property."""
    value, unit = entry["value"], entry.get("unit")
    if unit is None or isinstance(value, (bool, str)):
        return value
    scale, offset = conversion(unit, PROPERTIES.by_name(name).unit)
    return value * scale + offset


def check(sample: dict[str, Any], device: OneDevice) -> None:
    fields, seen = decode(sample, device)
    assert not fields.quarantined, fields.quarantined
    assert not fields.rejected, fields.rejected
    expected = sample.get("expected", [])
    if isinstance(expected, dict):
        assert [(one.property, one.value) for one in seen] == [("online", expected["availability"] == "online")]
        return
    for entry in expected:
        path = entry["name"].replace(".0", "[0]").replace(".1", "[1]") if "Tariff" in entry["name"] else entry["name"]
        found = [one for one in seen if one.field == path]
        assert len(found) == 1, f"{entry['name']}: {[one.field for one in seen]}"
        assert same_value(canonical(entry, found[0].property), found[0].value), (entry, str(found[0]))
        if "time" in entry:
            assert found[0].time == parse_micros(entry["time"])
        seen.remove(found[0])


@pytest.mark.parametrize("sample", lines("tasmota.jsonl"))
def test_tasmota_message_gives_what_is_expected(sample: dict[str, Any]) -> None:
    """Every expected reading of a Tasmota message comes out, in the canonical unit."""
    check(sample, tasmota(sample))


@pytest.mark.parametrize("sample", lines("zigbee2mqtt.jsonl"))
def test_zigbee2mqtt_message_gives_what_is_expected(sample: dict[str, Any]) -> None:
    """Every expected reading of a Zigbee2MQTT message comes out, and nothing else."""
    check(sample, zigbee(sample))
    _, seen = decode(sample, zigbee(sample))
    if isinstance(sample["expected"], list):
        assert len(seen) == len(sample["expected"])
    if "last_seen" in sample["payload"]:
        assert {one.time for one in seen} == {parse_micros(json.loads(sample["payload"])["last_seen"])}


@pytest.mark.parametrize("sample", lines("shelly-gen2.jsonl"))
def test_shelly_gen2_message_gives_what_is_expected(sample: dict[str, Any]) -> None:
    """Every expected reading of a Shelly status comes out; a full notification is dated by its own time."""
    check(sample, shelly(sample))
    if sample["topic"].endswith("/events/rpc"):
        _, seen = decode(sample, shelly(sample))
        assert seen
        assert {one.time for one in seen} == {round(json.loads(sample["payload"])["params"]["ts"] * 1e6)}


def test_full_notification_carries_the_same_readings_as_its_components() -> None:
    """The readings of a component's status are also in the full notification of its device."""
    samples = [param.values[0] for param in lines("shelly-gen2.jsonl")]
    full = {}
    for sample in samples:
        if sample["topic"].endswith("/events/rpc"):
            _, seen = decode(sample, shelly(sample))
            full[sample["topic"].split("/")[0]] = {(one.field, one.value) for one in seen}
    assert full
    for sample in samples:
        if "/status/" in sample["topic"]:
            _, seen = decode(sample, shelly(sample))
            assert {(one.field, one.value) for one in seen} <= full[sample["topic"].split("/")[0]]
