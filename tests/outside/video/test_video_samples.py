"""Every sample of video metadata gives what its source says; what says who somebody is is nowhere behind the cut.

The files are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `video/`. `SENSEGATE_TABLE=1` prints
the table.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sensegate.authoring.examples import NamedDevices
from sensegate.config import IngestConfig
from sensegate.decode.decode import Decoder
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.model import Message, Spec
from tests.outside.video.table import ARRIVAL, NOT_MESSAGES, ROWS, Row, run, table

ROOT = Path(__file__).parents[3]

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
FOLDER = Path(SAMPLES) / "video"
pytestmark = pytest.mark.skipif(not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with video/")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_a_file_gives_what_it_says(row: Row) -> None:
    """Observations in their order with all that is stated of them, readings exactly, fields that must be out."""
    ran = run(row, (FOLDER / row.file).read_bytes())
    assert ran.refused == row.refused
    if ran.report is None:
        return
    document = msgspec.to_builtins(ran.report.observations)
    assert len(document) == len(row.observations)
    for actual, expected in zip(document, row.observations, strict=True):
        stated = {name: list(value) if isinstance(value, tuple) else value for name, value in actual.items()}
        assert {name: stated.get(name) for name in expected} == dict(expected)
    assert [
        (measurement.property, measurement.channel, measurement.value) for measurement in ran.report.measurements
    ] == list(row.readings)
    assert (ran.report.rejected, ran.report.ignored) == ((), row.ignored)
    assert row.removed <= ran.removed.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_what_must_be_hidden_is_nowhere(row: Row) -> None:
    """A control is in it: each word does stand in the file."""
    payload = (FOLDER / row.file).read_bytes()
    output = run(row, payload).stored
    for word in row.hidden:
        assert word.encode() in payload
        assert word.encode() not in output


PROFILES = {
    "viid": "sensegate/viid",
    "onvif_xml": "onvif/camera",
    "onvif_mj": "onvif/camera",
    "onvif_ej": "onvif/camera",
    "hikvision": "hikvision/camera",
    "dahua": "dahua/camera",
    "axis": "axis/camera",
    "frigate": "frigate/mqtt",
    "deepstream": "nvidia/deepstream",
    "dlstreamer": "intel/dlstreamer",
    "gb28181": "gb28181/platform",
}
"""Format -> the profile whose device sends it."""
SENDER = "cam7"


@pytest.mark.parametrize("row", [row for row in ROWS if not row.refused], ids=lambda row: row.file)
def test_the_profile_takes_all_of_it(row: Row) -> None:
    """By the profile of the camera as it is shipped every observation and reading becomes a row, none is rejected."""
    file = ROOT / "device_profiles" / f"{PROFILES[row.format]}.yaml"
    payload = (FOLDER / row.file).read_bytes()
    result = run(row, payload).report
    assert result is not None
    specs: list[Spec] = []
    profile = compile_file(file, specs)
    cameras = {observation.camera for observation in result.observations} | {
        measurement.camera for measurement in result.measurements
    }
    devices = NamedDevices([*sorted(cameras - {"", SENDER}), SENDER], profile.id)
    for name in cameras - {"", SENDER}:
        at = devices.find(name)
        devices._records[at] = msgspec.structs.replace(devices.record(at), gateway=SENDER)
    decoder = Decoder(ProfileSet([profile], specs), devices, IngestConfig())
    fields = decoder.decode([Message(f"http/{SENDER}", payload, ARRIVAL, 1, principal=SENDER)])
    assert (fields.quarantined, fields.rejected) == ([], [])
    assert len(fields) == len(result.observations) + len(result.measurements)


def test_no_file_is_left_out() -> None:
    """What lies in the folder is a row, or no message."""
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert {file for file in files if not file.startswith(NOT_MESSAGES)} == {row.file for row in ROWS}


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a file."""
    lines = table(FOLDER).splitlines()
    assert len(lines) == len(ROWS) + 2
    with capsys.disabled():
        if os.environ.get("SENSEGATE_TABLE"):
            print("\n" + "\n".join(lines))
