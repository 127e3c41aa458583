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
    found = check_device(make(**keys), TABLE, home="4401", profiles=frozenset({"sensegate/plain"}))
    assert [finding.key for finding in found] == [wrong]
    assert found[0].remedy
    with pytest.raises(ConfigError, match=f"^{wrong}: "):
        require_valid(make(**keys), TABLE, home="4401", profiles=frozenset({"sensegate/plain"}))


def test_a_good_entry_has_no_finding(make: Make) -> None:
    """Names of 42 Chinese characters and places in every datum are good."""
    device = make(alias="空" * 42, name="屋顶 空气站", lon=113.3, lat=23.1, datum=Datum.BD09, grade=4, interval_s=60.0)
    assert check_device(device, TABLE, home="44") == []


def test_a_division_of_the_past_is_a_warning(make: Make) -> None:
    """It is kept and said so."""
    found = require_valid(make(division="440116"), TABLE)
    assert [(finding.key, finding.warning) for finding in found] == [("division", True)]


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
