"""CPU µs a message for each payload format: ``python -m tests.bench.formats``, or ``sensegate bench formats --json``.

Each format carries the same: a time and six values, from 1,000 devices, in batches of 4,000 as the flow makes them. The
baseline is JSON of the same structure, measured anew beside each. Binary has several layouts: fixed places, groups by a
flag word, tags, a list with times of its own and a CRC. Formats of one value (number, text) say so; those of stations
stand with an example of the library.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sensegate.authoring.examples import NamedDevices, message_of
from sensegate.config import IngestConfig
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.formats import FORMATS
from sensegate.decode.formats.video import temporary_pseudonymiser
from sensegate.decode.protobuf import FIXED64, bytes_field, number_field, tag
from sensegate.frames import hj212
from sensegate.model import Message
from sensegate.scripts.pool import decoding_pool
from sensegate.video.formats import FORMATS as VIDEO_FORMATS
from sensegate.video.stored import encode_redacted
from tests.bench.decode import NOW, Fleet

LIBRARY = Path(__file__).parents[2] / "device_profiles"
BATCH, DEVICES, ROUNDS = 4_000, 1_000, 7
GOAL = 3.0
"""Binary layouts may cost so many times what JSON costs."""

NAMES = ("temperature", "humidity", "pm2_5", "pm10", "sound", "battery")
PROPERTIES = ("air_temperature", "relative_humidity", "pm2_5", "pm10", "sound_level", "battery_voltage")
CODES = ("a34004", "a34002", "a21026", "a21004", "a05024", "a21005")
POLLUTANTS = ("pm2_5", "pm10", "so2", "no2", "o3", "co")
SECOND = NOW // 1_000_000

Sent = tuple[int, tuple[int, ...]]
"""(second, six values in tenths)."""


class Maker(NamedTuple):
    """How a format is measured."""

    rule: dict[str, Any]
    """What a rule says beside topics and readings."""
    payload: Callable[[Sent], bytes]
    prefix: str = ""
    """What stands before a name in its path."""
    scale: float = 1.0
    values: int = 6
    readings: list[dict[str, Any]] | None = None
    script: str = ""
    baseline: str = "json"
    topic: str = ""
    """Topic with the device's name in place of ``*``, where the format needs one of its own."""
    first: tuple[str, bytes] = ("", b"")
    """(topic, payload) of a message that each device sends before."""


def _json(sent: Sent) -> dict[str, Any]:
    return {"ts": sent[0], **{name: value / 10 for name, value in zip(NAMES, sent[1], strict=True)}}


def _senml(sent: Sent) -> list[dict[str, Any]]:
    first = {"bt": sent[0], "n": NAMES[0], "v": sent[1][0] / 10}
    return [first, *({"n": name, "v": value / 10} for name, value in zip(NAMES[1:], sent[1][1:], strict=True))]


def _cbor(tree: Any) -> bytes:
    """Return CBOR of what the benchmarks send (RFC 8949): the encoder that the product does not need."""
    if isinstance(tree, dict):
        return _head(5, len(tree)) + b"".join(_cbor(key) + _cbor(value) for key, value in tree.items())
    if isinstance(tree, list):
        return _head(4, len(tree)) + b"".join(map(_cbor, tree))
    if isinstance(tree, str):
        return _head(3, len(tree.encode())) + tree.encode()
    if isinstance(tree, float):
        return b"\xfb" + struct.pack(">d", tree)
    return _head(0, tree) if tree >= 0 else _head(1, -1 - tree)


def _head(major: int, value: int) -> bytes:
    for at, (form, bound) in enumerate(((">B", 1 << 8), (">H", 1 << 16), (">I", 1 << 32), (">Q", 1 << 64))):
        if value < 24:
            return bytes([major << 5 | value])
        if value < bound:
            return bytes([major << 5 | 24 + at]) + struct.pack(form, value)
    raise ValueError(value)


_LABELS = {"bt": -3, "n": 0, "v": 2}
TIME = {"field": "ts", "format": "epoch_s"}
AGE = {"name": "at", "value": "ts - 60 * $index"}
FIELDS = [{"name": name, "type": "s16"} for name in NAMES]
HEAD = f"var names = {json.dumps(NAMES)};\n"
SCRIPT = (
    HEAD
    + """function decodeUplink(input) {
  function s16(at) { var v = input.bytes[at] << 8 | input.bytes[at + 1]; return v > 32767 ? v - 65536 : v; }
  var b = input.bytes, data = { ts: (b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3]) >>> 0 };
  names.forEach(function (name, at) { data[name] = s16(4 + 2 * at) / 10; });
  return { data: data };
}
"""
)


def _tags(sent: Sent) -> bytes:
    parts = (struct.pack(">Bh", at + 1, value) for at, value in enumerate(sent[1]))
    return b"\0" + struct.pack(">I", sent[0]) + b"".join(parts)


def _marked(sent: Sent) -> bytes:
    text = ",".join(["WX", str(sent[0]), *(f"{value / 10}" for value in sent[1])])
    check = 0
    for byte in text.encode():
        check ^= byte
    return f"${text}*{check:02X}\r\n".encode()


def _xml(sent: Sent) -> bytes:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in _json(sent).items())
    return f"<m>{inner}</m>".encode()


def _hj212(sent: Sent) -> bytes:
    at = time.strftime("%Y%m%d%H%M%S", time.gmtime(sent[0] + 28_800))
    values = ";".join(f"{code}-Rtd={value / 10},{code}-Flag=N" for code, value in zip(CODES, sent[1], strict=True))
    data = f"QN={at}001;ST=22;CN=2011;PW=123456;MN=4401060000000000000001AA;Flag=5;CP=&&DataTime={at};{values}&&"
    return hj212.build(data.encode())


def _sparkplug(sent: Sent | None) -> bytes:
    """Return the birth of a node, or its values by alias; without numbers, as one batch is decoded again and again."""
    at = number_field(3, (sent[0] if sent else SECOND) * 1_000)
    metrics = []
    for alias, name in enumerate(NAMES):
        value = tag(13, FIXED64) + struct.pack("<d", sent[1][alias] / 10 if sent else 0.0)
        named = b"" if sent else bytes_field(1, name.encode()) + number_field(4, 10)
        metrics.append(bytes_field(2, named + number_field(2, alias) + at + value))
    return b"".join(metrics)


def makers() -> dict[str, Maker]:
    """Return how each format, and each kind of binary layout, is measured."""
    pairs: Callable[[Sent], list[str]] = lambda sent: [f"{name}={value}" for name, value in _json(sent).items()]  # noqa: E731
    ts = {"name": "ts", "type": "u32"}
    named = {"each": ".", "time": {"field": "t", "format": "senml"}, "named": {"name": "name", "value": ["v"]}}
    return {
        "json": Maker({"time": TIME}, lambda sent: msgspec.json.encode(_json(sent))),
        "json, list": Maker(
            {"each": "l", "time": {"field": "at", "format": "epoch_s"}},
            lambda sent: msgspec.json.encode(
                {"ts": sent[0], "l": [{"v": v / 10, "at": sent[0] - 60 * at} for at, v in enumerate(sent[1])]}
            ),
            readings=[{"field": "v", "property": "air_temperature"}],
            baseline="json, list",
        ),
        "binary, fixed places": Maker(
            {"binary": {"length": 16, "read": [ts, *FIELDS]}, "time": TIME},
            lambda sent: struct.pack(">I6h", sent[0], *sent[1]),
            scale=0.1,
        ),
        "binary, flag word": Maker(
            {
                "time": TIME,
                "binary": {
                    "read": [
                        {"name": "_flags", "type": "u8"},
                        ts,
                        {"when": "_flags & 1", "read": FIELDS[:2]},
                        {"when": "_flags & 2", "read": FIELDS[2:4]},
                        {"when": "_flags & 4", "read": FIELDS[4:]},
                    ]
                },
            },
            lambda sent: struct.pack(">BI6h", 7, sent[0], *sent[1]),
            scale=0.1,
        ),
        "binary, tags": Maker(
            {
                "binary": {"read": [{"tlv": "u8", "cases": {at: [field] for at, field in enumerate([ts, *FIELDS])}}]},
                "time": TIME,
            },
            _tags,
            scale=0.1,
        ),
        "binary, list": Maker(
            {
                "binary": {
                    "read": [
                        ts,
                        {"name": "_n", "type": "u8"},
                        {"repeat": "_n", "name": "l", "read": [{"name": "v", "type": "s16"}, AGE]},
                        {"crc": "CRC-16/MODBUS", "endian": "little"},
                    ]
                },
                "each": "l",
                "time": {"field": "at", "format": "epoch_s"},
            },
            lambda sent: _with_crc(struct.pack(">IB6h", sent[0], 6, *sent[1])),
            readings=[{"field": "v", "property": "air_temperature", "scale": 0.1}],
            baseline="json, list",
        ),
        "script": Maker(
            {"script": {"file": "x.js"}, "time": TIME},
            lambda sent: struct.pack(">I6h", sent[0], *sent[1]),
            script=SCRIPT,
        ),
        "jsonlines": Maker(
            {"format": "jsonlines", "each": ".", "time": TIME}, lambda sent: msgspec.json.encode(_json(sent)) + b"\n"
        ),
        "senml": Maker({"format": "senml", **named}, lambda sent: msgspec.json.encode(_senml(sent))),
        "senml_cbor": Maker(
            {"format": "senml_cbor", **named},
            lambda sent: _cbor([{_LABELS[key]: value for key, value in record.items()} for record in _senml(sent)]),
        ),
        "cbor": Maker({"format": "cbor", "time": TIME}, lambda sent: _cbor(_json(sent))),
        "messagepack": Maker({"format": "messagepack", "time": TIME}, lambda sent: msgspec.msgpack.encode(_json(sent))),
        "csv": Maker(
            {"csv": {"columns": ["ts", *NAMES]}, "each": ".", "time": TIME},
            lambda sent: ",".join(map(str, _json(sent).values())).encode() + b"\n",
        ),
        "keyvalue": Maker({"format": "keyvalue", "time": TIME}, lambda sent: ";".join(pairs(sent)).encode()),
        "urlencoded": Maker({"format": "urlencoded", "time": TIME}, lambda sent: "&".join(pairs(sent)).encode()),
        "influx": Maker(
            {"format": "influx", "each": ".", "time": {"field": "time", "format": "epoch_ns"}},
            lambda sent: f"m,d=1 {','.join(pairs(sent)[1:])} {sent[0]}000000000\n".encode(),
            "fields.",
        ),
        "xml": Maker({"format": "xml", "time": TIME | {"field": "m.ts"}}, _xml, "m."),
        "text_frame": Maker(
            {
                "text_frame": {
                    "start": "$",
                    "end": "\r\n",
                    "check": {"name": "xor8", "before": "*"},
                    "separator": ",",
                    "fields": [{"equals": "WX"}, *({"name": n, "type": "number"} for n in ("ts", *NAMES))],
                },
                "time": TIME,
            },
            _marked,
        ),
        "number": Maker(
            {"format": "number"},
            lambda sent: str(sent[1][0] / 10).encode(),
            values=1,
            readings=[{"field": ".", "property": "air_temperature"}],
        ),
        "text": Maker(
            {"format": "text"}, lambda _: b"Online", values=1, readings=[{"field": ".", "property": "state"}]
        ),
        "sparkplug": Maker(
            {
                "format": "sparkplug",
                "topics": ["spBv1.0/g/NDATA/{device}", "spBv1.0/g/NBIRTH/{device}"],
                "each": "metrics",
                "time": {"field": "time", "format": "epoch_ms"},
                "named": {"name": "name", "value": ["value"], "skip": ["online"]},
            },
            _sparkplug,
            topic="spBv1.0/g/NDATA/*",
            first=("spBv1.0/g/NBIRTH/*", _sparkplug(None)),
        ),
        "hj212": Maker(
            {
                "format": "hj212",
                "each": "values",
                "time": {"field": "$.time"},
                "named": {"name": "name", "value": ["value"]},
            },
            _hj212,
            readings=[{"field": f"{code}-Rtd", "property": name} for code, name in zip(CODES, POLLUTANTS, strict=True)],
        ),
    }


def _with_crc(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return data + struct.pack("<H", crc)


def profiles(made: dict[str, Maker], folder: Path) -> ProfileSet:
    """Return the profiles of the makers, each ``bench/<number>``."""
    (folder / "bench").mkdir(exist_ok=True)
    for number, maker in enumerate(made.values()):
        readings = maker.readings or [
            {"field": maker.prefix + name if "named" not in maker.rule else name, "property": property_}
            | ({} if maker.scale == 1 else {"scale": maker.scale})
            for name, property_ in zip(NAMES, PROPERTIES, strict=True)
        ]
        rule = {"topics": [f"bench/{number}/{{device}}"], **maker.rule, "readings": readings}
        label = {"zh": "x", "en": "x"}
        text = {"profile": f"bench/{number}", "version": 1, "label": label, "source": "bench", "messages": [rule]}
        (folder / "bench" / f"{number}.yaml").write_text(json.dumps(text), encoding="utf-8")
        if maker.script:
            (folder / "bench" / "x.js").write_text(maker.script, encoding="utf-8")
    return ProfileSet.load([folder])


class Subject:
    """One format under measurement."""

    of = ""
    """The profile whose example it is, if it is one."""

    def __init__(self, loaded: ProfileSet, number: int, maker: Maker, messages: int) -> None:
        r = random.Random(7)
        self._decoder = Decoder(loaded, Fleet([f"bench/{number}"], DEVICES))
        self.batch = []
        topic, (topic_before, before) = maker.topic or f"bench/{number}/*", maker.first
        names = [f"d{at:05d}" for at in range(DEVICES)]
        if before:
            self._decoder.decode([Message(topic_before.replace("*", name), before, NOW, 0) for name in names])
        for at in range(messages):
            sent = (SECOND + at % 60, tuple(r.randrange(100, 900) for _ in NAMES))
            name = names[at % DEVICES]
            self.batch.append(Message(topic.replace("*", name), maker.payload(sent), NOW + at, at))
        fields = [self._decoder.decode(self.batch) for _ in range(3)][-1]
        self.rows = len(fields)
        self.refused = [f"{refused.reason.value}: {refused.detail}" for refused in fields.quarantined[:1]]
        self.complete = self.rows == messages * maker.values and not fields.quarantined

    def micros(self, clock: Callable[[], float]) -> float:
        """Return µs a message of one batch."""
        start = clock()
        self._decoder.decode(self.batch)
        return (clock() - start) / len(self.batch) * 1e6


class Borrowed(Subject):
    """A format measured with an example of the library: what its stations send."""

    def __init__(self, loaded: ProfileSet, name: str, messages: int, *, redacted: bool = True) -> None:
        """`redacted`: video metadata stand as the pipeline stores them; else the redaction is measured with them."""
        profile, example = next(
            (profile, example)
            for entity_id in loaded.ids
            if (profile := loaded.find(entity_id)) is not None and name in {rule.format for rule in profile.rules}
            for example in profile.source.examples
            if example.expect and not example.before
        )
        limits = IngestConfig(rate_per_device_s=1e9)  # one station sends all
        self._decoder = Decoder(loaded, NamedDevices(example.devices, profile.id, gateway=example.gateway), limits)
        message = message_of(example)
        video = next((rule.video for rule in profile.rules if rule.video), "")
        if redacted and video:  # as the pipeline hands it on
            cut = VIDEO_FORMATS[video].redact(
                message.payload, message.topic, message.received, temporary_pseudonymiser()
            )
            message = msgspec.structs.replace(message, payload=encode_redacted(video, cut))
        self.batch = [message] * messages
        fields = [self._decoder.decode(self.batch) for _ in range(3)][-1]
        self.rows = len(fields)
        self.refused = [f"{message.reason.value}: {message.detail}" for message in fields.quarantined[:1]]
        self.complete = self.rows == messages * len(example.expect) and not fields.quarantined
        self.of = profile.name


class Enveloped(Subject):
    """ChirpStack's envelope: with the bytes of a Dragino LSE01 for its own profile, or decoded by a codec there."""

    def __init__(self, loaded: ProfileSet, messages: int, *, decoded: bool) -> None:
        profile = "chirpstack/v4" if decoded else "dragino/lse01"
        self._decoder = Decoder(loaded, Fleet([profile], DEVICES))
        self.batch = []
        for at in range(messages):
            name = f"d{at % DEVICES:05d}"
            tree = {
                "deduplicationId": f"{at:08x}-2c3b",
                "time": "2026-01-01T00:00:00.250000+00:00",
                "deviceInfo": {"tenantName": "example", "applicationId": "a1", "devEui": name, "tags": {}},
                "devAddr": "0189bcd4",
                "dr": 5,
                "fCnt": at,
                "fPort": 2,
                "rxInfo": [{"gatewayId": "0016c001f1500812", "rssi": -69 - at % 9, "snr": 7.25, "crcStatus": "CRC_OK"}],
            }
            if decoded:
                tree["object"] = {"temperature": 24.5, "humidity": 40, "co2": 400 + at % 99, "battery": 97}
            else:
                frame = struct.pack(">6HB", 0x4E29, 0xF1, 1900 + at % 99, 2459, 281, 0, 0)[:11]
                tree["data"] = base64.b64encode(frame).decode()
            topic = f"application/a1/device/{name}/event/up"
            self.batch.append(Message(topic, msgspec.json.encode(tree), NOW + at, at))
        fields = [self._decoder.decode(self.batch) for _ in range(3)][-1]
        self.rows = len(fields)
        self.refused = [f"{message.reason.value}: {message.detail}" for message in fields.quarantined[:1]]
        self.complete = not fields.quarantined and self.rows % messages == 0
        self.of = profile


def measure(messages: int, rounds: int) -> list[dict[str, Any]]:
    """Return a line for each format."""
    made = makers()
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        loaded = profiles(made, Path(folder))
        subjects = {name: Subject(loaded, number, entry, messages) for number, (name, entry) in enumerate(made.items())}
        library = ProfileSet.load([LIBRARY])
        subjects |= {name: Borrowed(library, name, messages) for name in unmeasured()}
        subjects["video, with redaction"] = Borrowed(library, "video", messages, redacted=False)
        subjects["chirpstack, decoded"] = Enveloped(library, messages, decoded=True)
        subjects["chirpstack, bytes"] = Enveloped(library, messages, decoded=False)
        for name, subject in subjects.items():
            baseline = subjects[made[name].baseline if name in made else "json"]
            clock = _with_children if name == "script" else time.process_time
            pairs = [(subject.micros(clock), baseline.micros(time.process_time)) for _ in range(rounds)]
            figure, other = min(figure_of_pair for figure_of_pair, _ in pairs), min(pair for _, pair in pairs)
            line = {
                "bench": f"formats/{name}",
                "format": name,
                "figure": round(figure, 2),
                "unit": "CPU µs/message, with the child" if name == "script" else "CPU µs/message",
                "values": subject.rows // messages,
                "baseline": round(other, 2),
                "baseline_is": f"six values as JSON; {subject.of} here"
                if subject.of
                else "the same as JSON, CPU µs/message",
                "ratio": round(figure / other, 2),
                "bytes": len(subject.batch[0].payload),
                "complete": subject.complete,
            }
            lines.append(line | ({"refused": subject.refused} if subject.refused else {}))
    return lines


def _with_children() -> float:
    """Return the CPU time of this process and of the children that run scripts, in seconds."""
    children = decoding_pool().active
    return time.process_time() + sum(time.clock_gettime(~child.pid << 3 | 2) for child in children)


def unmeasured() -> list[str]:
    """Return the formats that have no maker here: examples of the library stand in."""
    measured = {name.partition(",")[0] for name in makers()}
    return sorted(set(FORMATS) - measured)


async def bench(*, messages: int = BATCH, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the ratio of the dearest binary layout to JSON, and a line for each format."""
    lines = measure(int(messages), int(rounds))
    binary = [line for line in lines if line["format"].startswith("binary")]
    worst = max(binary, key=lambda line: float(line["ratio"]))
    return {
        "figure": worst["ratio"],
        "unit": "dearest binary layout / JSON, CPU of a message",
        "goal": GOAL,
        "binary": {line["format"]: line["figure"] for line in binary},
        "baseline": worst["baseline"],
        "baseline_is": "the same values as JSON, CPU µs/message",
        "complete": all(line["complete"] for line in lines),
        "each": lines,
    }


def main() -> None:
    """Print the lines."""
    for line in measure(BATCH, ROUNDS):
        print(
            json.dumps(line, ensure_ascii=False)
            if "--json" in sys.argv
            else f"{line['figure']:8.2f} µs  {line['ratio']:6.2f}  {line['format']}"
        )


if __name__ == "__main__":
    main()
