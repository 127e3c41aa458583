"""Every format on bodies that are large or deep: cut or refused, in a time that grows no faster than they do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo
from sensegate.video.formats import FORMATS
from tests.video.canary import AT, BASES, PSEUDONYMISER

SIZE = 250_000
SLOW_S = 0.6
"""Of the process's own time: what grows with the square needs minutes."""
ALERT = b"<EventNotificationAlert><eventType>VMD</eventType><a>%b</a></EventNotificationAlert>"
EVENT = b"Code=VideoMotion;action=Start;index=0"


def large() -> Iterator[tuple[str, bytes]]:
    """Yield bodies each against one weak place."""
    for case, row in (
        ("blanks", b" "), ("lines", b"\n"), ("open elements", b"<a>"), ("declarations", b"<?xml "), ("types", b"<!"),
        ("open lists", b"["), ("open objects", b'{"a":'), ("quotes", b'"'), ("backslashes", b"\\"), ("dashes", b"-"),
        ("boundaries", b"--b\r\n"), ("heads", b"--b\r\nContent-Type: x\r\n\r\n"), ("half heads", b"--b\r\nContent-"),
        ("events", EVENT + b"\n"), ("half events", b"Code="), ("heartbeats", b"Heartbeat"), ("digits", b"1"),
        ("zeros", b"\0"), ("signs", "粤".encode()), ("entities", b"&amp;"), ("ends", b"\r\n\r\n"),
    ):  # fmt: skip
        yield case, row * (SIZE // len(row))
        yield f"{case} in an event", EVENT + b";data=" + b'{"a": "' + row * (SIZE // len(row)) + b'"}'
        yield f"{case} behind an event", EVENT + b";data={" + row * (SIZE // len(row))
        yield f"{case} in an element", ALERT % (row * (SIZE // len(row)))
        yield f"{case} in a part", b"--b\r\nContent-Type: a/b\r\n\r\n" + row * (SIZE // len(row)) + b"\r\n--b--\r\n"
        yield f"{case} in JSON", b'{"a": "' + row * (SIZE // len(row)) + b'"}'
    yield "a closing tag", b"<a" + b" b" * (SIZE // 2) + b"/>"
    yield "members", b"{" + b",".join(b'"k%d":1' % at for at in range(SIZE // 12)) + b"}"


def taken(name: str, topic: str, payload: bytes) -> str:
    """Take a body through a format; return why it was refused, empty where it was not."""
    try:
        cut = FORMATS[name].redact(payload, topic, AT, PSEUDONYMISER)
        FORMATS[name].decode(cut.payload, topic, AT, CameraInfo(id="c1"))
    except Rejected as why:
        return why.detail
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_large_body_costs_no_more_than_its_size(name: str) -> None:
    slow = []
    for case, payload in large():
        start = time.process_time()
        taken(name, "a/b", payload)
        spent = time.process_time() - start
        if spent > SLOW_S:
            slow.append(f"{case}: {spent:.1f} s")
    assert not slow


@pytest.mark.parametrize("depth", [30, 200, 480, 900, 980, 1_000, 3_000, 100_000])
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_deep_body_is_cut_or_refused(name: str, depth: int) -> None:
    """Beside what an example holds, in place of each of its members, and around it."""
    lists, objects = b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth
    for topic, payload in BASES[name][:4]:
        if not payload.lstrip().startswith(b"{"):
            taken(name, topic, b"<a>" * depth + b"</a>" * depth)
            continue
        tree = json.loads(payload)
        for deep in (lists, objects):
            taken(name, topic, payload.rstrip()[:-1] + b', "deep": ' + deep + b"}")
            for member in tree:
                taken(name, topic, json.dumps({**tree, member: "@@"}).encode().replace(b'"@@"', deep))
        for word in (b"topic", b"_mqtt_topic"):
            around = b'{"%b":"a","payload":' % word
            if depth < 10_000:
                taken(name, topic, around * depth + payload + b"}" * depth)
