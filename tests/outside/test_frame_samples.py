"""The frames of national protocols: each decodes as its file says, or is refused for the reason that its README names.

The frames are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `frames/*.json`.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensegate.authoring.examples import ExampleReading, NamedDevices, parse_micros, readings_of
from sensegate.clock import FakeClock
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.formats import FORMATS
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.errors import ProfileError, Rejected
from sensegate.frames import hj212
from sensegate.frames.hj212 import Convention
from sensegate.model import I64, Fields, Message, QuarantineReason
from sensegate.normalise.normalise import Normaliser
from sensegate.quantities.quality import BAD_FROM, Flag, Quality
from sensegate.quantities.series import SeriesIndex

ROOT = Path(__file__).parents[2] / "device_profiles"
SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
RECEIVED = 1_767_225_600_000_000

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with frames/hj212.json and the others"
)

PROFILES = {
    "hj212-air-minute-2051": "hj212/air",
    "hj212-rtd-a2100x": "hj212/air",
    "hj212-rtd-a210x": "hj212/air",
    "hj212-rtd-a21x": "hj212/air",
    "hj212-stale-crc": "hj212/waste-water",
    "hj212-old-codes-17digit-time": "hj212/waste-water",
    "hj212-pm-nanograms": "hj212/air-annex-b",
    "hj212-no-data-flags": "hj212/air",
}
"""Which profile an operator gives the station."""


def frames(name: str) -> list[dict[str, Any]]:
    if not SAMPLES:
        return []
    samples: list[dict[str, Any]] = json.loads((Path(SAMPLES) / "frames" / name).read_text(encoding="utf-8"))["frames"]
    return samples


def named(name: str, identifier: str) -> dict[str, Any]:
    return next(frame for frame in frames(name) if frame["id"] == identifier)


def parse(protocol: str, payload: bytes) -> Any:
    setting = FormatContext(
        "vendor/model", 1, Path(), lambda problem, *_, remedy="": ProfileError(problem, remedy=remedy)
    )
    return FORMATS[protocol].compile(None, setting)(PayloadFrame(payload, 32))


@cache
def profiles() -> ProfileSet:
    return ProfileSet.load([ROOT / name for name in ("hj212", "sl651", "gbt26875", "jtt808")])


def decoded(profile: str, payload: bytes) -> tuple[Fields, list[ExampleReading]]:
    """Return what a station of a profile said over MQTT."""
    devices = NamedDevices(["d1"], profile)
    decoder = Decoder(profiles(), devices)
    fields = decoder.decode([Message(f"{profile.partition('/')[0]}/d1/up", payload, RECEIVED, 1)])
    return fields, readings_of(fields, profiles().specs, devices)


def station(identifier: str) -> tuple[Fields, list[ExampleReading]]:
    return decoded(PROFILES[identifier], named("hj212.json", identifier)["frame"].encode())


def local(text: str) -> int:
    return parse_micros(text + "+08:00")


def test_none_of_the_frames_is_left_out() -> None:
    """The table of the README: 8, 1, 1, 1."""
    counts = {name: len(frames(f"{name}.json")) for name in ("hj212", "sl651", "gbt26875_3", "jtt808")}
    assert counts == {"hj212": 8, "sl651": 1, "gbt26875_3": 1, "jtt808": 1}
    assert {frame["id"] for frame in frames("hj212.json")} == set(PROFILES)


# ── HJ 212 ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sample", frames("hj212.json"), ids=lambda sample: sample["id"])
def test_check_values_are_those_of_the_file(sample: dict[str, Any]) -> None:
    """Length, both routines over the data segment, and which of them the frame follows."""
    packet = hj212.parse(sample["frame"].encode())
    assert len(packet.data) == sample["declared_length"]
    assert hj212.checksum(packet.data, Convention.ANSI) == int(sample["crc_ansi"], 16)
    assert hj212.checksum(packet.data, Convention.MODBUS) == int(sample["crc_modbus"], 16)
    expected = None if sample["crc_mode"] == "none" else Convention(sample["crc_mode"])
    assert hj212.detect_convention(packet.data, packet.crc) == expected


@pytest.mark.parametrize("sample", frames("hj212.json"), ids=lambda sample: sample["id"])
def test_only_the_deliberately_wrong_frame_is_refused(sample: dict[str, Any]) -> None:
    """Odd content is no reason: every frame with a right check value decodes."""
    fields, _ = station(sample["id"])
    reasons = [message.reason for message in fields.quarantined]
    assert reasons == ([] if sample["valid"] else [QuarantineReason.CRC_FAIL])


def test_the_stale_check_value_is_told() -> None:
    """What was sent, and what would be right."""
    fields, values = station("hj212-stale-crc")
    assert values == []
    assert "4980 sent, 3C00 expected" in fields.quarantined[0].detail


def test_an_air_station() -> None:
    """Eleven means of a minute, all flagged N; pressure comes in kPa."""
    fields, values = station("hj212-air-minute-2051")
    assert fields.rejected == []
    assert {value.property: value.value for value in values} == {
        "no2": 4, "o3": 63, "so2": 6, "co": 0.427, "pm2_5": 14, "pm10": 31, "wind_speed": 1, "wind_direction": 11,
        "air_temperature": 17, "relative_humidity": 85, "air_pressure": pytest.approx(950),
    }  # fmt: skip
    assert {value.time for value in values} == {local("2022-05-13T16:26:00")}
    assert {value.quality for value in values} == {"good"}
    assert {profiles().specs[spec].channel for spec in fields.spec.tolist()} == {"minute"}


def test_codes_that_no_table_has_are_told_and_stop_nothing() -> None:
    """Misused codes: five are factors of the table, two are of none; codes cut short: all are of none."""
    fields, values = station("hj212-rtd-a2100x")
    assert {value.field for value in values} == {f"a2100{number}-Rtd" for number in (5, 4, 1, 3, 2)}
    assert {(rejection.field, rejection.reason.value) for rejection in fields.rejected} == {
        ("a21007-Rtd", "unknown_property"),
        ("a21006-Rtd", "unknown_property"),
    }
    for short, identifier in (("a210", "hj212-rtd-a210x"), ("a21", "hj212-rtd-a21x")):
        fields, values = station(identifier)
        assert (values, fields.quarantined) == ([], [])
        assert {rejection.field for rejection in fields.rejected} == {f"{short}{number}-Rtd" for number in range(1, 8)}
        assert {rejection.reason.value for rejection in fields.rejected} == {"unknown_property"}


def test_a_station_of_2005() -> None:
    """Old codes, no QN, no Flag, DataTime with milliseconds; the flow has no data flag and is not good."""
    _, values = station("hj212-old-codes-17digit-time")
    at = local("2016-08-24T00:38:17")
    assert [(value.property, value.value, value.quality, value.time) for value in values] == [
        ("water_flow_instant", 36.91, "uncertain_unknown", at),
        ("cod", 231.0, "good", at),
        ("ammonia_nitrogen", 1.803, "good", at),
    ]


def test_particles_in_nanograms() -> None:
    """The unit is the profile's: 75600 ng/m3 are 75.6 ug/m3."""
    _, readings = station("hj212-pm-nanograms")
    values = {reading.property: reading.value for reading in readings}
    assert values["pm2_5"] == pytest.approx(75.6)
    assert values["pm10"] == pytest.approx(140.6)
    assert values["tsp"] == pytest.approx(178)
    assert values["air_pressure"] == pytest.approx(1013.8)
    assert values["sound_level"] == 57.9


def judged(fields: Fields) -> dict[str, tuple[int, int]]:
    """Return property -> (quality, flags) behind normalise, where the message came at once."""
    clock = FakeClock(int(fields.time[0]))
    normaliser = Normaliser(profiles().specs, series=SeriesIndex(), clock=clock)
    received: I64 = np.full(1, clock.now(), np.int64)
    readings, rejected = normaliser.normalise(fields, received)
    assert rejected == []
    names = [profiles().specs[spec].property for spec in fields.spec.tolist()]
    return dict(zip(names, zip(readings.quality.tolist(), readings.flags.tolist(), strict=True), strict=True))


def test_nanograms_read_as_micrograms_are_marked() -> None:
    """The wrong profile: nothing is good; what is a thousand off, or cannot be, is marked."""
    payload = named("hj212.json", "hj212-pm-nanograms")["frame"].encode()
    fields, _ = decoded("hj212/air", payload)
    judgement = judged(fields)
    for name in ("pm2_5", "pm10", "tsp"):
        assert judgement[name][0] != Quality.GOOD, name
        assert judgement[name][1] & Flag.RANGE, name
    assert judgement["sound_level"] == (Quality.GOOD, 0)


def test_a_station_without_flags_is_never_good() -> None:
    """Thirteen values of unknown quality; hPa read as kPa is out of range; two factors are of no rule."""
    fields, values = station("hj212-no-data-flags")
    assert {value.quality for value in values} == {"uncertain_unknown"}
    assert len(values) == 13
    assert {rejection.field for rejection in fields.rejected} == {"a06001-Rtd", "a04003-Rtd"}
    assert {value.property: value.value for value in values}["o3"] == 29
    judgement = judged(fields)
    assert judgement["air_pressure"][1] & Flag.RANGE
    assert judgement["air_pressure"][0] >= BAD_FROM
    assert all(quality != Quality.GOOD for quality, _ in judgement.values())


# ── the others ───────────────────────────────────────────────────────────────────────────────────────


def test_a_hydrological_report() -> None:
    """Head, times, and every element with its value."""
    (sample,) = frames("sl651.json")
    expect = sample["expect"]
    payload = bytes.fromhex(sample["frame"])
    tree = parse("sl651", payload)
    for key in ("centre", "station", "function", "serial"):
        assert tree[key] == expect[key], key
    assert (tree["sent"], tree["time"]) == (expect["sent_at_local"], expect["observed_at_local"])
    assert f"{ord(tree['class']):02X}" == expect["station_class"]
    assert [(element["id"], element["value"]) for element in tree["elements"]] == [
        (element["id"], float(Decimal(element["value"]))) for element in expect["elements"]
    ]
    _, report = decoded("sl651/hydrology", payload)
    assert [(reading.property, reading.value) for reading in report] == [
        ("rainfall_current", 4.0),
        ("rainfall_total", 4.0),
        ("water_level", 10.490),
        ("battery_voltage", 10.99),
    ]
    assert {reading.time for reading in report} == {local(expect["observed_at_local"])}


def test_a_question_to_a_fire_device() -> None:
    """A centre's question (command 4) holds no reading."""
    (sample,) = frames("gbt26875_3.json")
    expect = sample["expect"]
    payload = bytes.fromhex(sample["frame"])
    tree = parse("gbt26875", payload)
    assert (tree["serial"], tree["command"], tree["sent"]) == (
        expect["serial"],
        expect["command"],
        expect["time_local"],
    )
    assert bytes.fromhex(tree["source"])[::-1].hex() == expect["source_bytes"]
    assert bytes.fromhex(tree["target"])[::-1].hex() == expect["target_bytes"]
    fields, report = decoded("gbt26875/fire-host", payload)
    assert (report, fields.quarantined, fields.rejected) == ([], [], [])


def test_a_vehicle() -> None:
    """Position, movement, distance, fuel, alarm bits; two escapes are undone."""
    (sample,) = frames("jtt808.json")
    expect = sample["expect"]
    payload = bytes.fromhex(sample["frame"])
    tree = parse("jtt808", payload)
    assert (tree["message"], tree["phone"], tree["serial"]) == (expect["message"], expect["phone"], expect["serial"])
    assert tree["reports"][0]["items"] == expect["items"]
    _, report = decoded("jtt808/vehicle", payload)
    values = {reading.property: reading.value for reading in report}
    assert (values["latitude"], values["longitude"]) == (expect["lat"], expect["lon"])
    assert (values["altitude"], values["speed"], values["heading"]) == (
        expect["altitude_m"],
        expect["speed_kmh"],
        expect["heading_deg"],
    )
    assert (values["mileage"], values["fuel_volume"]) == (10.0, 12.5)  # 100 and 125 tenths
    assert (values["vehicle_alarm"], values["vehicle_status"]) == (expect["alarm"], expect["status"])
    assert values["sos"] is True
    assert {reading.time for reading in report} == {local(expect["time_local"])}


ALL = [
    pytest.param(
        protocol, bytes.fromhex(frame["frame"]) if protocol != "hj212" else frame["frame"].encode(), id=frame["id"]
    )
    for protocol, name in (("hj212", "hj212"), ("sl651", "sl651"), ("gbt26875", "gbt26875_3"), ("jtt808", "jtt808"))
    for frame in frames(f"{name}.json")
    if frame["valid"]
]


@pytest.mark.parametrize(("protocol", "payload"), ALL)
def test_any_wrong_bit_is_refused(protocol: str, payload: bytes) -> None:
    """Negative control: each byte in turn is changed; no frame decodes to other values than before."""
    right = parse(protocol, payload)
    for at in range(len(payload)):
        spoilt = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        try:
            assert parse(protocol, spoilt) == right, at
        except Rejected:
            continue


@pytest.mark.parametrize(("protocol", "payload"), ALL)
def test_a_frame_cut_short_is_refused(protocol: str, payload: bytes) -> None:
    """At every place but behind the last byte that means anything (CR LF)."""
    for size in range(len(payload.rstrip(b"\r\n"))):
        with pytest.raises(Rejected):
            parse(protocol, payload[:size])
