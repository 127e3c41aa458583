"""Downlinks in the envelopes of the network servers in the library, and what their events say."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode import ProfileSet, downlink
from sensegate.decode.downlink import DownlinkFrame, DownlinkOutcome, uuid_of
from sensegate.decode.grammar import DownlinkPart
from sensegate.errors import ConfigError, ProfileError
from tests.support.profiles import Make

LIBRARY = Path(__file__).parents[2] / "device_profiles"
PROFILES = ProfileSet.load([LIBRARY / vendor for vendor in ("chirpstack", "thethings", "loriot", "actility")])
EUI, TASK = "70b3d5e7a0000109", "0190a1b2c3d4" + "deadbeef"
FRAME = DownlinkFrame(EUI, b"\x01\xff", 10, confirmed=True, task=TASK, time=1_767_225_600_214_999)
DATA = base64.b64encode(b"\x01\xff").decode()


def part(profile: str) -> DownlinkPart:
    """Return how a network server takes downlinks."""
    match = PROFILES.find(profile)
    assert match is not None
    assert match.source.downlink is not None
    return match.source.downlink


ENVELOPES = [
    ("chirpstack/v4", f"application/a/device/{EUI}/event/up", f"application/a/device/{EUI}/command/down",
     {"id": uuid_of(TASK), "devEui": EUI, "confirmed": True, "fPort": 10, "data": DATA}),
    ("chirpstack/v4", f"ns/s/application/a/device/{EUI}/event/up", f"ns/s/application/a/device/{EUI}/command/down",
     {"id": uuid_of(TASK), "devEui": EUI, "confirmed": True, "fPort": 10, "data": DATA}),
    ("chirpstack/v3", f"application/1/device/{EUI}/event/up", f"application/1/device/{EUI}/command/down",
     {"confirmed": True, "fPort": 10, "data": DATA}),
    ("chirpstack/v3", f"application/1/device/{EUI}/rx", f"application/1/device/{EUI}/tx",
     {"confirmed": True, "fPort": 10, "data": DATA}),
    ("thethings/v3", f"v3/app@ttn/devices/eui-{EUI}/up", f"v3/app@ttn/devices/eui-{EUI}/down/push",
     {"end_device_ids": {"dev_eui": EUI.upper()}, "downlinks": [
         {"f_port": 10, "frm_payload": DATA, "confirmed": True, "priority": "NORMAL", "correlation_ids": [TASK]}]}),
    ("loriot/lns", f"loriot/{EUI}/rx", f"loriot/{EUI}/tx",
     {"cmd": "tx", "EUI": EUI.upper(), "port": 10, "confirmed": True, "data": "01FF"}),
    ("loriot/lns", "ns/s/loriot", "ns/s/loriot/tx",
     {"cmd": "tx", "EUI": EUI.upper(), "port": 10, "confirmed": True, "data": "01FF"}),
    ("actility/thingpark", f"mqtt/things/{EUI.upper()}/uplink", f"mqtt/things/{EUI.upper()}/downlink",
     {"DevEUI_downlink": {"Time": "2026-01-01T00:00:00.214+00:00", "DevEUI": EUI.upper(), "FPort": 10,
                          "payload_hex": "01ff", "Confirmed": "1", "CorrelationID": TASK[-16:]}}),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "uplink", "topic", "tree"), ENVELOPES)
def test_envelopes(profile: str, uplink: str, topic: str, tree: dict[str, Any]) -> None:
    """The frame goes to the topic that belongs to the uplink's, in the server's own form."""
    route = downlink.find_route(part(profile), uplink)
    assert route is not None
    assert route.topic == topic
    assert json.loads(downlink.build_envelope(part(profile), FRAME)) == tree


def test_a_downlink_that_replaces_what_waits() -> None:
    """The Things Stack has a topic for it; others push."""
    for profile, uplink, expected in (
        ("thethings/v3", f"v3/a/devices/{EUI}/up", f"v3/a/devices/{EUI}/down/replace"),
        ("chirpstack/v4", f"application/a/device/{EUI}/event/up", f"application/a/device/{EUI}/command/down"),
    ):
        route = downlink.find_route(part(profile), uplink, replace=True)
        assert route is not None
        assert route.topic == expected


def test_a_topic_of_another_server_has_no_route() -> None:
    """A push by HTTP, or another topic, tells no way down."""
    assert downlink.find_route(part("chirpstack/v4"), "http/server-1") is None


OTHER = uuid_of("f" * 20)
EVENTS: list[tuple[str, str, dict[str, Any], DownlinkOutcome | None]] = [
    ("chirpstack/v4", "/event/txack", {"queueItemId": uuid_of(TASK)}, DownlinkOutcome("transmitted")),
    ("chirpstack/v4", "/event/txack", {"queueItemId": OTHER}, None),
    ("chirpstack/v4", "/event/txack", {}, None),
    ("chirpstack/v4", "/event/ack", {"queueItemId": uuid_of(TASK), "acknowledged": True},
     DownlinkOutcome("acknowledged")),
    ("chirpstack/v4", "/event/ack", {"queueItemId": uuid_of(TASK), "acknowledged": False}, DownlinkOutcome("failed")),
    ("chirpstack/v4", "/event/log", {"level": "ERROR", "description": "too long",
                                     "context": {"queue_item_id": uuid_of(TASK)}},
     DownlinkOutcome("failed", "too long")),
    ("chirpstack/v4", "/event/log", {"level": "INFO", "context": {"queue_item_id": uuid_of(TASK)}}, None),
    ("chirpstack/v3", "/event/ack", {"acknowledged": True, "fCnt": 15}, DownlinkOutcome("acknowledged")),
    ("chirpstack/v3", "/event/error", {"type": "DOWNLINK_PAYLOAD_SIZE", "error": "too long"},
     DownlinkOutcome("failed", "too long")),
    ("chirpstack/v3", "/event/error", {"type": "UPLINK_CODEC", "error": "x"}, None),
    ("thethings/v3", "/down/sent", {"correlation_ids": ["as:x", TASK]}, DownlinkOutcome("transmitted")),
    ("thethings/v3", "/down/ack", {"correlation_ids": [TASK]}, DownlinkOutcome("acknowledged")),
    ("thethings/v3", "/down/nack", {"correlation_ids": [TASK]}, DownlinkOutcome("failed")),
    ("thethings/v3", "/down/failed", {"correlation_ids": [TASK], "downlink_failed": {"error": {"message_format": "m"}}},
     DownlinkOutcome("failed", "m")),
    ("thethings/v3", "/down/ack", {"correlation_ids": ["as:x"]}, None),
    ("loriot/lns", "/rx", {"cmd": "txd", "EUI": EUI.upper()}, DownlinkOutcome("transmitted")),
    ("loriot/lns", "/rx", {"cmd": "rx", "EUI": EUI, "ack": True}, DownlinkOutcome("acknowledged")),
    ("loriot/lns", "/rx", {"cmd": "rx", "EUI": EUI, "ack": False}, None),
    ("loriot/lns", "/loriot", {"cmd": "txd", "EUI": "70B3D5E7A00001FF"}, None),
    ("actility/thingpark", "/uplink", {"DevEUI_downlink_Sent": {"DevEUI": EUI.upper(), "DeliveryStatus": 1,
                                                               "CorrelationID": TASK[-16:].upper()}},
     DownlinkOutcome("transmitted")),
    ("actility/thingpark", "/uplink", {"DevEUI_downlink_Sent": {"DevEUI": EUI.upper(), "DeliveryStatus": "0",
                                                               "CorrelationID": TASK[-16:],
                                                               "DeliveryFailedCause1": "D1"}},
     DownlinkOutcome("failed", "D1")),
    ("actility/thingpark", "/uplink", {"DevEUI_uplink": {"DevEUI": EUI.upper(), "ACKbit": 1}},
     DownlinkOutcome("acknowledged")),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "end", "tree", "outcome"), EVENTS)
def test_events(profile: str, end: str, tree: dict[str, Any], outcome: DownlinkOutcome | None) -> None:
    """An event of this downlink of this device tells its state; another's tells nothing."""
    rules = downlink.event_topics(part(profile), "base")[f"base{end}"]
    assert downlink.read_outcome(rules, json.dumps(tree).encode(), EUI, TASK) == outcome


@given(st.binary(max_size=60) | st.builds(json.dumps, st.recursive(
    st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.dictionaries(
        st.sampled_from(["queueItemId", "context", "queue_item_id", "level", "acknowledged"]), inner, max_size=4),
)).map(str.encode))  # fmt: skip
def test_any_message_is_an_event_or_none(payload: bytes) -> None:
    """What a server sends never raises."""
    for profile in ("chirpstack/v4", "thethings/v3", "actility/thingpark"):
        for rules in downlink.event_topics(part(profile), "").values():
            downlink.read_outcome(rules, payload, EUI, TASK)


@pytest.mark.parametrize(("data", "port"), [(bytes(243), 10), (b"", 0), (b"", 224)])
def test_a_frame_that_cannot_be_sent_is_refused(data: bytes, port: int) -> None:
    """Longer than any data rate carries, or to a port that is not an application's."""
    with pytest.raises(ConfigError):
        downlink.build_envelope(part("chirpstack/v4"), FRAME._replace(data=data, port=port))


HEAD = '  - topics: ["acme/{device}"]\n    readings: [{field: a, property: air_temperature}]\n'


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("downlink: {topics: {/up: /down}, json: {data: '{base65}'}}", "there is no slot"),
        ("downlink: {topics: {/up: /down}, json: {port: '{port}'}}", "the frame is missing"),
        ("downlink: {topics: {}, json: {data: '{hex}'}}", "no topic"),
        ("downlink: {topics: {/up: 'x/{device}'}, json: {data: '{hex}'}}", "is not the end of a topic"),
        ("tasks: [{name: a, label: {zh: a, en: a}, frame: {}, hex: '01', examples: [{hex: '01'}]}]", "needs a port"),
        ("tasks: [{name: a, label: {zh: a, en: a}, data: {a: 1}, examples: [{hex: '01'}]}]", "makes a frame"),
        ("tasks: [{name: a, label: {zh: a, en: a}, frame: {}, data: {a: 1}, examples: [{hex: '01'}]}]",
         "has no codec script"),
    ],
)  # fmt: skip
def test_mistakes_in_a_profile(make: Make, lines: str, problem: str) -> None:
    """Each is told when the profile is loaded."""
    with pytest.raises(ProfileError, match=problem):
        make(f"{HEAD}{lines}\n")
