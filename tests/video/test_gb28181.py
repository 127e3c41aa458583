"""Bodies of GB/T 28181: alarms, positions, states; the character set that they declare; marks that fall."""

from __future__ import annotations

import re

import pytest

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo, Redacted, VideoReport
from sensegate.video.formats.gb28181 import FORMAT
from sensegate.video.observation import ObservationKind
from sensegate.video.pseudonyms import KeyedPseudonymiser

NOW = 1_767_225_600_000_000
AT = 1_768_453_200_000_000
PSEUDONYMISER = KeyedPseudonymiser(b"test")
DEVICE = "44010300001340000001"
ALARM = (
    "<Notify><CmdType>Alarm</CmdType><SN>17</SN><DeviceID>44010300001340000001</DeviceID><AlarmPriority>4"
    "</AlarmPriority><AlarmMethod>5</AlarmMethod><AlarmTime>2026-01-15T13:00:00</AlarmTime><AlarmDescription>门前有人"
    "</AlarmDescription><Longitude>113.26</Longitude><Latitude>23.12</Latitude><Info><AlarmType>6</AlarmType></Info></Notify>"
)
POSITION = (
    "<Notify><CmdType>MobilePosition</CmdType><SN>18</SN><DeviceID>44010300001340000001</DeviceID>"
    "<Time>2026-01-15T13:00:00</Time><Longitude>113.26</Longitude><Latitude>23.12</Latitude><Speed>36.0</Speed></Notify>"
)
CATALOGUE = (
    "<Response><CmdType>Catalog</CmdType><SN>19</SN><DeviceID>44010300002000000001</DeviceID><DeviceList Num='2'>"
    "<Item><DeviceID>44010300001320000001</DeviceID><Name>n</Name><Address>a</Address><Status>ON</Status></Item>"
    "<Item><DeviceID>44010300001320000002</DeviceID><Status>OFF</Status></Item></DeviceList></Response>"
)
ALIVE = f"<Notify><CmdType>Keepalive</CmdType><SN>1</SN><DeviceID>{DEVICE}</DeviceID><Status>OK</Status></Notify>"


def run(text: str, charset: str = "gb18030", declared: str = "GB2312") -> tuple[VideoReport, Redacted]:
    body = f'<?xml version="1.0" encoding="{declared}"?>{text}'.encode(charset)
    cut = FORMAT.redact(body, "t", NOW, PSEUDONYMISER)
    return FORMAT.decode(cut.payload, "t", NOW, CameraInfo()), cut


@pytest.mark.parametrize(("charset", "declared"), [("gb18030", "GB2312"), ("gb18030", "gbk"), ("utf-8", "UTF-8")])
def test_an_alarm(charset: str, declared: str) -> None:
    """Its kind by method and type, Beijing time, its place; what somebody wrote of it falls."""
    result, cut = run(ALARM, charset, declared)
    (event,) = result.observations
    assert event.event is not None
    assert (event.kind, event.camera, event.event.type, event.observed_at, event.time_quality) == (
        ObservationKind.EVENT, DEVICE, "intrusion", AT, "assumed_tz",
    )  # fmt: skip
    assert event.place is not None
    assert (event.place.lon, event.place.lat) == (113.26, 23.12)
    assert cut.removed == {"AlarmDescription": 1}


def test_positions_and_states_are_readings() -> None:
    """Speeds in km/h; a place of 0, 0 is none."""
    measurements = run(POSITION)[0].measurements
    assert [(measurement.property, measurement.value, measurement.unit) for measurement in measurements] == [
        ("longitude", 113.26, "deg"), ("latitude", 23.12, "deg"), ("speed", 36.0, "km/h"),
    ]  # fmt: skip
    nowhere = POSITION.replace("113.26", "0").replace("23.12", "0.0")
    assert run(nowhere)[0] == VideoReport(ignored=1)
    assert [(measurement.camera, measurement.value) for measurement in run(CATALOGUE)[0].measurements] == [
        ("44010300001320000001", True), ("44010300001320000002", False),
    ]  # fmt: skip
    assert [
        (measurement.property, measurement.value, measurement.time_quality)
        for measurement in run(ALIVE)[0].measurements
    ] == [("online", True, "received")]


def test_sent_again_it_is_the_same() -> None:
    """By device, number and time."""
    first, repeated = run(ALARM)[0].observations[0], run(ALARM.replace("门前有人", ""))[0].observations[0]
    assert first.id == repeated.id != run(ALARM.replace("17", "18", 1))[0].observations[0].id


MARKS = ("Wang Xiaoming", "13800138000", "粤B12345", "rtsp://u:p@h/1")


@pytest.mark.parametrize("text", [ALARM, POSITION, CATALOGUE, ALIVE])
def test_marks_get_through_nowhere(text: str) -> None:
    """In place of each text, and as an element and an attribute of each one."""
    for mark in MARKS:
        places = [match.span(1) for match in re.finditer(r">([^<]+)<", text)]
        planted = [text[:begin] + mark + text[end:] for begin, end in places]
        planted += [text.replace("</SN>", f"</SN><Note>{mark}</Note><SN x='{mark}'>{mark}</SN>")]
        planted += [text.replace("<Item>", f"<Item><Owner>{mark}</Owner>")]
        for whole in planted:
            try:
                cut = run(whole)[1]
            except Rejected as why:
                message = str(why)
            else:
                message = cut.payload.decode() + str(cut.removed)
            assert mark not in message


@pytest.mark.parametrize(
    "text",
    ["<Query><CmdType>Catalog</CmdType></Query>", "<Notify/>", "<Notify><CmdType>x</CmdType></Notify>", "no", ""],
)
def test_what_is_no_message_is_refused(text: str) -> None:
    """Neither a command that is known, nor XML."""
    with pytest.raises(Rejected):
        run(text)
