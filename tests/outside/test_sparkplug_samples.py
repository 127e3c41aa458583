"""One life of a Sparkplug node, message by message: metrics as sent, and readings once the births are known.

The recordings are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `mqtt/sparkplug-b.jsonl`.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensegate.authoring.examples import readings_of, same_value
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.formats.sparkplug import parse
from sensegate.decode.formats.sparkplug_payload import read
from sensegate.decode.frame import PayloadFrame
from sensegate.model import BOOL, Device, Message
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.units import conversion

ROOT = Path(__file__).parents[2] / "device_profiles"
SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
RECEIVED = 1_767_225_600_000_000
UCUM = {"0.1 mm": "mm/10", "NTU": "[NTU]"}
"""Units of the samples that are none of UCUM's."""

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/sparkplug-b.jsonl"
)


def samples() -> list[dict[str, Any]]:
    if not SAMPLES:
        return []
    lines = (Path(SAMPLES) / "mqtt" / "sparkplug-b.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def payload_of(sample: dict[str, Any]) -> bytes:
    text: str = sample.get("payload_b64", "")
    return base64.b64decode(text) if text else str(sample["payload"]).encode()


class Registry:
    """The node and its probe, under the names that the samples give them, and the host."""

    version = 1

    def __init__(self) -> None:
        self._records = [
            Device("n1", "440106", "sparkplug/pump-station", alias="Water/pump-01"),
            Device("p1", "440106", "sparkplug/water-probe", alias="Water/pump-01/probe-A", gateway="n1"),
            Device("h1", "440106", "sparkplug/host", alias="host-01"),
        ]
        self.enabled: BOOL = np.array([True] * len(self._records))

    def find(self, name: str, /) -> int:
        return next((at for at, record in enumerate(self._records) if name in {record.id, record.alias}), -1)

    def record(self, index: int, /) -> Device:
        return self._records[index]


@pytest.mark.parametrize("at", range(len(samples())))
def test_metrics_are_as_they_were_sent(at: int) -> None:
    """Names, aliases, types, values, times, flags and properties of each payload; of a host its state."""
    sample = samples()[at]
    expected = sample["expected"]
    if sample["topic"].startswith("spBv1.0/STATE"):
        tree = parse(PayloadFrame(payload_of(sample), 32, sample["topic"]))
        assert {key: tree[key] for key in expected} == expected
        return
    parsed = read(payload_of(sample), 32)
    metrics = [{"datatype": None, **expectation} for expectation in expected["metrics"]]
    assert [metric.tree() for metric in parsed.metrics] == metrics
    assert (parsed.timestamp, parsed.seq) == (expected.get("timestamp"), expected.get("seq"))


def canonical(entry: dict[str, Any], name: str) -> Any:
    """Return an expected value in the unit of its property."""
    value, unit = entry["value"], entry.get("unit")
    if unit is None or isinstance(value, bool):
        return value
    scale, offset = conversion(UCUM.get(unit, unit), PROPERTIES.by_name(name).unit)
    return value * scale + offset


def test_readings_are_those_that_the_births_resolve() -> None:
    """In order, by one decoder: every resolved reading and no other, but for what births and deaths say themselves."""
    profiles = ProfileSet.load([ROOT / "sparkplug"])
    decoder = Decoder(profiles, Registry())
    devices = ["n1", "p1", "h1"]
    names = {"pump-01": "n1", "pump-01/probe-A": "p1"}
    results: list[tuple[str, bool]] = []
    resolved = 0
    for at, sample in enumerate(samples()):
        if "/NCMD/" in sample["topic"]:
            continue  # a command is no message of a device: nobody's profile takes it
        fields = decoder.decode([Message(sample["topic"], payload_of(sample), RECEIVED + at, at + 1)])
        assert not fields.quarantined, (sample["topic"], fields.quarantined)
        assert not fields.rejected, (sample["topic"], fields.rejected)
        readings = readings_of(fields, profiles.specs, devices)
        results += [(reading.device, bool(reading.value)) for reading in readings if reading.property == "online"]
        readings = [reading for reading in readings if reading.property != "online"]
        if "DBIRTH" in sample["topic"] or "profile" in str(sample["expected"].get("metrics")):
            continue  # its `expected` names metrics only; the data set's rows are compared below
        for entry in sample["expected"].get("resolved", []):
            matches = [
                reading
                for reading in readings
                if reading.field == entry["name"] and reading.time == entry["time"] * 1_000
            ]
            assert len(matches) == 1, (entry, readings)
            assert same_value(canonical(entry, matches[0].property), matches[0].value), (entry, str(matches[0]))
            assert matches[0].device == names[entry.get("device", "pump-01")]
            readings.remove(matches[0])
            resolved += 1
        assert readings == []
    # births of node, probe; death of the probe; death of the node; birth; the host
    assert results == [("n1", True), ("p1", True), ("p1", False), ("n1", False), ("n1", True), ("h1", True)]
    assert resolved == sum(len(sample["expected"].get("resolved", [])) for sample in samples())
    assert decoder.memory.take_requests() == []


def test_the_table_gives_its_rows() -> None:
    """The data set's temperatures, by depth, as its `expected` has them."""
    profiles = ProfileSet.load([ROOT / "sparkplug"])
    decoder = Decoder(profiles, Registry())
    for at, sample in enumerate(samples()):
        table = next(
            (entry["value"] for entry in sample["expected"].get("metrics", []) if entry["datatype"] == "DataSet"), None
        )
        fields = decoder.decode([Message(sample["topic"], payload_of(sample), RECEIVED + at, at + 1)])
        if table is not None:
            readings = readings_of(fields, profiles.specs, ["n1", "p1", "h1"])
            assert [reading.value for reading in readings] == [row[1] for row in table["rows"][:2]]
            return
    pytest.fail("no sample holds a data set")
