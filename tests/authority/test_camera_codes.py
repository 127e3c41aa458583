"""Codes of cameras (GB/T 28181): taken apart, every mistake told, and accepted by the registry as they are."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sensegate.authority import camera_codes
from sensegate.authority.device_rules import check_device
from sensegate.authority.divisions import Divisions
from sensegate.authority.importing import device_of
from sensegate.cli import app
from sensegate.errors import ConfigError
from sensegate.model import Device

CAMERA = "44010604001320000001"
Make = Callable[..., Device]


def test_a_code_is_taken_apart() -> None:
    """The table's split: the network is one digit, the serial six."""
    code = camera_codes.parse(CAMERA)
    assert code == ("44010604", "00", "132", "0", "000001")
    assert (str(code), code.division, code.is_camera) == (CAMERA, "440106", True)
    assert camera_codes.deviations(code) == []
    meanings = {part: meaning for part, _, meaning in code.parts()}
    assert meanings["type"] == "network camera (IPC)"
    assert meanings["centre"] == "division 440106"


@pytest.mark.parametrize(
    ("digits", "division"),
    [
        ("44000000002000000001", "44"),
        ("44030000001210000001", "4403"),
        ("44030500001210000001", "440305"),
        ("33010101001210000001", "330101"),
        ("4401060400132000000101", "440106"),
    ],
)
def test_the_division_is_that_of_the_centre(digits: str, division: str) -> None:
    assert camera_codes.division_of("no code", digits) == division
    assert camera_codes.parse(digits).division == division


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4401060400132000001", "1 digits too few"),
        ("440106040013200000011", "1 digits too many"),
        ("4401060400000132", "of the old rule B"),
        ("4401060400132000000A", "characters other than digits"),
        ("４４０１０６０４００１３２０００００１", "characters other than digits"),
        ("00010604001320000001", "does not begin with a province"),
        ("", "characters other than digits"),
    ],
)
def test_what_is_no_code_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        camera_codes.parse(text)
    assert camera_codes.parse_or_none(text) is None
    assert camera_codes.division_of(text) == ""


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        ("44010604009990000001", "type 999"),
        ("44010604003010000001", "not a device: user"),
        ("44010604002150000001", "not a device: group"),
        ("44010604391320000001", "industry 39"),
        ("44010604001329000001", "network 9"),
        ("44010604001320000000", "serial number 000000"),
    ],
)
def test_oddities_are_told_and_taken(make: Make, digits: str, message: str) -> None:
    """A registry entry with such an id is good; the finding is a warning with a remedy."""
    check = check_device(make(device_id=digits, division="440106"), Divisions.load(), home="4401")
    assert [finding.warning for finding in check] == [True]
    assert message in check[0].problem
    assert check[0].remedy


def test_the_registry_compares_the_division(make: Make) -> None:
    table = Divisions.load()
    assert check_device(make(device_id=CAMERA, division="440106"), table) == []
    assert check_device(make(device_id=CAMERA, division="4401"), table) == []
    assert check_device(make(device_id="cam7", alias=CAMERA, division="440106"), table) == []
    (elsewhere,) = check_device(make(device_id=CAMERA, division="440305"), table)
    assert (elsewhere.key, elsewhere.warning) == ("id", True)
    assert "a centre in 440106" in elsewhere.problem
    (short,) = check_device(make(device_id="cam7", alias=CAMERA[:-1], division="440106"), table)
    assert (short.key, short.warning) == ("alias", True)
    assert "1 digits too few" in short.problem


@pytest.mark.parametrize("other", ["89860012345678901234", "862061048123456", "010000A8900016F000169DC0"])
def test_other_numbers_are_not_taken_for_codes(make: Make, other: str) -> None:
    """SIM cards, modems, stations of HJ 212."""
    assert check_device(make(device_id=other, division="440106"), Divisions.load()) == []


def test_a_row_of_an_import_may_leave_the_division_to_the_code() -> None:
    row = {"id": "cam7", "alias": CAMERA, "division": "", "profile": "onvif/camera"}
    assert device_of(row).division == "440106"


@given(st.text(alphabet="0123456789x４", max_size=26))
def test_nothing_crashes(text: str) -> None:
    code = camera_codes.parse_or_none(text)
    if code is not None:
        assert str(code) == text[:20]
        code.parts()
        camera_codes.deviations(code)


def test_the_command_line_takes_a_code_apart() -> None:
    output = CliRunner().invoke(app, ["device", "parse-id", "44010604009990000000", "--json"])
    document = json.loads(output.output)
    assert (output.exit_code, document["division"], document["camera"], len(document["deviations"])) == (
        0,
        "440106",
        False,
        2,
    )
    output = CliRunner().invoke(app, ["device", "parse-id", "4401060400132"])
    assert (output.exit_code, output.output.strip()) == (
        1,
        "4401060400132 code: has 7 digits too few; give 20 digits",
    )
