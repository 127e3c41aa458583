"""Learning over recorded messages of real makes: every draft loads, and its own examples run."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from sensegate.authoring.examples import check_profile
from sensegate.authoring.learn.shapes import Sample
from sensegate.authoring.survey import draft_of
from sensegate.decode.grammar import parse

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
FILES = sorted((Path(SAMPLES) / "mqtt").glob("*.jsonl")) if SAMPLES else []
RECORDED = [file for file in FILES if file.name != "zigbee2mqtt-exposes.jsonl"]

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/*.jsonl"
)


def samples(file: Path) -> list[Sample]:
    samples = []
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        payload = entry["payload"].encode() if "payload" in entry else base64.b64decode(entry["payload_b64"])
        samples.append(Sample(entry["topic"], payload))
    return samples


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_draft_of_every_recording(file: Path, tmp_path: Path) -> None:
    """All messages of a file in one draft: it loads; but for frames of bytes it has examples, and they run."""
    draft = draft_of(samples(file), "learned/draft")
    assert draft is not None
    assert draft.problem == ""
    target = tmp_path / "learned" / "draft.yaml"
    target.parent.mkdir()
    target.write_text(draft.text, encoding="utf-8")
    source, _ = parse(draft.text)
    wrong = [str(finding) for finding in check_profile(target)]
    if all(rule.ignore for rule in source.messages):
        wrong = [problem for problem in wrong if "no example" not in problem]
    assert wrong == []


def test_what_zigbee2mqtt_sends_is_understood() -> None:
    """Without any list of what the models expose, the names of the members say most of what they are."""
    file = next((path for path in RECORDED if path.stem == "zigbee2mqtt"), None)
    assert file is not None
    draft = draft_of(samples(file))
    assert draft is not None
    guessed = {field: recognised.property for field, recognised in draft.recognised}
    for field, property_ in {
        "temperature": "air_temperature",
        "humidity": "relative_humidity",
        "battery": "battery_level",
        "linkquality": "link_quality",
        "soil_moisture": "soil_moisture",
        "water_leak": "water_leak",
        "co2": "co2",
        "pm25": "pm2_5",
    }.items():
        assert guessed.get(field) == property_, field
