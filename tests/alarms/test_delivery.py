"""Deliveries of alarms: forms, order, scope, retries, restarts; receivers are real HTTP and SMTP servers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from email import message_from_string, policy
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from sensegate.alarms.channels import AlarmChannel, AlarmChannels, ChannelKind, ChannelState
from sensegate.alarms.delivery import AlarmDeliveries, DeliveryPolicy
from sensegate.alarms.notices import line, mail_of, notices_of, robot_body, text_of
from sensegate.alarms.rules import Severity
from sensegate.alarms.transports import MailTransport, NoticeTransport, WebhookTransport, open_robots
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.egress import Egress
from sensegate.authority.scope import Scope
from sensegate.bus.unreadable import read_rows
from sensegate.config import MailConfig
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied, StoreFull
from sensegate.share.transports.webhook import open_webhooks
from tests.alarms.made import AUDITOR, HIGH, OPERATOR, OTHER, Gateway, process

SECRET = "a secret of sixteen"
DAY_S = 86_400


class HttpReceiver:
    """Keeps what is posted to it; answers as the test says."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.in_pieces = False
        self.raw = b""
        """Bytes to answer in place of JSON."""
        self.answer: tuple[int, dict[str, Any]] = (200, {"errcode": 0, "errmsg": "ok"})

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path_qs, dict(request.headers), await request.read()))
        status, body = self.answer
        if self.in_pieces:
            response = web.StreamResponse(status=status)
            await response.prepare(request)
            for piece in (json.dumps(body).encode()[:8], json.dumps(body).encode()[8:]):
                await response.write(piece)
                for _ in range(50):  # until the client has it
                    await asyncio.sleep(0)
            return response
        return web.Response(body=self.raw) if self.raw else web.json_response(body, status=status)

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.requests]


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    """An HTTP server on loopback."""
    receiver = HttpReceiver()
    application = web.Application()
    application.router.add_post("/{rest:.*}", receiver.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/robot/send"
    yield receiver
    await runner.cleanup()


class Office:
    """What delivers, in one process of the gateway."""

    def __init__(self, channels: AlarmChannels, deliveries: AlarmDeliveries) -> None:
        self.channels = channels
        self.deliveries = deliveries

    async def add(self, channel: AlarmChannel, *, start: int = 0) -> AlarmChannel:
        return await self.channels.put(channel, revision=0, start=start, by=OPERATOR)


@contextlib.asynccontextmanager
async def office(
    gateway: Gateway, bucket: MemoryBucket, *, mail: MailConfig | None = None, allow: tuple[str, ...] = ("127.0.0.1",)
) -> AsyncIterator[Office]:
    """Open channels and deliveries on what survived a process."""
    egress, mail = Egress(allow), mail or MailConfig()
    channels = AlarmChannels(bucket, gateway.trail, gateway.clock, egress, mail)
    await channels.open()
    async with (
        open_webhooks(egress, gateway.clock, timeout_s=5) as publisher,
        open_robots(egress, gateway.clock, timeout_s=5) as robot,
    ):
        transports: dict[ChannelKind, NoticeTransport] = {
            ChannelKind.WEBHOOK: WebhookTransport(publisher),
            ChannelKind.WECOM: robot,
            ChannelKind.DINGTALK: robot,
            ChannelKind.MAIL: MailTransport(mail, timeout_s=5),
        }
        deliveries = AlarmDeliveries(channels, gateway.log, gateway.clock, transports, DeliveryPolicy(0.01, 0.02))
        yield Office(channels, deliveries)


async def raised(*values: float) -> Gateway:
    """Return a gateway whose log has the events of some values of one device."""
    gateway = Gateway(HIGH)
    async with process(gateway) as running:
        for value in values:
            await gateway.commit(value)
            await running.step()
    return gateway


def webhook(receiver: HttpReceiver, **more: Any) -> AlarmChannel:
    return AlarmChannel(
        name="ops", kind=ChannelKind.WEBHOOK, url=receiver.url, secret=SECRET, place=Scope("4401"), **more
    )


async def test_events_are_delivered_once_in_order_through_a_restart(receiver: HttpReceiver) -> None:
    """A refused delivery is sent again with the same id; a new process goes on after the last accepted one."""
    gateway, bucket = await raised(80.0, 10.0), MemoryBucket()
    async with office(gateway, bucket) as first:
        channel = await first.add(webhook(receiver))
        receiver.answer = (503, {})
        assert not await first.deliveries.step(channel)
        assert first.channels.state("ops").reason == "answered 503"
        receiver.answer = (200, {})
        assert await first.deliveries.step(channel)
    async with process(gateway) as running:
        await gateway.commit(90.0)
        await running.step()
    async with office(gateway, bucket) as second:
        while await second.deliveries.step(channel):
            pass
        state = second.channels.state("ops")
    refused, accepted, after = receiver.requests
    assert refused[1]["webhook-id"] == accepted[1]["webhook-id"] != after[1]["webhook-id"]
    events = [alarm["event"] for _, _, body in (accepted, after) for alarm in json.loads(body)["alarms"]]
    assert events == ["opened", "closed", "opened"]
    assert (state.delivered, state.failures) == (3, 0)
    stamp, body = accepted[1]["webhook-timestamp"], accepted[2]
    signed = f"{accepted[1]['webhook-id']}.{stamp}.".encode() + body
    code = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert accepted[1]["webhook-signature"] == f"v1,{code}"


async def test_without_the_stored_position_events_are_doubled(receiver: HttpReceiver) -> None:
    """Control: a process that forgets the position delivers everything again."""
    gateway = await raised(80.0)
    for _ in range(2):
        async with office(gateway, MemoryBucket()) as forgetful:
            assert await forgetful.deliveries.step(await forgetful.add(webhook(receiver)))
    assert len(receiver.requests) == 2


async def test_a_robot_that_refuses_with_200_gets_it_again(receiver: HttpReceiver) -> None:
    """企业微信 answers 200 with an error code; only code 0 is a delivery."""
    gateway = await raised(80.0)
    robot = AlarmChannel(name="w", kind=ChannelKind.WECOM, url=f"{receiver.url}?key=k1", place=Scope("4401"))
    async with office(gateway, MemoryBucket()) as opened:
        channel = await opened.add(robot)
        receiver.answer = (200, {"errcode": 45009, "errmsg": "api freq out of limit"})
        assert not await opened.deliveries.step(channel)
        assert opened.channels.state("w").reason == "the robot refused: errcode 45009"
        receiver.answer = (200, {"errcode": 0})
        step = asyncio.create_task(opened.deliveries.step(channel))
        while opened.channels.state("w").delivered == 0:
            await asyncio.sleep(0)
        await gateway.clock.advance(4)
        assert await step
    assert receiver.bodies()[0] == receiver.bodies()[1]
    assert "告警发生" in receiver.bodies()[0]["text"]["content"]
    assert receiver.requests[0][0].endswith("?key=k1")


async def test_an_answer_too_deep_to_read_is_no_acceptance(receiver: HttpReceiver) -> None:
    """JSON nested too deeply counts as a refusal and is delivered again, like any answer without an error code."""
    receiver.raw = b"[" * 16_000
    gateway = await raised(80.0)
    robot = AlarmChannel(name="w", kind=ChannelKind.WECOM, url=receiver.url, place=Scope("4401"))
    async with office(gateway, MemoryBucket()) as opened:
        result = await opened.deliveries.attempt(await opened.add(robot), _notices(gateway))
    assert (result.accepted, result.reason) == (False, "the answer is not that of a robot")


async def test_an_answer_in_pieces_is_read_to_its_end(receiver: HttpReceiver) -> None:
    """A robot whose acceptance arrives in two pieces has accepted."""
    receiver.in_pieces = True
    gateway = await raised(80.0)
    robot = AlarmChannel(name="d", kind=ChannelKind.DINGTALK, url=receiver.url, secret="SEC1", place=Scope("4401"))
    async with office(gateway, MemoryBucket()) as opened:
        result = await opened.deliveries.attempt(await opened.add(robot), _notices(gateway))
    assert result.accepted, result.reason


async def test_a_robot_of_dingtalk_is_signed(receiver: HttpReceiver) -> None:
    """The query has the time in ms and HMAC-SHA256 of time and secret, as its documentation has it."""
    gateway = await raised(80.0)
    url = f"{receiver.url}?access_token=t"
    robot = AlarmChannel(name="d", kind=ChannelKind.DINGTALK, url=url, secret="SEC1", place=Scope("4401"))
    async with office(gateway, MemoryBucket()) as opened:
        result = await opened.deliveries.attempt(await opened.add(robot), _notices(gateway))
        assert result.accepted, result.reason
    query = parse_qs(urlsplit(receiver.requests[0][0]).query)
    code = hmac.new(b"SEC1", f"{query['timestamp'][0]}\nSEC1".encode(), hashlib.sha256).digest()
    assert query["sign"] == [base64.b64encode(code).decode()]
    assert query["access_token"] == ["t"]
    assert receiver.bodies()[0]["msgtype"] == "markdown"


def _notices(gateway: Gateway) -> list[Any]:
    batches = [read_rows(entry, "test") for entry in gateway.log._entries if entry.subject.startswith("alarms.")]
    return [notice for batch in batches if batch is not None for notice in notices_of(batch)]


async def test_only_the_place_and_the_severity_of_a_channel(receiver: HttpReceiver) -> None:
    """Another place, a lower severity and another kind of event are not delivered; the position moves."""
    gateway = await raised(80.0, 10.0)
    async with office(gateway, MemoryBucket()) as opened:
        severe = await opened.add(webhook(receiver, severity=Severity.MAJOR))
        assert await opened.deliveries.step(severe)
        only = msgspec.structs.replace(webhook(receiver), name="only", events=("acknowledged",))
        assert await opened.deliveries.step(await opened.add(only))
        elsewhere = msgspec.structs.replace(webhook(receiver), name="else", place=Scope("440103"))
        assert await opened.deliveries.step(await opened.add(elsewhere))
    assert receiver.requests == []


async def test_silenced_alarms_are_quiet(receiver: HttpReceiver) -> None:
    """While an alarm is silenced its openings and closings are not delivered."""
    gateway = await raised(80.0)
    async with process(gateway) as running:
        (alarm,) = running.operations.list(OPERATOR)
        await running.operations.silence(alarm.id, seconds=3_600, note="", by=OPERATOR)
        for value in (10.0, 90.0):
            await gateway.commit(value)
            await running.step()
    async with office(gateway, MemoryBucket()) as opened:
        assert await opened.deliveries.step(await opened.add(webhook(receiver)))
    assert [alarm["event"] for body in receiver.bodies() for alarm in body["alarms"]] == ["opened"]


async def test_old_events_are_skipped_and_counted(receiver: HttpReceiver) -> None:
    """What could not be delivered for a day is no news; the count stays."""
    gateway = await raised(80.0)
    async with office(gateway, MemoryBucket()) as opened:
        channel = await opened.add(webhook(receiver))
        await gateway.clock.advance(DAY_S + 60)
        assert await opened.deliveries.step(channel)
        assert opened.channels.state("ops").skipped == 1
    assert receiver.requests == []


async def test_a_changed_channel_is_started_anew(receiver: HttpReceiver) -> None:
    """`run` delivers by each enabled channel, and stops when it is deleted."""
    gateway = await raised(80.0)
    async with office(gateway, MemoryBucket()) as opened:
        running = asyncio.create_task(opened.deliveries.run())
        try:
            await opened.add(webhook(receiver))
            while opened.channels.state("ops").delivered == 0:
                await asyncio.sleep(0)
            await opened.channels.delete("ops", by=OPERATOR)
            assert opened.channels.visible(OPERATOR) == []
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert len(receiver.requests) == 1


async def test_an_unexpected_error_is_counted_and_the_channel_is_started_anew(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery that ends by an error of the gateway is a failure of its channel; the next attempt delivers."""
    gateway = await raised(80.0)
    async with office(gateway, MemoryBucket()) as opened:
        attempt = opened.deliveries.attempt

        async def broken(_channel: AlarmChannel, _notices: Any) -> Any:
            raise ValueError("no such form")

        async def passed(is_done: Callable[[ChannelState], bool]) -> None:
            while not is_done(opened.channels.state("ops")):
                await gateway.clock.advance(1.0)
                await asyncio.sleep(0)

        monkeypatch.setattr(opened.deliveries, "attempt", broken)
        await opened.add(webhook(receiver))
        running = asyncio.create_task(opened.deliveries.run())
        try:
            with capture_logs() as lines:
                await passed(lambda state: state.failures >= 3)
            state = opened.channels.state("ops")
            assert "ValueError" in state.reason
            assert opened.deliveries.warnings()
            assert any(isinstance(entry.get("exc_info"), ValueError) for entry in lines)
            monkeypatch.setattr(opened.deliveries, "attempt", attempt)
            await passed(lambda state: state.delivered == 1)
            assert opened.channels.state("ops").failures == 0
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_full_store_holds_up_one_channel(receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position of a channel cannot be written: it waits and tries again, and the task of all channels goes on."""
    gateway = await raised(80.0)
    async with office(gateway, MemoryBucket()) as opened:
        settle, failures = opened.channels.settle, [StoreFull("full")] * 3

        async def full(*of: Any) -> None:
            if failures:
                raise failures.pop()
            await settle(*of)

        monkeypatch.setattr(opened.channels, "settle", full)
        await opened.add(webhook(receiver))
        running = asyncio.create_task(opened.deliveries.run())
        try:
            while not running.done() and not opened.channels.state("ops").delivered:
                await gateway.clock.advance(1.0)
                await asyncio.sleep(0)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": "ftp://127.0.0.1/"}, "url"),
        ({"url": ""}, "url"),
        ({"secret": "short"}, "secret"),
        ({"events": ("opened", "burst")}, "events"),
        ({"events": ()}, "events"),
        ({"language": "fr"}, "language"),
        ({"on_call": "x" * 301}, "on_call"),
        ({"name": "../x"}, "name"),
        ({"kind": ChannelKind.MAIL, "recipients": ()}, "recipients"),
        ({"kind": ChannelKind.MAIL, "recipients": ("a@gd.gov.cn\r\nBcc: x@y.cn",)}, "recipients"),
        ({"kind": ChannelKind.MAIL, "recipients": ("a@evil.example",)}, "recipients"),
    ],
)
async def test_a_wrong_channel_is_refused(receiver: HttpReceiver, changes: dict[str, Any], key: str) -> None:
    """Addresses are judged by `egress.allow`, mail by its domains; the error names the key, nothing is written."""
    gateway = Gateway()
    async with office(gateway, MemoryBucket(), mail=MailConfig(host="127.0.0.1", domains=("gov.cn",))) as opened:
        with pytest.raises(ConfigError) as refused:
            await opened.add(msgspec.structs.replace(webhook(receiver), **changes))
        assert refused.value.key == key
        assert opened.channels.visible(OPERATOR) == []


async def test_mail_without_a_mail_server_is_refused() -> None:
    """A mail channel is refused where no SMTP server is configured, and the key to set is named."""
    gateway = await raised(3.0)
    channel = AlarmChannel(name="m", kind=ChannelKind.MAIL, recipients=("a@gd.gov.cn",), place=Scope("4401"))
    async with office(gateway, MemoryBucket()) as opened:
        with pytest.raises(ConfigError, match=r"alarms\.mail\.host"):
            await opened.add(channel)
        assert opened.channels.visible(OPERATOR) == []
    async with office(gateway, MemoryBucket(), mail=MailConfig(host="127.0.0.1")) as opened:
        assert (await opened.add(channel)).name == "m"


async def test_a_channel_lies_in_the_scope_of_its_writer(receiver: HttpReceiver) -> None:
    """Others neither see nor change it; an auditor may not write; the trail has no secret."""
    gateway = Gateway()
    async with office(gateway, MemoryBucket()) as opened:
        channel = msgspec.structs.replace(webhook(receiver), url=f"{receiver.url}?key=hidden")
        written = await opened.add(channel)
        with pytest.raises(NotFound):
            opened.channels.get("ops", OTHER)
        with pytest.raises(Conflict):
            await opened.channels.put(
                msgspec.structs.replace(channel, place=Scope("4403")), revision=0, start=0, by=OTHER
            )
        with pytest.raises(PermissionDenied):
            await opened.channels.put(channel, revision=written.revision, start=0, by=AUDITOR)
        kept = msgspec.structs.replace(channel, url="", secret="", on_call="张三")
        changed = await opened.channels.put(kept, revision=written.revision, start=0, by=OPERATOR)
        assert (changed.url, changed.secret) == (channel.url, SECRET)
        text = str(gateway.trail.records)
        assert "hidden" not in text
        assert SECRET not in text
        assert "alarm.channel.put" in text


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────


async def test_marks_in_names_are_text_in_each_form() -> None:
    """A title adds no line, heading or link; a long message counts what it leaves out, within the robot's limit."""
    notice = _notices(await raised(80.0))[0]
    hostile = msgspec.structs.replace(notice, title="x\n# big [click](http://evil.example)\r\n> q")
    channel = AlarmChannel(name="d", kind=ChannelKind.DINGTALK, on_call="李四", language="en")
    assert "\n" not in line(hostile, "zh")
    text = json.loads(robot_body(channel, [hostile]))["markdown"]["text"]
    assert "\\[click\\]\\(http" in text
    assert text.endswith("on call: 李四")
    wecom = AlarmChannel(name="w", kind=ChannelKind.WECOM)
    many = [msgspec.structs.replace(notice, title="水" * 120)] * 20
    content = json.loads(robot_body(wecom, many))["text"]["content"]
    assert len(content.encode()) <= 4_000
    assert "另有" in content
    assert "另有" not in text_of(wecom, many)


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
async def test_no_separator_of_lines_keeps_a_mail_from_being_written(separator: str) -> None:
    """A value, a title or a note with any of them is one line, in the subject too."""
    notice = _notices(await raised(80.0))[0]
    text = f"pump{separator}stopped"
    hostile = msgspec.structs.replace(notice, title=text, value=text, note=text)
    channel = AlarmChannel(name="m", kind=ChannelKind.MAIL, recipients=("a@gd.gov.cn",))
    assert line(hostile, "zh").count("pump stopped") == 3
    assert "pump stopped" in str(mail_of(channel, [hostile], sender="sensegate@gd.gov.cn")["Subject"])


class SmtpReceiver:
    """A mail server that speaks as much of SMTP as a client needs."""

    def __init__(self) -> None:
        self.port = 0
        self.recipients: list[str] = []
        self.messages: list[str] = []
        self.refusing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(f"{text}\r\n".encode())

        say("220 test")
        while raw := await reader.readline():
            word = raw.decode().strip()
            verb = word[:4].upper()
            if verb == "DATA":
                say("354 go on")
                rows = []
                while (row := (await reader.readline()).decode()) != ".\r\n":
                    rows.append(row)
                self.messages.append("".join(rows))
            if verb == "RCPT":
                self.recipients.append(word)
            say({"QUIT": "221 bye", "RCPT": "550 no" if self.refusing else "250 ok"}.get(verb, "250 ok"))
            if verb == "QUIT":
                break
        writer.close()


async def test_mail_is_sent_by_smtp(receiver: HttpReceiver) -> None:
    """A mail has its recipients, a subject, the lines and an id; a server that refuses is a failure with its reason."""
    gateway, server = await raised(80.0), SmtpReceiver()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    mail = MailConfig(host="127.0.0.1", port=port, security="none", sender="sensegate@gd.gov.cn")
    channel = AlarmChannel(
        name="m", kind=ChannelKind.MAIL, recipients=("a@gd.gov.cn", "b@gd.gov.cn"), place=Scope("4401"), on_call="张三"
    )
    try:
        async with office(gateway, MemoryBucket(), mail=mail) as opened:
            await opened.add(channel)
            server.refusing = True
            assert not await opened.deliveries.step(channel)
            assert opened.channels.state("m").reason == "the mail server refused all recipients"
            server.refusing = False
            assert await opened.deliveries.step(channel)
    finally:
        listener.close()
        await listener.wait_closed()
    message = message_from_string(server.messages[0], policy=policy.default)
    assert message["To"] == "a@gd.gov.cn, b@gd.gov.cn"
    assert "感知网关告警" in message["Subject"]
    body = message.get_body()
    assert body is not None
    assert "值班: 张三" in body.get_content()
    assert message["Message-ID"].startswith(f"<{_notices(gateway)[0].id}")
    assert receiver.requests == []
