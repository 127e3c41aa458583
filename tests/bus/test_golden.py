"""Records written by earlier releases are read as they were meant. A golden file is never written again.

A new format gets new files beside the old: ``python -m tests.bus.test_golden NUMBER`` writes those that are missing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sensegate.bus import raw
from sensegate.bus.columns import Batch, LocalColumns, Origins, WordColumn, concat, decode, encode
from sensegate.bus.commit_records import decode_commit, encode_commit
from sensegate.bus.ledger import Ledger
from sensegate.bus.raw import StoredMessage
from sensegate.model import CommitRecord, Message, SourcePosition

GOLDEN = Path(__file__).parent / "golden"


def batch() -> Batch:
    """Return a batch that uses every column."""
    return Batch(
        "4401",
        0,
        Origins(
            ["gz-air-1", "gz-door-2"],
            WordColumn.of(["440106", "440103"]),
            WordColumn.of(["environment", ""]),
            WordColumn.of(["air", "buildings"]),
            WordColumn.of(["acme/th10@3", "huayi/md1@1"]),
            np.array([113.3612, np.nan]),
            np.array([23.1247, np.nan]),
            np.array([1, 2], np.uint8),
        ),
        ["air_temperature", "air_temperature", "door_state"],
        np.array([0, 0, 0, 1], np.uint32),
        np.array([0, 0, 1, 2], np.uint16),
        np.array([1_767_225_600_000_123, 1_767_225_601_000_000, 1_767_225_600_000_123, 1_767_225_599_500_000]),
        np.array([1_767_225_600_104_000] * 3 + [1_767_225_600_200_000]),
        np.array([21.5, -0.125, 1 / 3, np.nan]),
        {3: "open"},
        np.array([0, 65, 0, 0], np.uint8),
        np.array([0, 8, 0, 4096], np.uint32),
        np.array([0, 0, 0, 3], np.uint8),
        np.array([0, 0, 2, 0], np.uint8),
        np.zeros(4, np.int64),
        np.zeros(4, np.uint32),
        LocalColumns(
            np.array([1_767_225_600_000_123, 77, -5, 1_767_225_599_500_000]),
            np.array([7, 7, 7, 65_535], np.uint16),
            np.array([0, 1, 18, 0], np.uint8),
            np.array([0, 0, 0, 1], np.uint32),
            np.array([1, (1 << 64) - 1], np.uint64),
        ),
        ["", "2", ""],
    )


def facts(batch: Batch) -> dict[str, Any]:
    """Return a batch as plain values."""
    tree: dict[str, Any] = {
        "node": batch.node,
        "partition": batch.partition,
        "variables": [list(pair) for pair in batch.variables()],
        "text": {str(row): word for row, word in batch.text.items()},
        "device": batch.origins.device,
        **{name: getattr(batch.origins, name).tolist() for name in ("division", "department", "domain", "profile")},
        "lon": [None if np.isnan(x) else x for x in batch.origins.lon.tolist()],
        "lat": [None if np.isnan(x) else x for x in batch.origins.lat.tolist()],
        "grade_of_origin": batch.origins.grade.tolist(),
        "value": [None if np.isnan(x) else x for x in batch.value.tolist()],
    }
    for name in (
        "origin",
        "property",
        "time",
        "received",
        "quality",
        "flags",
        "time_quality",
        "revision",
        "seq",
        "index",
    ):
        tree[name] = getattr(batch, name).tolist()
    if batch.local:
        tree["local"] = {
            name: getattr(batch.local, name).tolist() for name in ("key", "path", "identity", "message", "digest")
        }
    return tree


MESSAGES = [
    Message("sg/a/up", b"{}", 1_767_225_600_104_000, 41, "a"),
    Message("t", b"\xff\x00", 5, 42, "", best_effort=True),
]
KEPT = [
    StoredMessage(MESSAGES[1], "mqtt", "not_utf8", "byte 0", "gz-1", "acme/th10@3"),
    StoredMessage(MESSAGES[0], "http", "schema"),
]
RECORD = CommitRecord("b1", 9, 5, {"mqtt": SourcePosition("life", 42)}, {"messages": 2}, {"acme/th10": 3}, 17)


def ledger() -> Ledger:
    """Return a small ledger."""
    made = Ledger()
    made.add(490_896, "gz-1", "mqtt", "messages", 70_000)
    made.add(490_897, "", "foreign:north", "quarantined.schema", 1)
    return made


def made() -> dict[str, bytes]:
    """Return what this release writes."""
    return {
        "batch.bin": encode(batch()),
        "wire.bin": encode(concat([decode(encode(batch()), sequence=17), decode(encode(batch()), sequence=19)])),
        "raw.bin": raw.encode(MESSAGES, ["mqtt", "http"]),
        "kept.bin": raw.encode_quarantined(KEPT),
        "ledger.bin": ledger().encode(),
        "commit.json": encode_commit(RECORD),
    }


def kept_of(message: Message) -> dict[str, Any]:
    """Return a message as its record holds it: that it was cut is known inside a process alone (`Message.cut`)."""
    assert not message.cut
    tree: dict[str, Any] = msgspec.to_builtins(message)
    del tree["cut"]
    if not message.redelivered:
        del tree["redelivered"]  # records without such a message hold no column of it
    return tree


def read(name: str, payload: bytes) -> Any:
    """Return what a record says, as plain values."""
    kind = name.partition(".")[0]
    if kind in ("batch", "wire"):
        return facts(decode(payload, sequence=12))
    if kind == "raw":
        return [[kept_of(message), source] for message, source in raw.decode(payload)]
    if kind == "kept":
        return [
            {**msgspec.to_builtins(stored), "message": kept_of(stored.message)}
            for stored in raw.decode_quarantined(payload)
        ]
    if kind == "ledger":
        return msgspec.to_builtins(list(Ledger.decode(payload).rows()))
    return msgspec.to_builtins(decode_commit(payload))


@pytest.mark.parametrize(
    "path", sorted(path for path in GOLDEN.glob("*-*") if ".says." not in path.name), ids=lambda path: path.name
)
def test_an_old_record_says_what_it_said(path: Path) -> None:
    """What an earlier release wrote is read to the same values."""
    decoded = msgspec.json.decode((GOLDEN / f"{path.name}.says.json").read_bytes())
    name = path.name.partition("-")[2]
    assert msgspec.json.decode(msgspec.json.encode(read(name, path.read_bytes()))) == decoded


@pytest.mark.parametrize("name", sorted(made()))
def test_every_record_has_a_golden_file(name: str) -> None:
    """Each kind of record of this format has its file, and this release still writes the same meaning."""
    path = GOLDEN / f"1-{name}"
    assert path.exists()
    assert read(name, made()[name]) == read(name, path.read_bytes())


if __name__ == "__main__":
    for name, payload in made().items():
        place = GOLDEN / f"{sys.argv[1]}-{name}"
        if not place.exists():
            place.write_bytes(payload)
            formatted = msgspec.json.format(msgspec.json.encode(read(name, payload)), indent=1)
            (GOLDEN / f"{place.name}.says.json").write_bytes(formatted)
