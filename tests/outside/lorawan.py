"""What the LoRaWAN samples' tests share: a registry of one device behind network servers, and how names are mapped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensegate.authoring.examples import ExampleReading, readings_of
from sensegate.decode import Decoder
from sensegate.model import BOOL, Device, Fields, Message
from tests.support.profiles import library

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
RECEIVED = 1_800_000_000_000_000


def lines(path: str) -> list[Any]:
    """Return the samples of a file below the folder of samples, as parameters; none where the folder is not there."""
    if not SAMPLES:
        return []
    text = (Path(SAMPLES) / path).read_text(encoding="utf-8")
    stem = Path(path).stem
    return [pytest.param(json.loads(line), id=f"{stem}-{at}") for at, line in enumerate(text.splitlines(), 1)]


class Site:
    """One device behind one gateway."""

    version = 1

    def __init__(self, device: Device, gateway: Device | None = None) -> None:
        self._devices = [device, *([gateway] if gateway else [])]
        self._at = {name: at for at, device in enumerate(self._devices) for name in (device.id, device.alias) if name}
        self.enabled: BOOL = np.ones(len(self._devices), np.bool_)

    def find(self, name: str, /) -> int:
        """Return the index of an id or alias."""
        return self._at.get(name, -1)

    def record(self, index: int, /) -> Device:
        """Return the entry."""
        return self._devices[index]


def decode(site: Site, topic: str, payload: bytes, *, principal: str = "") -> tuple[Fields, list[ExampleReading]]:
    """Return what one message becomes."""
    message = Message(topic, payload, RECEIVED, 1, principal=principal)
    fields = Decoder(library(), site).decode([message])
    return fields, readings_of(fields, library().specs, ["device", "server"])
