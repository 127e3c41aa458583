"""A node of Sparkplug with a probe: its registry, profiles, births and values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sensegate.decode import ProfileSet
from sensegate.decode.formats.sparkplug import REBIRTH
from sensegate.model import BOOL, Device
from tests.decode.formats.sparkplug_payloads import metric

PROFILES = ProfileSet.load([Path(__file__).parents[3] / "device_profiles" / "sparkplug"])
NODE, PROBE = "Water/pump-01", "Water/pump-01/probe-A"
AT = 1_767_225_600_000
"""ms."""
UNIT = {"engUnit": ("String", "Cel")}


class Registry:
    """A node, its probe with a profile of its own, and a node that is another's."""

    version = 1

    def __init__(self, *, probe_enabled: bool = True) -> None:
        self._records = [
            Device("n1", "440106", "sparkplug/pump-station", alias=NODE),
            Device("p1", "440106", "sparkplug/water-probe", alias=PROBE, gateway="n1"),
            Device("n2", "440106", "sparkplug/pump-station", alias="Water/pump-02"),
            Device("p2", "440106", "sparkplug/water-probe", alias="Water/pump-02/probe-B", gateway="n1"),
        ]
        self.enabled: BOOL = np.array([True, probe_enabled, True, True])

    def find(self, name: str, /) -> int:
        """Return the index of a device by its id or alias; -1: there is none."""
        return next((index for index, record in enumerate(self._records) if name in {record.id, record.alias}), -1)

    def record(self, index: int, /) -> Device:
        """Return a device."""
        return self._records[index]


def nbirth(*more: bytes, bd_seq: int = 0, level: int = 1) -> tuple[bytes, ...]:
    """Return the metrics of a node's birth; `level`: the alias of its level."""
    return (
        metric("bdSeq", "UInt64", bd_seq, timestamp=AT),
        metric(REBIRTH, "Boolean", False, timestamp=AT),
        metric("Level", "Double", 2.0, alias=level, timestamp=AT),
        *more,
    )


def dbirth(alias: int = 10) -> tuple[bytes, ...]:
    """Return the metrics of a probe's birth."""
    return (metric("temperature", "Double", 20.0, alias=alias, timestamp=AT, props=UNIT),)


def level(value: float, alias: int = 1) -> bytes:
    """Return a level by alias."""
    return metric(alias=alias, value=value, as_kind="Double", timestamp=AT)


def temperature(value: float, alias: int = 10) -> bytes:
    """Return a temperature by alias."""
    return metric(alias=alias, value=value, as_kind="Double", timestamp=AT)
