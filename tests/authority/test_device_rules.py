"""What a registry entry may say, with a remedy for each fault."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.device_rules import alias_fault, check_device, is_valid_id, require_valid
from sensegate.authority.divisions import Divisions
from sensegate.errors import ConfigError
from sensegate.model import Datum, Device

TABLE = Divisions.load()
Make = Callable[..., Device]


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"device_id": ""}, "id"),
        ({"device_id": "a" * 65}, "id"),
        ({"device_id": "空气-1"}, "id"),
        ({"device_id": "a.b"}, "id"),
        ({"division": "99"}, "division"),
        ({"division": "4410"}, "division"),
        ({"division": "4403"}, "division"),
        ({"profile": "plain"}, "profile"),
        ({"profile": "sensegate/plane"}, "profile"),
        ({"alias": "a/+"}, "alias"),
        ({"alias": "a>"}, "alias"),
        ({"alias": "a b"}, "alias"),
        ({"alias": "a\u202eb"}, "alias"),
        ({"alias": "a\x00"}, "alias"),
        ({"alias": "$SYS"}, "alias"),
        ({"alias": "sg/other"}, "alias"),
        ({"device_id": "intake"}, "id"),
        ({"device_id": "node-4401"}, "id"),
        ({"alias": "空" * 43}, "alias"),
        ({"alias": unicodedata.normalize("NFD", "é")}, "alias"),
        ({"owner": "a\nb"}, "owner"),
        ({"gateway": "air-1"}, "gateway"),
        ({"lon": 113.0}, "lat"),
        ({"lon": 23.0, "lat": 113.0}, "lon"),
        ({"lon": float("nan"), "lat": 1.0}, "lon"),
        ({"lon": 2.3, "lat": 48.8, "datum": Datum.GCJ02}, "datum"),
        ({"grade": 0}, "grade"),
        ({"grade": 5}, "grade"),
        ({"interval_s": -1.0}, "interval_s"),
        ({"interval_s": float("inf")}, "interval_s"),
    ],
)
def test_each_fault_is_found_at_its_key(make: Make, keys: dict[str, object], wrong: str) -> None:
    """One finding, at the key that is wrong, with what to do."""
    check = check_device(make(**keys), TABLE, home="4401", profiles=frozenset({"sensegate/plain"}))
    assert [finding.key for finding in check] == [wrong]
    assert check[0].remedy
    with pytest.raises(ConfigError, match=f"^{wrong}: "):
        require_valid(make(**keys), TABLE, home="4401", profiles=frozenset({"sensegate/plain"}))


def test_a_good_entry_has_no_finding(make: Make) -> None:
    """Names of 42 Chinese characters and places in every datum are good."""
    device = make(alias="空" * 42, name="屋顶 空气站", lon=113.3, lat=23.1, datum=Datum.BD09, grade=4, interval_s=60.0)
    assert check_device(device, TABLE, home="44") == []


def test_a_division_of_the_past_is_a_warning(make: Make) -> None:
    """It is kept and said so."""
    result = require_valid(make(division="440116"), TABLE)
    assert [(finding.key, finding.warning) for finding in result] == [("division", True)]


def test_the_nearest_profile_is_named(make: Make) -> None:
    """A mistyped profile names the right one."""
    with pytest.raises(ConfigError, match="did you mean 'sensegate/plain'"):
        require_valid(make(profile="sensegate/plian"), TABLE, profiles=frozenset({"sensegate/plain"}))


@given(st.text(max_size=140))
def test_no_accepted_alias_can_widen_a_permission(alias: str) -> None:
    """An alias that passes has no wildcard of MQTT or NATS, no white space, nothing unseen, at most 128 bytes."""
    if alias_fault(alias):
        return
    assert not set(alias) & set("+#*> \t\r\n\x00")
    assert len(alias.encode()) <= 128
    assert unicodedata.normalize("NFC", alias) == alias


@given(st.text(max_size=70))
def test_ids_are_plain(name: str) -> None:
    """An id that passes is 1 to 64 of [A-Za-z0-9_-]."""
    plain = 0 < len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    assert is_valid_id(name) == plain


@pytest.mark.parametrize(
    ("division", "lon", "lat", "problem", "remedy"),
    [
        ("440106", 113.33, 23.13, "", ""),
        ("440106003", 113.33, 23.13, "", ""),
        ("44", 114.06, 22.54, "", ""),
        ("4419", 113.75, 23.02, "", ""),
        ("440106", 114.06, 22.54, "the coordinates are outside of division 440106", "lon 113.27 to 113.47"),
        ("440106", 116.4, 39.9, "the coordinates are outside of division 440106", "lat 23.08 to 23.27"),
        ("440106", 23.13, 113.33, "the coordinates are out of range", "give lon 113.33 and lat 23.13"),
        ("440106", 23.13, 80.0, "lon and lat look swapped", "give lon 80 and lat 23.13"),
    ],
)
def test_coordinates_are_compared_with_the_division(
    make: Make, division: str, lon: float, lat: float, problem: str, remedy: str
) -> None:
    """Outside of the division is told with its bounds, swapped coordinates with the right ones."""
    findings = [
        finding for finding in check_device(make(division=division, lon=lon, lat=lat), TABLE) if finding.key == "lon"
    ]
    assert [finding.problem for finding in findings] == ([problem] if problem else [])
    assert all(remedy in finding.remedy for finding in findings)


def test_every_county_has_an_extent_within_its_city() -> None:
    """The extents cover all divisions down to the counties; a county lies within its city, a city in the province."""
    for division in TABLE:
        extent, around = TABLE.extent(division.code), TABLE.extent(division.parent or division.code)
        assert extent is not None
        assert around is not None
        assert around.holds(extent.west, extent.south)
        assert around.holds(extent.east, extent.north)
