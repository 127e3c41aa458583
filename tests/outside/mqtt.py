"""Samples of MQTT messages, and the device that sent them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensegate.authoring.examples import readings_of
from sensegate.decode import Decoder
from sensegate.model import BOOL, Device, Fields, Message
from tests.support.profiles import library

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
RECEIVED = 1_767_225_600_000_000
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
