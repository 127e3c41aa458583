"""Import over what makers declare: 34 Zigbee2MQTT models, 12 LoRaWAN devices. `SENSEGATE_SAMPLES` names the folder."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from sensegate.authoring.examples import check_profile
from sensegate.authoring.imports import ImportedProfile, import_from
from sensegate.decode import Decoder
from sensegate.decode.grammar import parse
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.model import Message, Spec
from tests.outside.mqtt import OneDevice

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/zigbee2mqtt-exposes.jsonl"
)
EXPOSES = Path(SAMPLES) / "mqtt" / "zigbee2mqtt-exposes.jsonl"
DECLARED = Path(SAMPLES) / "lorawan" / "profiles"


def written(folder: Path, made: ImportedProfile) -> Path:
    file = folder / f"{made.profile}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(made.text, encoding="utf-8")
    return file


def test_every_model_becomes_a_profile_that_passes(tmp_path: Path) -> None:
    """34 models, each a profile that loads and whose examples run; nine of ten measured members find a property."""
    made = list(import_from(EXPOSES))
    assert len(made) == 34
    assert {entry.profile: problem for entry in made for problem in check_profile(written(tmp_path, entry))} == {}
    hows = Counter(row.outcome for entry in made for row in entry.rows)
    assert hows["mapped"] >= 170
    # A name that matches by a fragment only is a guess, and says so.
    assert hows["guessed"] <= 6
    unexplained = [
        row.field for entry in made for row in entry.rows if row.outcome == "skipped" and "setting" not in row.reason
    ]
    assert len(unexplained) <= 8, unexplained


def test_recorded_states_are_decoded_by_the_imported_profiles(tmp_path: Path) -> None:
    """What the models send gives, through the profiles made of their exposes, the readings that are expected."""
    models = {
        device["friendly_name"]: device["model"] for device in map(json.loads, EXPOSES.read_text("utf-8").splitlines())
    }
    files = {imported.profile: written(tmp_path, imported) for imported in import_from(EXPOSES)}
    checked = 0
    for line in (Path(SAMPLES) / "mqtt" / "zigbee2mqtt.jsonl").read_text("utf-8").splitlines():
        sample = json.loads(line)
        name = sample["topic"].removeprefix("zigbee2mqtt/")
        if name not in models:
            continue
        profile = next(file for file in files if file == f"zigbee2mqtt/{_slug(models[name])}")
        specs: list[Spec] = []
        compiled = compile_file(files[profile], specs)
        decoder = Decoder(ProfileSet([compiled], specs), OneDevice(name, profile))
        fields = decoder.decode([Message(sample["topic"], sample["payload"].encode(), 1_767_225_600_000_000, 1)])
        assert not fields.quarantined, (sample["topic"], fields.quarantined)
        assert not fields.rejected, (sample["topic"], fields.rejected)
        names = {specs[spec].name for spec in fields.spec.tolist()}
        mapped = {reading.field for rule in compiled.source.messages for reading in rule.readings}
        wanted = {reading["name"] for reading in sample["expected"] if reading["name"] in mapped}
        assert wanted <= names
        checked += len(wanted)
    assert checked >= 200


def _slug(model: str) -> str:
    from sensegate.authoring.imports.profile_text import name_part

    return name_part(model)


def test_declared_devices_become_beginnings(tmp_path: Path) -> None:
    """12 devices without a decoder: profiles that load and hold no readings, with what the makers' vectors show."""
    made = list(import_from(DECLARED))
    assert len(made) == 12
    for entry in made:
        assert entry.problem == ""
        source, _ = parse(entry.text)
        assert all(rule.ignore for rule in source.messages)
        compile_file(written(tmp_path, entry), [])
    guessed = [row.property for entry in made for row in entry.rows if row.outcome == "guessed"]
    assert {"battery_voltage", "air_temperature", "relative_humidity", "soil_moisture", "pm2_5", "co2"} <= set(guessed)
