"""The client of the admission service: no client can make a request or a report too large to be sent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from nats.aio.client import Client

from sensegate.clock import FakeClock, SystemClock
from sensegate.collect.front import messages
from sensegate.collect.front.admission import CREDENTIAL_MAX, REFUSALS_MAX, AdmissionClient
from sensegate.collect.front.messages import Answer, Answers, Questions, Report
from sensegate.collect.front.packets import ConnectPacket, MqttViolation, Version
from sensegate.collect.front.rights import Admitted
from sensegate.errors import Unavailable
from tests.collect.front.front_rig import running_front

MAX_PAYLOAD = 1_048_576
"""Most bytes of a message at a nats-server, unless it is configured."""
_questions = msgspec.msgpack.Decoder(Questions).decode
_report = msgspec.msgpack.Decoder(Report).decode


class Response(NamedTuple):
    data: bytes


class Gateway:
    """A connection whose other end admits everybody."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.reports: list[Report] = []
        self.away = False
        self.omitted = 0
        """Answers that the next response lacks."""

    async def request(self, subject: str, payload: bytes, timeout: float) -> Response:
        assert subject == messages.ADMIT
        assert timeout > 0
        self.requests.append(payload)
        answers = tuple(Answer(is_known=True, is_admitted=True) for _ in _questions(payload).questions[self.omitted :])
        self.omitted = 0
        return Response(msgspec.msgpack.encode(Answers(answers)))

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        if subject == messages.HELLO:
            return
        assert (subject, reply) == (messages.REPORT, "")
        if self.away or len(payload) > MAX_PAYLOAD:
            raise Unavailable("too large, or away")
        self.reports.append(_report(payload))

    async def subscribe(self, *_: Any, **__: Any) -> None: ...

    async def flush(self) -> None: ...

    def new_inbox(self) -> str:
        return "inbox"


def connect(number: int, password: bytes) -> ConnectPacket:
    return ConnectPacket(Version.MQTT_5, client_id=f"d{number}", username=f"d{number}", password=password)


async def test_long_passwords_do_not_keep_others_out() -> None:
    """Bytes that are not UTF-8 are sent four times as long; each request still fits into a message."""
    gateway = Gateway()
    client = AdmissionClient(cast("Client", gateway), "f1", FakeClock())
    packets = [connect(number, b"\xff" * CREDENTIAL_MAX) for number in range(40)]
    waiting = [asyncio.ensure_future(client.admit(packet, "127.0.0.1", "")) for packet in packets]
    running = asyncio.ensure_future(client.run())
    async with asyncio.timeout(30):
        admitted = await asyncio.gather(*waiting)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(admitted) == 40
    assert sum(len(_questions(request).questions) for request in gateway.requests) == 40
    assert max(map(len, gateway.requests)) < MAX_PAYLOAD


async def test_a_response_that_lacks_answers_is_no_response() -> None:
    """Nobody gets the answer to another's question, and nobody waits for ever: all are asked for again."""
    gateway = Gateway()
    gateway.omitted = 1
    client = AdmissionClient(cast("Client", gateway), "f1", SystemClock())
    waiting = [asyncio.ensure_future(client.admit(connect(number, b"right"), "127.0.0.1", "")) for number in range(3)]
    running = asyncio.ensure_future(client.run())
    try:
        async with asyncio.timeout(30):
            admitted = await asyncio.gather(*waiting)
        assert all(isinstance(result, Admitted) for result in admitted)
        assert len(gateway.requests) == 2
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("user", "password"), [("d1", b"x" * (CREDENTIAL_MAX + 1)), ("d" * (CREDENTIAL_MAX + 1), b"x")]
)
async def test_a_credential_that_is_too_long_is_refused_here(user: str, password: bytes) -> None:
    gateway = Gateway()
    client = AdmissionClient(cast("Client", gateway), "f1", FakeClock())
    with pytest.raises(MqttViolation, match="more than 16,384 bytes"):
        async with asyncio.timeout(5):  # nobody answers a question
            await client.admit(ConnectPacket(Version.MQTT_5, "c", username=user, password=password), "127.0.0.1", "")
    assert not gateway.requests


async def test_reports_fit_into_a_message_and_lose_no_count() -> None:
    """1,000 refused topics of the longest kind come in parts; a report that cannot be sent stays for the next one."""
    gateway = Gateway()
    client = AdmissionClient(cast("Client", gateway), "f1", SystemClock())
    async with running_front() as rig:
        await client.open(rig.front)
        for number in range(REFUSALS_MAX):
            client.refused("d1", "publish", f"{number}" + "\U0001f600" * 1_000, "127.0.0.1")
        client.hit("mqtt_connections")
        gateway.away = True
        await client.report()
        client.refused("d1", "publish", "0" + "\U0001f600" * 1_000, "127.0.0.1")
        gateway.away = False
        for _ in range(10):
            await client.report()
    counts = [refusal.count for report in gateway.reports for refusal in report.refusals]
    assert sum(counts) == REFUSALS_MAX + 1
    assert [report.limits for report in gateway.reports] == [{"mqtt_connections": 1}, *[{}] * 9]
