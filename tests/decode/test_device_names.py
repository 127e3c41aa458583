"""Names made of several levels of a topic, and the rights that follow from them."""

from __future__ import annotations

import base64
import string
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode import ProfileSet, topics
from sensegate.decode.device_names import DeviceNameTemplates, subscribe_filters
from sensegate.decode.profile import CompiledRule
from sensegate.decode.routes import looked_up_name
from sensegate.errors import ProfileError
from sensegate.model import Device
from tests.support.profiles import Make

PROFILES = ProfileSet.load([Path(__file__).parents[2] / "device_profiles" / "sparkplug"])
NODE = Device("n1", "440106", "sparkplug/pump-station", alias="Water/pump-01")
PROBE = Device("p1", "440106", "sparkplug/water-probe", alias="Water/pump-01/probe-A", gateway="n1")


def test_a_name_is_made_of_captures_and_gives_them_back() -> None:
    """The two directions fit; a name of another form gives none."""
    names = DeviceNameTemplates(topics.parse("{group}/{node}"), None)
    captured = {"group": "Water", "node": "pump-01"}
    assert names.complete(captured) == {**captured, "device": "Water/pump-01"}
    assert names.captures("Water/pump-01") == captured
    assert names.captures("pump-01") is None
    assert names.captures("Water/pump-01/probe-A") is None
    assert DeviceNameTemplates().complete(captured) is captured


def test_a_node_publishes_under_its_own_names_only() -> None:
    """Literal where its name says it, a wildcard only for the devices behind it; commands to itself mean nothing."""
    assert PROFILES.topics_of(NODE.profile, [NODE.id, NODE.alias]) == [
        "spBv1.0/Water/NBIRTH/pump-01",
        "spBv1.0/Water/NDATA/pump-01",
        "spBv1.0/Water/NDEATH/pump-01",
        "spBv1.0/Water/DBIRTH/pump-01/+",
        "spBv1.0/Water/DDATA/pump-01/+",
        "spBv1.0/Water/DDEATH/pump-01/+",
        "spBv1.0/Water/NCMD/pump-01",
        "spBv1.0/Water/DCMD/pump-01/+",
    ]


def test_a_device_behind_a_node_has_its_own_topics_only() -> None:
    """They go to its gateway's connection."""
    gateways = [NODE.id, NODE.alias]
    assert PROFILES.topics_of(PROBE.profile, [PROBE.id, PROBE.alias], gateways) == [
        "spBv1.0/Water/DBIRTH/pump-01/probe-A",
        "spBv1.0/Water/DDATA/pump-01/probe-A",
        "spBv1.0/Water/DDEATH/pump-01/probe-A",
    ]


def test_a_device_hears_what_is_meant_for_it() -> None:
    """Commands to it, and what everybody hears; never another's commands."""
    assert PROFILES.subscribe_topics(NODE, [NODE.id, NODE.alias]) == ["spBv1.0/STATE/+", "spBv1.0/Water/NCMD/pump-01"]
    assert PROFILES.subscribe_topics(PROBE, [PROBE.id, PROBE.alias]) == ["spBv1.0/Water/DCMD/pump-01/probe-A"]
    assert subscribe_filters([topics.parse("a/{node}")], [], ["n1"]) == []


WRONG = [
    ('hears: ["a/{node}"]', "no name fills {node}"),
    ('hears: ["a/+"]', "no MQTT wildcards"),
]


@pytest.mark.parametrize(("head", "why"), WRONG)
def test_topics_heard_that_no_name_fills_are_refused(make: Make, head: str, why: str) -> None:
    """Else a device could listen to what is another's."""
    with pytest.raises(ProfileError, match=why.replace("{", r"\{")):
        make(f'  - {{topics: ["x/{{device}}"], ignore: true}}\n{head}\n')


TEMPLATES = [
    ('{topics: ["x/{group}/{node}"], device: {name: "{group}/{other}"}, ignore: true}', "does not capture {other}"),
    ('{topics: ["x/{node}"], device: {name: "{node}", field: d}, ignore: true}', "give one of"),
    ('{topics: ["x/{node}"], device: {field: d, any_profile: true}, ignore: true}', "needs `field` and `gateway`"),
    ('{topics: ["x/{node}"], device: {field: d}, ignore: true}', "any device could publish for any other"),
]


@pytest.mark.parametrize(("rule", "why"), TEMPLATES)
def test_a_template_that_cannot_hold_is_refused(make: Make, rule: str, why: str) -> None:
    """With the key and what is wrong."""
    with pytest.raises(ProfileError, match=why.replace("{", r"\{")):
        make(f"  - {rule}\n")


@given(st.binary(min_size=1, max_size=20))
def test_a_name_in_base64_is_looked_up_as_hex(raw: bytes) -> None:
    """`decode: base64_hex` takes either alphabet; hex digits, and what is neither, stay."""
    rule = cast("CompiledRule", SimpleNamespace(device_case="lower", device_decode="base64_hex"))
    assert looked_up_name(raw.hex().upper(), rule) == raw.hex()
    for text in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        if not all(letter in string.hexdigits for letter in text):
            assert looked_up_name(text, rule) == raw.hex()
    assert looked_up_name("Room 7", rule) == "room 7"
