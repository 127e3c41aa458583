"""Layouts of repositories of codecs, and what their examples hold: subfolders, packages, tables of words, records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensegate.authoring.examples import check_profile
from sensegate.authoring.imports import ImportedProfile, import_from
from sensegate.authoring.imports.codecs import inspects_port
from sensegate.decode.grammar import parse

DOOR = """
function decodeUplink(input) {
  if (input.bytes.length < 3) { return { errors: ["too short"] }; }
  return { data: {
    temperature: (input.bytes[0] << 8 | input.bytes[1]) / 10,
    door: input.bytes[2] ? "open" : "closed",
    exhaust_humidity: 41
  } };
}
"""
"""A script that never looks at the port, and refuses frames that are too short."""
DOOR_EXAMPLES: list[dict[str, Any]] = [
    {
        "description": "open",
        "input": {"fPort": 7, "bytes": [0, 215, 1]},
        "output": {"data": {"temperature": 21.5, "door": "open", "exhaust_humidity": 41}},
    },
    {
        "description": "closed",
        "input": {"fPort": 7, "bytes": [0, 200, 0]},
        "output": {"data": {"temperature": 20.0, "door": "closed", "exhaust_humidity": 41}},
    },
]
RECORDS = """
function decodeUplink(input) {
  var b = input.bytes, out = { temperature: b[0], history: [] };
  for (var i = 1; i + 1 < b.length; i += 2) {
    out.history.push({ timestamp: 1767225600 - b[i] * 60, temperature: b[i + 1] });
  }
  if (input.fPort !== 85) { return { errors: ["port"] }; }
  return { data: out };
}
"""


def vendor_folder(folder: Path, script: str, examples: list[dict[str, Any]], file: str = "payload/x.js") -> Path:
    """Write a vendor's folder of The Things Network with one device, whose script lies at `file`."""
    vendor = folder / "acme"
    (vendor / file).parent.mkdir(parents=True)
    (vendor / file).write_text(script, encoding="utf-8")
    (vendor / "index.yaml").write_text("endDevices: [x]\n", encoding="utf-8")
    firmware = [{"version": "1.0", "profiles": {"EU863-870": {"id": "p", "codec": "x-codec"}}}]
    (vendor / "x.yaml").write_text(json.dumps({"name": "X", "firmwareVersions": firmware}), encoding="utf-8")
    codec = {"uplinkDecoder": {"fileName": file, "examples": examples}}
    (vendor / "x-codec.yaml").write_text(json.dumps(codec), encoding="utf-8")
    return vendor


def problems(folder: Path, imported: ImportedProfile) -> list[str]:
    """Write a profile as the command does; return what `check` finds."""
    file = folder / f"{imported.profile}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(imported.text, encoding="utf-8")
    for name, text in imported.files.items():
        (file.parent / name).write_text(text, encoding="utf-8")
    return [str(problem) for problem in check_profile(file)]


def test_a_script_in_a_subfolder_and_words_of_a_named_table(tmp_path: Path) -> None:
    """The script is found below the vendor's folder; `open` and `closed` are expected as true and false."""
    (imported,) = import_from(vendor_folder(tmp_path, DOOR, DOOR_EXAMPLES))
    assert problems(tmp_path / "out", imported) == []
    source = parse(imported.text)[0]
    assert {reading.field: reading.words for reading in source.messages[0].readings} == {
        "temperature": None,
        "door": "open_closed",
    }
    assert [value.value for value in source.examples[0].expect] == [21.5, True]
    rows = {row.field: row.outcome for row in imported.rows}
    assert rows["exhaust_humidity"] == "guessed"
    assert "# - {field: exhaust_humidity" in imported.text


def test_a_script_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    """A description cannot name a file of the machine."""
    vendor = vendor_folder(tmp_path, DOOR, DOOR_EXAMPLES)
    codec = {"uplinkDecoder": {"fileName": "../outside.js", "examples": DOOR_EXAMPLES}}
    (tmp_path / "outside.js").write_text(DOOR, encoding="utf-8")
    (vendor / "x-codec.yaml").write_text(json.dumps(codec), encoding="utf-8")
    (imported,) = import_from(vendor)
    assert imported.text == ""
    assert "outside" in imported.problem


def test_a_script_that_never_looks_at_the_port_takes_every_port(tmp_path: Path) -> None:
    """The makers' devices may send on another port than the example's; the refusal is one that the script shows."""
    (imported,) = import_from(vendor_folder(tmp_path, DOOR, DOOR_EXAMPLES))
    source = parse(imported.text)[0]
    assert source.messages[0].frames is not None
    assert source.messages[0].frames.ports == ()
    assert source.examples[-1].refuse == "script_refused"
    assert source.examples[-1].port == 7


def test_a_script_that_accepts_anything_keeps_the_ports_of_its_examples(tmp_path: Path) -> None:
    """Nothing else can be refused; the profile says that the device may use others."""
    script = "function decodeUplink(input) { return { data: { temperature: (input.bytes[0] || 0) / 10 } }; }"
    examples = [{"input": {"fPort": 7, "bytes": [215]}, "output": {"data": {"temperature": 21.5}}}]
    (imported,) = import_from(vendor_folder(tmp_path, script, examples))
    assert problems(tmp_path / "out", imported) == []
    frames = parse(imported.text)[0].messages[0].frames
    assert frames is not None
    assert frames.ports == (7,)
    assert "does not look at the port" in imported.text


@pytest.mark.parametrize(
    ("script", "inspected"),
    [
        ("function decodeUplink(input) { return decode(input.bytes, input.fPort); }", True),
        ("function Decoder(bytes, port) { if (port == 2) { return {}; } }", True),
        ("function Decoder(bytes, port) { return { a: bytes[0] }; }", False),
        ("function Decode(fPort, bytes, variables) { return { a: bytes[0] }; }", False),
        ("// fPort is 85\nfunction decodeUplink(input) { return {}; } /* port */", False),
        ("const decode = (bytes, fPort) => ({ a: bytes[0] });", False),
    ],
)
def test_whether_a_script_looks_at_the_port(script: str, inspected: bool) -> None:  # noqa: FBT001 - a column
    """A parameter or a comment of that name is no look."""
    assert inspects_port(script) is inspected


def test_records_go_to_their_own_times(tmp_path: Path) -> None:
    """The value now at the arrival, each record at the time that it states; the maker's values are expected there."""
    examples: list[dict[str, Any]] = [
        {
            "description": "two records",
            "input": {"fPort": 85, "bytes": [21, 20, 19, 10, 20], "recvTime": "2026-01-01T00:00:10Z"},
            "output": {
                "data": {
                    "temperature": 21,
                    "history": [
                        {"timestamp": 1767224400, "temperature": 19},
                        {"timestamp": 1767225000, "temperature": 20},
                    ],
                }
            },
        },
        {"input": {"fPort": 85, "bytes": [22]}, "output": {"data": {"temperature": 22, "history": []}}},
    ]
    (imported,) = import_from(vendor_folder(tmp_path, RECORDS, examples))
    assert problems(tmp_path / "out", imported) == []
    source = parse(imported.text)[0]
    assert [(reading.field, reading.each) for reading in source.messages[0].readings] == [
        ("temperature", ""),
        ("temperature", "history"),
    ]
    assert [(value.value, value.time) for value in source.examples[0].expect] == [
        (21, ""),
        (19, "2025-12-31T23:40:00Z"),
        (20, "2025-12-31T23:50:00Z"),
    ]


def test_an_example_without_bytes_is_left_out(tmp_path: Path) -> None:
    """A frame without bytes carries nothing; the report says so, and the rest is clean."""
    empty: dict[str, Any] = {
        "description": "empty",
        "input": {"fPort": 7, "bytes": []},
        "output": {"errors": ["too short"]},
    }
    (imported,) = import_from(vendor_folder(tmp_path, DOOR, [*DOOR_EXAMPLES, empty]))
    assert problems(tmp_path / "out", imported) == []
    assert [row.reason for row in imported.rows if row.field == "example 'empty'"] == [
        "it has no bytes, and a frame without bytes carries nothing"
    ]


def test_a_proposed_property_is_in_the_report(tmp_path: Path) -> None:
    """What the table lacks has a row of its own, with name and unit."""
    script = "function decodeUplink(i) { return { data: { temperature: i.bytes[0], ct_ratio: i.bytes[1] } }; }"
    examples = [{"input": {"fPort": 7, "bytes": [21, 60]}, "output": {"data": {"temperature": 21, "ct_ratio": 60}}}]
    (imported,) = import_from(vendor_folder(tmp_path, script, examples))
    (row,) = [row for row in imported.rows if row.field == "ct_ratio"]
    assert (row.outcome, row.property, row.unit) == ("proposed", "current_transformer_ratio", "1")
    assert "propose it" in imported.text


def test_json5_examples_of_chirpstack(tmp_path: Path) -> None:
    """Names without quotes, single quotes, hexadecimal bytes, comments."""
    vendor = tmp_path / "vendors" / "acme"
    for name in ("devices", "codecs"):
        (vendor / name).mkdir(parents=True)
    (vendor / "vendor.toml").write_text('[vendor]\nname = "Acme"\n', encoding="utf-8")
    (vendor / "devices" / "x.toml").write_text(
        '[device]\nname = "X"\n[[device.firmware]]\ncodec = "sub/x.js"\n', encoding="utf-8"
    )
    (vendor / "codecs" / "sub").mkdir()
    (vendor / "codecs" / "sub" / "x.js").write_text(DOOR, encoding="utf-8")
    (vendor / "codecs" / "sub" / "test_decode_x.json").write_text(
        "[{name: 'open', // as in the manual\n input: {fPort: 0x7, bytes: [0x00, 0xd7, +1,]},"
        " expected: {data: {temperature: 21.5, 'door': 'open', exhaust_humidity: 41.}}}]",
        encoding="utf-8",
    )
    (imported,) = import_from(tmp_path)
    assert problems(tmp_path / "out", imported) == []
    assert [value.value for value in parse(imported.text)[0].examples[0].expect] == [21.5, True]


@pytest.mark.parametrize("form", ["hex", "list", "beside"])
def test_packages_of_codecs(tmp_path: Path, form: str) -> None:
    """A package of one device, alone or in a repository of many; examples of downlinks are none of ours."""
    folder = tmp_path / "vendors" / "acme" / "drivers" / "x"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(
        json.dumps({"name": "acme-x", "version": "1.2.3", "description": "Door", "main": "index.js", "author": "Acme"}),
        encoding="utf-8",
    )
    (folder / "index.js").write_text("const d = require('./decode.js'); exports.decodeUplink = d;", encoding="utf-8")
    (folder / "decode.js").write_text(DOOR, encoding="utf-8")
    data = DOOR_EXAMPLES[0]["output"]["data"]
    entry: dict[str, Any] = {"type": "uplink", "description": "open", "input": {"fPort": 7, "bytes": [0, 215, 1]}}
    if form == "hex":
        entry["input"]["bytes"] = "00d701"
    entry["output"] = {"data": data}
    if form == "beside":
        entry = {"type": "uplink", "name": "open", "fPort": 7, "payloadHex": "00D701", "decoded": data}
    downlink = {"type": "downlink-encode", "input": {"data": {}}, "output": {"bytes": [1]}}
    (folder / "examples.json").write_text(json.dumps([entry, downlink]), encoding="utf-8")
    for path in (tmp_path, folder):
        (imported,) = import_from(path)
        assert imported.profile == "acme/x"
        assert problems(tmp_path / "out", imported) == []
        assert "acme-x 1.2.3 by Acme" in imported.text


@pytest.mark.parametrize(
    ("package", "script", "why"),
    [
        ("[]", DOOR, "no object"),
        ("{}", "exports.x = require('./y')", "no script"),
        ("{", DOOR, ""),
        ('{"main": "../../x.js"}', DOOR, "outside"),
    ],
)
def test_a_package_that_cannot_be_imported_is_told(tmp_path: Path, package: str, script: str, why: str) -> None:
    """A row of the report and no profile."""
    (tmp_path / "package.json").write_text(package, encoding="utf-8")
    (tmp_path / "index.js").write_text(script, encoding="utf-8")
    (tmp_path / "examples.json").write_text("[]", encoding="utf-8")
    (imported,) = import_from(tmp_path)
    assert imported.text == ""
    assert why in imported.problem


# ── Zigbee2MQTT ──────────────────────────────────────────────────────────────────────────────────────


def exposed(tmp_path: Path, description: str, *exposes: dict[str, Any]) -> ImportedProfile:
    """Import a model with these exposes."""
    file = tmp_path / "x.json"
    file.write_text(
        json.dumps({"model": "X", "vendor": "Acme", "description": description, "exposes": list(exposes)}),
        encoding="utf-8",
    )
    (imported,) = import_from(file)
    assert problems(tmp_path / "out", imported) == []
    return imported


def number(name: str, unit: str) -> dict[str, Any]:
    """Return an exposed number."""
    return {"property": name, "type": "numeric", "unit": unit, "access": 1}


def test_the_state_of_a_lock_is_no_switch(tmp_path: Path) -> None:
    """LOCK and UNLOCK say locked; other words say nothing that the table has."""
    lock = {"property": "state", "type": "binary", "value_on": "LOCK", "value_off": "UNLOCK"}
    imported = exposed(tmp_path, "Lock", {"type": "lock", "features": [lock]})
    (reading,) = parse(imported.text)[0].messages[1].readings
    assert (reading.property, reading.words) == ("locked", {"LOCK": True, "UNLOCK": False})
    window = {"property": "state", "type": "binary", "value_on": "preparation", "value_off": "work"}
    imported = exposed(tmp_path, "Machine", window)
    assert [row.outcome for row in imported.rows] == ["skipped"]


def test_the_position_of_a_cover_is_no_valve(tmp_path: Path) -> None:
    """What holds the member decides; a position of nothing is left out."""
    imported = exposed(tmp_path, "Blind", {"type": "cover", "features": [number("position", "%")]})
    assert [(row.property, row.outcome) for row in imported.rows] == [("blind_position", "mapped")]
    imported = exposed(tmp_path, "Motor", number("position", "%"))
    assert [row.outcome for row in imported.rows] == ["skipped"]


def test_what_a_device_measures_may_stand_in_its_description(tmp_path: Path) -> None:
    """The pressure in a water pipe is none of the air, the temperature of a plug is its own: guesses, both."""
    for description, name, unit in (
        ("Water pressure monitor", "pressure", "kPa"),
        ("Smart plug", "temperature", "°C"),
        ("Soil sensor", "humidity", "%"),
    ):
        imported = exposed(tmp_path, description, number(name, unit))
        assert [row.outcome for row in imported.rows] == ["guessed"], description
    imported = exposed(tmp_path, "Weather station", number("pressure", "kPa"), number("temperature", "°C"))
    assert [row.outcome for row in imported.rows] == ["mapped", "mapped"]


def test_a_model_without_measurements_is_clean(tmp_path: Path) -> None:
    """A router reports its availability alone."""
    imported = exposed(
        tmp_path, "Router", {"property": "identify", "type": "enum", "values": ["identify"], "access": 2}
    )
    assert parse(imported.text)[0].examples[-1].refuse == "malformed"
