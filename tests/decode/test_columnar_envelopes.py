"""Frames in envelopes: the quick path gives the rows of the general path, whatever stands in either."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.columnar_envelopes import EnvelopePlan
from sensegate.model import BOOL, Device, Message
from tests.decode.decoding import same

NOW = 1_767_225_600_000_000
HEAD = "profile: {name}\nversion: 1\nlabel: {{zh: x, en: x}}\nsource: this test\nmessages:\n"
SERVER = """
  - label: join
    topics: ["ns/{gateway}/up", "app/{device}/up"]
    where: {kind: join}
    device: {field: dev.eui, case: lower}
    ignore: true
  - label: uplink
    topics: ["ns/{gateway}/up", "app/{device}/up"]
    where: {kind: [up, late]}
    payload: {field: data, encoding: base64, port: port}
    device: {field: dev.eui, case: lower}
    time: {field: time}
    sequence: counter
    message_id: id
    path: [network]
  - label: how it was heard
    topics: ["ns/{gateway}/up", "app/{device}/up"]
    beside: true
    device: {field: dev.eui, case: lower}
    time: {field: time}
    readings:
      - {field: "rx[0].rssi", property: rssi}
      - {field: "rx[0].snr", property: snr, missing: [-99]}
"""
DEVICE = """
  - frames: {ports: [2]}
    binary: &layout
      read:
        - {name: kind, type: u8}
        - switch: kind
          cases:
            1: [{name: t, type: s16}, {name: h, type: u8}, {name: p, type: f32}]
            2: [{name: at, type: u32}, {name: t, type: s16}]
            3: [{repeat: end, name: l, read: [{name: t, type: s16}, {name: age, value: $index * 60}]}]
            4: [{name: n, type: u8}, {name: t, type: s16}]
    where: {kind: [1, 2]}
    time: {field: at, format: epoch_s, missing: [0]}
    readings:
      - {field: t, property: air_temperature, scale: 0.1, missing: [-32768]}
      - {field: h, property: relative_humidity}
      - {field: p, property: air_pressure}
  - frames: {ports: [2]}
    binary: *layout
    where: {kind: 3}
    each: l
    time: {field: age, format: age_s}
    readings: [{field: t, property: air_temperature, scale: 0.1}]
  - frames: {ports: [2]}
    binary: *layout
    where: {kind: 4}
    sequence: n
    readings: [{field: t, property: air_temperature, scale: 0.1}]
  - frames: {ports: [3]}
    format: text
    readings: [{field: ".", property: state}]
  - frames: {ports: [4]}
    ignore: true
"""


class Registry:
    """A network server and devices behind it; some have no profile for frames, or another server."""

    version = 1

    def __init__(self) -> None:
        self._records = [Device("ns1", division="440106", profile="acme/server")]
        for at in range(30):
            profile = "acme/device" if at % 6 else "acme/nothing"
            gateway = "ns1" if at % 7 else "ns2"
            self._records.append(Device(f"d{at}", division="440106", profile=profile, gateway=gateway))
        self._index = {record.id: index for index, record in enumerate(self._records)}
        self._index |= {f"{at:016x}": at + 1 for at in range(30)}
        self.enabled: BOOL = np.array([at != 9 for at in range(len(self._records))], np.bool_)

    def find(self, name: str, /) -> int:
        return self._index.get(name, -1)

    def record(self, index: int, /) -> Device:
        return self._records[index]


@pytest.fixture
def machine(tmp_path: Path) -> Decoder:
    """A decoder of a network server and of a device."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "server.yaml").write_text(HEAD.format(name="acme/server") + SERVER, encoding="utf-8")
    (tmp_path / "acme" / "device.yaml").write_text(HEAD.format(name="acme/device") + DEVICE, encoding="utf-8")
    return Decoder(ProfileSet.load([tmp_path]), Registry())


def frame(r: random.Random) -> bytes:
    """Return a device's bytes, mostly good."""
    t = r.choice([b"\x00\xd7", b"\xff\x38", b"\x80\x00"])
    kinds = [
        b"\x01" + t + b"\x3c" + r.choice([b"\x44\x7d\x50\x00"] * 5 + [b"\x7f\xc0\x00\x00"]),
        b"\x02" + r.choice([(NOW // 10**6 - 60).to_bytes(4, "big"), bytes(4)]) + t,
        b"\x03" + t * r.randrange(4),
        b"\x04" + bytes([r.randrange(9)]) + t,
    ]
    good = r.choice(kinds)
    return r.choice([good] * 9 + [good[:-1], b"", b"\x09", b"online"])


def envelope(r: random.Random, at: int) -> Message:
    """Return what a network server publishes."""
    device = r.randrange(32)
    tree: dict[str, Any] = {
        "kind": r.choice(["up"] * 9 + ["late", "join", "ack"]),
        "id": f"{at:06x}",
        "dev": {"eui": f"{device:016X}", "name": "x"},
        "counter": r.choice([at % 300, at % 300, str(at % 300), None]),
        "port": r.choice([2] * 9 + [3, 4, 5, 2.0, "2", -1]),
        "time": r.choice(["2026-01-01T00:00:00.250Z"] * 5 + ["2025-12-31T23:59:00+00:00", "never", None, 5]),
        "data": base64.b64encode(frame(r)).decode(),
        "network": r.choice(["a", "b"]),
        "rx": [
            {"rssi": -60 - r.randrange(40), "snr": r.choice([7.5, 9, -99])} for _ in range(r.choice([1, 1, 1, 2, 0]))
        ],
    }
    if r.random() < 0.05:
        tree["data"] = r.choice(["!!", None, 7, "AAE", ""])
    for key in ("time", "counter", "port", "network", "rx", "data"):
        if r.random() < 0.02:
            del tree[key]
    topic = "ns/ns1/up" if r.random() < 0.6 else f"app/d{device}/up"
    payload = json.dumps(tree, ensure_ascii=r.random() < 0.5).encode()
    return Message(topic, payload if r.random() < 0.99 else payload[:-1], NOW + at, at, "ns1")


@pytest.mark.slow
def test_frames_give_the_same_by_both_paths(machine: Decoder) -> None:
    """Two topics, three kinds of frames, times and counters that are there or not, damage in either: equal rows."""
    r = random.Random(4)
    messages = [envelope(r, at) for at in range(6_000)]
    expected = machine.decode_row_by_row(messages)
    for _ in range(4):
        fields = machine.decode(messages)
        same(fields, expected)
    assert sum(isinstance(plan, EnvelopePlan) for plan in machine.plans.plans) > 5
    assert machine.plans.readers.count > 3
    assert len(fields) > 3_000


def test_most_frames_go_the_quick_path(machine: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good frames in good envelopes are not decoded one by one once their shapes are known."""
    r = random.Random(4)
    tree = {
        "kind": "up",
        "id": "x",
        "dev": {"eui": f"{1:016x}"},
        "port": 2,
        "network": "a",
        "rx": [{"rssi": -60, "snr": 7}],
    }
    data = base64.b64encode(b"\x01\x00\xd7\x3c\x44\x7d\x50\x00").decode()
    messages = [
        Message(
            "ns/ns1/up",
            json.dumps(tree | {"counter": at, "time": "2026-01-01T00:00:00Z", "data": data}).encode(),
            NOW,
            at,
            "ns1",
        )
        for at in range(500)
    ]
    r.shuffle(messages)
    machine.decode(messages)
    singles: list[int] = []
    work = type(machine._batch([]))
    usual = work.decode_one

    def decode_one(self: Any, at: int, *, learn: bool) -> None:
        singles.append(at)
        usual(self, at, learn=learn)

    monkeypatch.setattr(work, "decode_one", decode_one)
    fields = machine.decode(messages)
    assert not singles
    assert len(fields) == 500 * 5
    same(fields, machine.decode_row_by_row(messages))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["path", "time", "identity", "beside"])
def test_the_tests_would_see_a_difference(machine: Decoder, fault: str) -> None:
    """Negative controls: a quick path that forgets the network, the time, the counter or what stands beside fails."""
    r = random.Random(4)
    messages = [envelope(r, at) for at in range(3_000)]
    machine.decode(messages)
    plans = [plan for plan in machine.plans.plans if isinstance(plan, EnvelopePlan)]
    for plan in plans:
        if fault == "path":
            plan._path = []
        elif fault == "time":
            plan._time = None
        elif fault == "identity":
            plan._sequence = None
        else:
            plan.beside = None
    fields = machine.decode(messages)
    with pytest.raises(AssertionError):
        same(fields, machine.decode_row_by_row(messages))
