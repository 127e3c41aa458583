"""Import: what others wrote down of their devices becomes profiles that work, with a report of every member."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sensegate.authoring.examples import check_profile
from sensegate.authoring.imports import ImportedProfile, import_from, json5
from sensegate.authoring.imports.profile_text import expected_value
from sensegate.authoring.learn.guess import Guess
from sensegate.cli import app
from sensegate.decode.grammar import parse
from sensegate.errors import ConfigError

SCRIPT = """
function readInt16(bytes, i) { var v = bytes[i] << 8 | bytes[i + 1]; return v > 32767 ? v - 65536 : v; }
function decodeUplink(input) {
  if (input.fPort !== 2) { return { errors: ["unknown FPort"] }; }
  return { data: {
    temperature: readInt16(input.bytes, 0) / 10,
    humidity: input.bytes[2],
    batV: (input.bytes[3] * 20) / 1000,
    door: input.bytes[4] === 1,
    mode: "auto"
  } };
}
"""
NORMALISE = """
function normalizeUplink(input) {
  return { data: [{ air: { temperature: input.data.temperature, relativeHumidity: input.data.humidity } }] };
}
"""
GOOD: list[dict[str, Any]] = [
    {
        "description": "warm and open",
        "input": {"fPort": 2, "bytes": [0, 215, 60, 180, 1]},
        "output": {"data": {"temperature": 21.5, "humidity": 60, "batV": 3.6, "door": True, "mode": "auto"}},
    },
    {
        "description": "frost",
        "input": {"fPort": 2, "bytes": [255, 156, 90, 170, 0]},
        "output": {"data": {"temperature": -10, "humidity": 90, "batV": 3.4, "door": False, "mode": "auto"}},
    },
]
REFUSED: dict[str, Any] = {
    "description": "another port",
    "input": {"fPort": 9, "bytes": [1]},
    "output": {"errors": ["unknown FPort"]},
}


def written(folder: Path, made: ImportedProfile) -> list[str]:
    """Write a profile as the command does; return what `check` says."""
    file = folder / f"{made.profile}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(made.text, encoding="utf-8")
    for name, text in made.files.items():
        (file.parent / name).write_text(text, encoding="utf-8")
    return [str(problem) for problem in check_profile(file)]


# ── The Things Network ───────────────────────────────────────────────────────────────────────────────


def ttn(folder: Path, examples: list[dict[str, Any]], script: str = SCRIPT) -> Path:
    """Write a vendor folder with one device, laid out as the device repository lays them out."""
    vendor = folder / "vendor" / "acme"
    vendor.mkdir(parents=True)
    (vendor / "index.yaml").write_text("endDevices:\n  - th10\n", encoding="utf-8")
    device = {
        "name": "TH10",
        "description": "Thermometer for a cold store",
        "firmwareVersions": [
            {"version": "1.0", "profiles": {"EU863-870": {"id": "th10-profile", "codec": "old-codec"}}},
            {"version": "2.0", "profiles": {"EU863-870": {"id": "th10-profile", "codec": "th10-codec"}}},
        ],
        "dataSheetURL": "https://acme.example/th10.pdf",
    }
    (vendor / "th10.yaml").write_text(json.dumps(device), encoding="utf-8")
    codec = {"uplinkDecoder": {"fileName": "th10.js", "examples": examples}}
    (vendor / "th10-codec.yaml").write_text(json.dumps(codec), encoding="utf-8")
    (vendor / "th10.js").write_text(script, encoding="utf-8")
    return vendor


def test_a_device_of_the_things_network(tmp_path: Path) -> None:
    """Script, ports and members of the last firmware's codec; the maker's examples become ours and pass."""
    (made,) = import_from(ttn(tmp_path, [*GOOD, REFUSED]))
    assert made.profile == "acme/th10"
    assert made.files == {"th10.js": SCRIPT}
    assert written(tmp_path / "out", made) == []
    source, _ = parse(made.text)
    rule = source.messages[0]
    assert rule.frames is not None
    assert rule.frames.ports == (2,)
    assert rule.script is not None
    assert rule.script.file == "th10.js"
    assert {reading.field: reading.property for reading in rule.readings} == {
        "temperature": "air_temperature",
        "humidity": "relative_humidity",
        "batV": "battery_voltage",
        "door": "door_open",
        "mode": "mode",
    }
    assert [bool(example.refuse) for example in source.examples] == [False, False, True]
    assert source.examples[1].expect[0].value == -10
    assert "acme.example/th10.pdf" in source.source
    assert ("codec old-codec", "skipped") in [(row.field, row.outcome) for row in made.rows]


def test_one_device_of_a_vendor_can_be_named(tmp_path: Path) -> None:
    """The file of the device in place of the vendor's folder."""
    vendor = ttn(tmp_path, GOOD)
    assert [imported.profile for imported in import_from(vendor / "th10.yaml")] == ["acme/th10"]


def test_the_report_says_how_each_member_was_taken(tmp_path: Path) -> None:
    """Mapped where name and values say the same in the property's own unit, guessed else."""
    (made,) = import_from(ttn(tmp_path, GOOD))
    rows = {row.field: row for row in made.rows}
    assert (rows["humidity"].outcome, rows["humidity"].property, rows["humidity"].unit) == (
        "mapped",
        "relative_humidity",
        "%",
    )
    assert rows["temperature"].reason.startswith("'temperature' says air temperature")


def test_a_port_that_is_not_used_is_the_refusal_where_the_maker_shows_none(tmp_path: Path) -> None:
    """Every profile has a refusal."""
    (made,) = import_from(ttn(tmp_path, GOOD))
    assert written(tmp_path / "out", made) == []
    assert parse(made.text)[0].examples[-1].refuse == "schema"


def test_normalised_values_are_taken_with_their_units(tmp_path: Path) -> None:
    """What the schema of normalised payloads fixes is mapped, and the raw member of the same property left out."""
    good = [
        {
            **item,
            "normalizedOutput": {
                "data": [
                    {
                        "air": {
                            "temperature": item["output"]["data"]["temperature"],
                            "relativeHumidity": item["output"]["data"]["humidity"],
                        }
                    }
                ]
            },
        }
        for item in GOOD
    ]
    (made,) = import_from(ttn(tmp_path, good, SCRIPT + NORMALISE))
    assert written(tmp_path / "out", made) == []
    rows = {row.field: row for row in made.rows}
    assert rows["normalized[0].air.temperature"].outcome == "mapped"
    assert rows["data.temperature"].outcome == "skipped"
    assert rows["data.batV"].property == "battery_voltage"
    rule = parse(made.text)[0].messages[0]
    assert rule.script is not None
    assert rule.script.take == "both"


def test_a_wrong_script_is_told_by_the_makers_own_examples(tmp_path: Path) -> None:
    """The values that examples expect are the maker's: a script that gives others fails its check."""
    (made,) = import_from(ttn(tmp_path, GOOD, SCRIPT.replace("/ 10", "/ 100")))
    assert any("air_temperature = 21.5" in item for item in written(tmp_path / "out", made))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"th10-codec.yaml": "{}"}, "decodes no uplinks"),
        ({"th10.yaml": "{name: TH10}"}, "no codec"),
        ({"th10-codec.yaml": "uplinkDecoder: {fileName: th10.js}"}, "no examples"),
        ({"th10-codec.yaml": "uplinkDecoder: {fileName: gone.js}"}, "cannot be read"),
        ({"th10.yaml": "{"}, "is not YAML"),
    ],
)
def test_what_cannot_be_imported_is_told(tmp_path: Path, change: dict[str, str], why: str) -> None:
    """A device without a codec, a codec without examples, a file that is not there: a row of the report, no profile."""
    vendor = ttn(tmp_path, GOOD)
    for name, text in change.items():
        (vendor / name).write_text(text, encoding="utf-8")
    (made,) = import_from(vendor)
    assert made.text == ""
    assert why in made.problem
    assert made.rows[0].outcome == "skipped"


# ── ChirpStack ───────────────────────────────────────────────────────────────────────────────────────

TESTS = """
[
  // hexadecimal numbers and comments, as in the repository
  {"name": "warm", "input": {"fPort": 0x02, "bytes": [0x00, 0xd7, 0x3c, 0xb4, 0x01]},
   "expected": {"data": {"temperature": 21.5, "humidity": 60, "batV": 3.6, "door": true, "mode": "auto"}}},
  {"name": "cold // not a comment", "input": {"fPort": 2, "bytes": [255, 156, 90, 170, 0]},
   "expected": {"data": {"temperature": -10, "humidity": 90, "batV": 3.4, "door": false, "mode": "auto"}},},
]
"""


def chirpstack(folder: Path, *, firmware: str = 'codec = "th.js"') -> Path:
    vendor = folder / "vendors" / "acme"
    for name in ("devices", "codecs", "profiles"):
        (vendor / name).mkdir(parents=True)
    (vendor / "vendor.toml").write_text('[vendor]\nname = "Acme"\nouis = ["a84041"]\n', encoding="utf-8")
    (vendor / "devices" / "th10.toml").write_text(
        f'[device]\nname = "TH10"\ndescription = "Thermometer"\n\n[[device.firmware]]\nversion = "1.0"\n{firmware}\n',
        encoding="utf-8",
    )
    (vendor / "codecs" / "th.js").write_text(SCRIPT, encoding="utf-8")
    (vendor / "codecs" / "test_decode_th.json").write_text(TESTS, encoding="utf-8")
    return folder


def test_a_device_of_chirpstack(tmp_path: Path) -> None:
    """The codec that the firmware names, its tests as examples; the whole repository or one vendor's folder."""
    root = chirpstack(tmp_path)
    (made,) = import_from(root)
    assert made == next(import_from(root / "vendors" / "acme"))
    assert made.profile == "acme/th10"
    assert written(tmp_path / "out", made) == []
    source, _ = parse(made.text)
    assert source.label.en == "Acme TH10: Thermometer"
    assert [example.label for example in source.examples][:2] == ["warm", "cold // not a comment"]


def test_chirpstacks_files_may_be_yaml(tmp_path: Path) -> None:
    """Vendor and device in YAML in place of TOML; the script of the device's own name where none is named."""
    vendor = chirpstack(tmp_path) / "vendors" / "acme"
    (vendor / "vendor.toml").unlink()
    (vendor / "devices" / "th10.toml").unlink()
    (vendor / "vendor.yaml").write_text("vendor: {name: Acme}\n", encoding="utf-8")
    (vendor / "devices" / "th.yaml").write_text("device: {name: TH, description: Thermometer}\n", encoding="utf-8")
    (made,) = import_from(tmp_path)
    assert made.profile == "acme/th"
    assert written(tmp_path / "out", made) == []


def test_a_device_without_a_codec_is_left(tmp_path: Path) -> None:
    """No codec named and none of the device's name: left, with the reason."""
    (made,) = import_from(chirpstack(tmp_path, firmware="profiles = []"))
    assert "names no codec" in made.problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 0x7f} // x', {"a": 127}),
        ('{"a": "// 0x7f", /* b */ "c": [1, 2,],}', {"a": "// 0x7f", "c": [1, 2]}),
        (r'{"a\\": "\"0x1"}', {"a\\": '"0x1'}),
        (
            "{a: 'it\\'s', $b: +1.5, c_1: .5, d: 5., e: -0x10, 'f g': \"//\"}",
            {"a": "it's", "$b": 1.5, "c_1": 0.5, "d": 5.0, "e": -16, "f g": "//"},
        ),
        ("[1, /* two */ 2, // three\n]", [1, 2]),
        (
            "[true, null, 1e3, 'a\\x41\\u00e9\\n', 'x: 1', \"{a: 'b'}\"]",
            [True, None, 1000.0, "aA\u00e9\n", "x: 1", "{a: 'b'}"],
        ),
    ],
)
def test_javascripts_json_is_read(text: str, value: Any) -> None:
    """Comments, names without quotes, hexadecimal numbers, last commas; what stands in texts stays."""
    assert json5.loads(text) == value


# ── Zigbee2MQTT ──────────────────────────────────────────────────────────────────────────────────────

EXPOSES = [
    {"property": "temperature", "type": "numeric", "unit": "°C", "access": 1},
    {"property": "temperature_calibration", "type": "numeric", "unit": "°C"},
    {"property": "voltage", "type": "numeric", "unit": "mV"},
    {"property": "battery", "type": "numeric", "unit": "%", "value_min": 0, "value_max": 100},
    {"property": "contact", "type": "binary", "value_on": False, "value_off": True},
    {"property": "voc", "type": "numeric", "unit": "ppb"},
    {"property": "power_a", "type": "numeric", "unit": "W"},
    {"property": "power_b", "type": "numeric", "unit": "W"},
    {"type": "switch", "features": [{"property": "state", "type": "binary", "value_on": "ON", "value_off": "OFF"}]},
    {"property": "air_quality", "type": "enum", "values": ["excellent", "dreadful"]},
    {"property": "identify", "type": "enum", "values": ["identify"], "access": 2},
    {"property": "warp", "type": "numeric", "unit": "furlong"},
]


def test_exposes_become_a_profile(tmp_path: Path) -> None:
    """Units and words of the model; settings and what is not published are left out and named."""
    file = tmp_path / "exposes.json"
    file.write_text(json.dumps([{"model": "X-1", "vendor": "Acme", "exposes": EXPOSES}]), encoding="utf-8")
    (made,) = import_from(file)
    assert made.profile == "zigbee2mqtt/x-1"
    assert written(tmp_path / "out", made) == []
    rows = {row.field: row for row in made.rows}
    assert (rows["voltage"].property, rows["voltage"].unit) == ("battery_voltage", "mV")
    assert rows["voc"].property == "voc_fraction"
    assert rows["temperature_calibration"].reason == "it appears to be a setting"
    assert rows["identify"].reason == "it is not published"
    assert rows["warp"].outcome == "skipped"
    assert (rows["air_quality"].outcome, "dreadful" in rows["air_quality"].reason) == ("guessed", True)
    readings = {reading.field: reading for reading in parse(made.text)[0].messages[1].readings}
    assert readings["contact"].words == {False: True, True: False}
    assert readings["state"].words == {"ON": True, "OFF": False}
    assert (readings["power_a"].channel, readings["power_b"].channel) == ("a", "b")


@pytest.mark.parametrize("form", ["lines", "bridge", "one"])
def test_all_forms_of_exposes(tmp_path: Path, form: str) -> None:
    """JSON lines, the payload of bridge/devices, one definition; a model twice is one profile."""
    definition = {"model": "X-1", "vendor": "Acme", "exposes": EXPOSES[:1]}
    if form == "lines":
        file = tmp_path / "x.jsonl"
        file.write_text("\n".join([json.dumps(definition)] * 2), encoding="utf-8")
    else:
        file = tmp_path / "x.json"
        devices = [{"friendly_name": "a", "definition": definition}, {"friendly_name": "hub", "definition": None}]
        file.write_text(json.dumps(devices if form == "bridge" else definition), encoding="utf-8")
    assert [imported.profile for imported in import_from(file)] == ["zigbee2mqtt/x-1"]


# ── declared ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_declared_device_is_a_beginning(tmp_path: Path) -> None:
    """Vendor, sensors and ports without any layout: a profile that loads and holds no readings yet."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "acme-th10.yaml").write_text(
        "vendor: acme\nmodel: th10\nname: TH10\nsensors: [temperature, battery]\nfPorts: [2]\n", encoding="utf-8"
    )
    vector = {"vendor": "acme", "model": "th10", "fPort": 2, "bytes_hex": "00d7", "expected": {"data": {"temp": 21.5}}}
    (tmp_path / "uplink-vectors.jsonl").write_text(json.dumps(vector) + "\n", encoding="utf-8")
    (made,) = import_from(tmp_path / "p")
    source, _ = parse(made.text)
    assert source.messages[0].ignore
    assert "sensor temperature: air_temperature" in made.text
    assert "port 2, 00d7" in made.text
    assert ("temp", "air_temperature") in [(row.field, row.property) for row in made.rows]


# ── all ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_of_no_known_form_is_an_error(tmp_path: Path) -> None:
    """An empty folder, a file of something else, a place that is not there."""
    (tmp_path / "x.json").write_text("[1, 2]", encoding="utf-8")
    for path in (tmp_path, tmp_path / "x.json", tmp_path / "gone"):
        with pytest.raises(ConfigError):
            list(import_from(path))


@pytest.mark.parametrize(
    ("guess", "value", "wanted"),
    [
        (Guess("battery_voltage", "mV"), 3600, 3.6),
        (Guess("air_temperature", "Cel", 0.1), 215, 21.5),
        (Guess("air_temperature", "[degF]"), 70.7, 21.5),
        (Guess("air_temperature", "Cel", missing=(327.67,)), 327.67, None),
        (Guess("door_open"), 1, True),
        (Guess("door_open", words={"open": True}), "open", True),
        (Guess("mode"), "auto", "auto"),
        (Guess("air_temperature"), "21.5", 21.5),
        (Guess("air_temperature"), "warm", None),
    ],
)
def test_the_makers_value_in_our_unit(guess: Guess, value: Any, wanted: Any) -> None:
    """What an example expects is the maker's value, brought to the property's unit by hand, so to say."""
    assert expected_value(guess, value) == wanted


RUNNER = CliRunner()


def call(*arguments: str) -> Result:
    return RUNNER.invoke(app, list(arguments), catch_exceptions=False)


def test_the_command_writes_and_reports(tmp_path: Path) -> None:
    """A table for each model; --dry-run writes nothing; what is there already is not written over."""
    vendor, out = str(ttn(tmp_path, GOOD)), tmp_path / "out"
    assert call("profile", "import", vendor, "--into", str(out), "--dry-run").exit_code == 0
    assert not out.exists()
    result = call("profile", "import", vendor, "--into", str(out))
    assert result.exit_code == 0
    assert "1 model, 1 profile written" in result.output
    assert (out / "acme" / "th10.js").read_text(encoding="utf-8") == SCRIPT
    result = call("profile", "import", vendor, "--into", str(out), "--json")
    assert result.exit_code == 1
    assert "exists already" in json.loads(result.output)[0]["problems"][0]
    assert call("profile", "import", vendor, "--into", str(out), "--replace").exit_code == 0
