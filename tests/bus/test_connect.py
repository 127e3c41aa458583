"""Connections neither hoard nor hang."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.authority.certificates import LaboratoryCA
from sensegate.bus import connect, trust
from sensegate.bus.connect import LinkOptions
from sensegate.bus.engine import Engine, User
from sensegate.bus.free_ports import free_port
from sensegate.errors import Unavailable
from tests.bus.devices import until


async def test_nobody_there_is_lost_in_time() -> None:
    """The first connection has a deadline, and the message names the address without the secret."""
    url = f"nats://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1") as why:
        await connect.connect(url, link_options=LinkOptions(0.3))
    assert "secret" not in str(why.value)


@contextlib.asynccontextmanager
async def server_that_refuses_later() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Accept the first client, refuse all after it, and wait at the end until each has closed its connection.

    Yields the address and the answers so far.
    """
    answers: list[bytes] = []
    connections: set[asyncio.Task[None] | None] = set()

    async def entered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # the client was closed before
            writer.write(b'INFO {"server_id": "x", "version": "2.11.0", "max_payload": 1048576, "headers": true}\r\n')
            await reader.readuntil(b"PING\r\n")
            answers.append(b"-ERR 'not now'\r\n" if answers else b"PONG\r\n")
            writer.write(answers[-1])
            if len(answers) > 1:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(entered, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"nats://{host}:{port}", answers
    server.close()
    tasks = {task for task in connections if task is not None}
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks)


async def test_attempts_that_fail_in_the_handshake_leave_no_socket_open() -> None:
    """A server that turns away who comes again is tried again; each socket is closed (or the server waits for it)."""
    async with server_that_refuses_later() as (url, answers):
        client = await connect.connect(url, link_options=LinkOptions(5.0, 0.01))
        await until(lambda: len(answers) > 3)
        await client.close()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 2, 7, 13, 57])
async def test_a_client_closed_during_an_attempt_leaves_no_socket_open(steps: int) -> None:
    """At whatever step it is closed: an attempt may connect after nats-py has closed the socket before it."""
    for _ in range(8):
        async with server_that_refuses_later() as (url, answers):
            client = await connect.connect(url, link_options=LinkOptions(5.0, 0.01))
            while len(answers) < 4:
                await asyncio.sleep(0)
            for _ in range(steps):
                await asyncio.sleep(0)
            await client.close()


async def test_who_waits_for_an_answer_hears_at_once_that_the_connection_is_gone(engine: Engine) -> None:
    """Not after the whole time-out of the request."""
    results: list[str] = []
    client = await engine.connect(
        User.GATEWAY,
        on_disconnect=lambda: results.append("disconnected"),
        on_reconnect=lambda: results.append("connected"),
    )
    silent = await client.subscribe("silent")
    asking = asyncio.create_task(client.request("silent", b"", timeout=60))
    await silent.next_msg(timeout=30)
    os.kill(engine.info.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        with pytest.raises(nats.errors.Error):
            await asking
    await until(lambda: results == ["disconnected", "connected"])
    await client.close()


async def test_nothing_is_buffered_while_disconnected(engine: Engine) -> None:
    """A publish that could only wait raises: what arrives later, after it was given up, would be a double."""
    client = await engine.connect(User.GATEWAY)
    os.kill(engine.info.pid, signal.SIGSTOP)
    os.kill(engine.info.pid, signal.SIGKILL)
    await until(lambda: not client.is_connected)
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        await client.publish("a", b"")
    with pytest.raises(nats.errors.ConnectionReconnectingError):
        await client.request("a", b"")
    assert client._resp_map == {}
    async with asyncio.timeout(60):
        await engine.restarted.wait()
    await until(lambda: client.is_connected)
    await client.publish("a", b"")
    await client.close()


async def test_a_reader_too_slow_is_told(engine: Engine) -> None:
    """nats-py drops what does not fit; silence about it would be a loss."""
    slow: list[int] = []
    client = await engine.connect(User.GATEWAY, on_slow=lambda: slow.append(1))
    release = asyncio.Event()

    async def take(_: Msg) -> None:
        await release.wait()

    await client.subscribe("a", cb=take, pending_msgs_limit=10)
    for _ in range(20):
        await client.publish("a", b"")
    await client.flush()
    await until(lambda: slow)
    release.set()
    await client.close()


async def test_a_cancellation_that_comes_with_the_answer_is_heeded(gateway: connect.BusClient) -> None:
    """nats-py's `wait_for` swallows it on Python 3.11: a task that must end would work on. Control: nats-py's own."""
    for request, heeded in ((gateway.request, True), (partial(Client.request, gateway), sys.version_info >= (3, 12))):
        asking = asyncio.create_task(request("nobody.answers", b"", timeout=60))
        async with asyncio.timeout(30):
            while not gateway._resp_map:
                await asyncio.sleep(0)
        next(iter(gateway._resp_map.values())).set_result(Msg(gateway))
        asking.cancel()
        await asyncio.wait({asking}, timeout=30)
        assert asking.cancelled() is heeded


async def test_a_cancellation_during_a_flush_is_heeded(gateway: connect.BusClient) -> None:
    """nats-py swallows it while it waits for its flusher."""
    never = asyncio.Event()

    async def waiting(_: object) -> None:
        await never.wait()

    gateway._flush_queue.put, real = waiting, gateway._flush_queue.put  # type: ignore[method-assign,union-attr]
    sending = asyncio.create_task(gateway._flush_pending())
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait({sending}, timeout=30)
    gateway._flush_queue.put = real  # type: ignore[method-assign,union-attr]
    assert sending.cancelled()


async def test_a_peer_that_swallows_everything_is_left_at_once() -> None:
    """A cut that drops packets leaves bytes in the socket that never go; closing must not wait for them."""
    greetings: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.14.5","max_payload":1048576,"headers":true}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        greetings.append(writer)
        if len(greetings) == 1:
            writer.transport.pause_reading()  # type: ignore[attr-defined] # a transport of a socket
            return
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")

    server = await asyncio.start_server(swallow, "127.0.0.1", 0, limit=2**16)
    port = server.sockets[0].getsockname()[1]
    client = await connect.connect(
        f"nats://127.0.0.1:{port}", link_options=LinkOptions(ping_s=0.1, reconnect_timeout_s=1.0)
    )
    for _ in range(64):
        await client.publish("a", bytes(1_000_000))
    await until(lambda: len(greetings) > 1, 5.0)
    await until(lambda: client.is_connected)
    await client.close()
    for writer in greetings:
        writer.transport.abort()
    server.close()


async def test_what_is_given_up_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py swallows a cancellation now and then and would go on for ever, with a place of the account each time."""
    swallowed: list[int] = []

    async def stubborn(self: Client, *_: object, **__: object) -> None:
        del self
        while True:
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) > 3:
                    raise

    async def closed(self: Client) -> None:
        del self

    monkeypatch.setattr(Client, "connect", stubborn)
    monkeypatch.setattr(Client, "close", closed)
    monkeypatch.setattr(connect, "CANCEL_S", 0.01)
    before = asyncio.all_tasks()
    with pytest.raises(Unavailable, match="no answer"):
        await connect.connect("nats://127.0.0.1:1", link_options=LinkOptions(0.05))
    assert len(swallowed) == 4
    assert asyncio.all_tasks() == before


async def test_closing_does_not_wait_for_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not take in time is dropped with the socket."""
    monkeypatch.setattr(connect, "FLUSH_S", 0.2)
    greetings: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.14.5","max_payload":1048576,"headers":true}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        greetings.append(writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined] # a transport of a socket

    server = await asyncio.start_server(swallow, "127.0.0.1", 0, limit=2**16)
    port = server.sockets[0].getsockname()[1]
    client = await connect.connect(f"nats://127.0.0.1:{port}")
    for _ in range(64):
        await client.publish("a", bytes(1_000_000))
    async with asyncio.timeout(30):
        await client.close()
    for writer in greetings:
        writer.transport.abort()
    server.close()


async def test_a_link_whose_server_shows_another_certificate_can_be_closed(tmp_path: Path) -> None:
    """Asyncio forgets the plain connection under a failed handshake; who waits for its end would never try again."""
    now = dt.datetime.now(dt.UTC)
    good = LaboratoryCA(tmp_path, now).issue("good", "good", usage="server", hosts=("127.0.0.1",))
    other = LaboratoryCA(tmp_path, now).issue("other", "other", usage="server", hosts=("10.9.9.9",))
    shown: list[asyncio.StreamWriter] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair = other if shown else good
        context.load_cert_chain(pair.cert_file, pair.key_file)
        shown.append(writer)
        writer.write(b'INFO {"server_id":"x","version":"2.14.5","max_payload":1048576,"tls_required":true}\r\n')
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await writer.start_tls(context)
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = await connect.connect(
        f"tls://127.0.0.1:{port}", tls=trust.joined_centre_context(good.cert_file.read_text(), "127.0.0.1")
    )
    shown[0].transport.abort()
    async with asyncio.timeout(60):
        await client.credentials_refused.wait()
        await client.close()
    assert "neither the one received" in client.tls_failure
    server.close()


async def test_a_client_sends_nothing_late() -> None:
    """A connection drops the requests that it had not sent when it was lost: their callers have given them up."""
    client = connect.BusClient("late")
    client._pending.append(b"PUB late 1\r\nx\r\n")
    client._pending_data_size = 15
    await client.on_disconnected()
    assert (client._pending, client._pending_data_size) == ([], 0)


async def test_subscriptions_that_ended_without_a_connection_are_not_made_by_the_next(engine: Engine) -> None:
    """A follower subscribes twice a second while the server is away: the server would keep each of them."""
    client = await engine.connect(User.GATEWAY)
    os.kill(engine.info.pid, signal.SIGSTOP)
    os.kill(engine.info.pid, signal.SIGKILL)
    await until(lambda: client.is_reconnecting)
    for number in range(20):
        await (await client.subscribe(f"ended.{number}")).unsubscribe()
    kept = await client.subscribe("kept")
    async with asyncio.timeout(60):
        await engine.restarted.wait()
    await until(lambda: client.is_connected)
    await client.publish("kept", b"")
    await kept.next_msg(timeout=30)
    (own,) = [each for each in await engine.connections("SG", subscriptions=True) if each.name == "sensegate gateway"]
    assert not [subject for subject in own.subscriptions_list if subject.startswith("ended.")]
    assert "kept" in own.subscriptions_list
    await client.close()


async def raw_connection(engine: Engine) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection of `User.GATEWAY` that sends any bytes, as a client of another make may."""
    reader, writer = await asyncio.open_connection(engine.info.host, engine.info.port)
    own = engine.credential(User.GATEWAY)
    login = msgspec.json.encode(
        {"user": own.user, "pass": own.password, "headers": True, "verbose": False, "pedantic": False, "protocol": 1}
    )
    writer.write(b"CONNECT " + login + b"\r\nPING\r\n")
    async with asyncio.timeout(30):
        while await reader.readline() != b"PONG\r\n":
            pass
    return reader, writer


@pytest.mark.parametrize(
    "command",
    [b"PUB heard \xff\xfe 0\r\n\r\n", b"HPUB heard 18 18\r\nNATS/1.0 503 \xff\r\n\r\n\r\n"],
    ids=["reply subject", "header"],
)
async def test_a_message_that_cannot_be_decoded_makes_no_connection_deaf(engine: Engine, command: bytes) -> None:
    """Any client may publish a reply subject or header that is not UTF-8: it is dropped, the next message comes."""
    taken: list[bytes] = []
    client = await engine.connect(User.GATEWAY)

    async def take(message: Msg) -> None:
        taken.append(message.data)

    await client.subscribe("heard", cb=take)
    await client.flush()
    _, writer = await raw_connection(engine)
    writer.write(command + b"PUB heard 4\r\nnext\r\n")
    # Less than nats-py needs to notice by its pings that it reads nothing any more.
    await until(lambda: taken == [b"next"], 5.0)
    assert client.stats["reconnects"] == 0
    writer.close()
    await writer.wait_closed()
    await client.close()


async def test_an_answer_to_a_flush_that_was_given_up_makes_no_connection_deaf(gateway: connect.BusClient) -> None:
    """The PONG comes when nobody waits for it any more; what follows it is read."""
    flushing = asyncio.create_task(gateway.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.wait({flushing})
    assert flushing.cancelled()
    answer = await gateway.request("$JS.API.INFO", timeout=30)
    assert b"account_info" in answer.data
    assert gateway.stats["reconnects"] == 0


async def test_a_flush_confirms_what_was_sent_before_it(gateway: connect.BusClient) -> None:
    """A server that has answered it knows the subscriptions and messages before; nats-py sends its PING first."""
    written: list[bytes] = []

    class Recorder:
        """The transport; it records what is written."""

        def write(self, data: bytes) -> None:
            written.append(data)
            transport.write(data)

        def writelines(self, lines: list[bytes]) -> None:
            written.extend(lines)
            transport.writelines(lines)

        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

    transport: Any = gateway._transport
    gateway._transport = Recorder()  # type: ignore[assignment]
    await gateway.subscribe("heard")
    await gateway.publish("said", b"before")
    await gateway.flush()
    sent = b"".join(written)
    assert sent.index(b"SUB heard") < sent.index(b"PUB said") < sent.index(b"PING")


async def test_a_connection_that_the_server_ends_with_an_error_is_made_again(engine: Engine) -> None:
    """After ``-ERR`` nats-py stays closed for good, and with it the gateway's only connection to its log."""
    client = await engine.connect(User.GATEWAY)
    client._max_payload = 2**31
    await client.publish("a", bytes(engine.info.max_payload + 1))
    await until(lambda: client.stats["reconnects"] == 1)
    assert b"account_info" in (await client.request("$JS.API.INFO", timeout=30)).data
    await client.close()


async def test_an_error_after_which_the_server_keeps_the_connection_costs_none(engine: Engine) -> None:
    """A refused publish is an error of one message."""
    client = await engine.connect(User.GATEWAY)
    await client._process_err("permissions violation for publish to 'a'")
    assert client.is_connected
    assert client.stats["reconnects"] == 0
    await client.close()


async def test_a_stranger_at_the_address_ends_no_reconnection(engine: Engine) -> None:
    """Another program listens where the server was, and sends what no server does; then the server is back."""
    greeted = 0

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        if greeted > 1:
            writer.write(b'INFO {"server_id":"x","version":"2.14.5","max_payload":1048576,"headers":true}\r\n')
        else:
            writer.write(bytes(200_000))  # a line longer than the client reads
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
        writer.transport.abort()

    own = engine.credential(User.GATEWAY)
    client = await connect.connect(
        engine.info.urls[0],
        connect.Login(own.user, own.password, own.inbox_prefix),
        link_options=LinkOptions(reconnect_wait_s=0.01),
    )
    stranger = await asyncio.start_server(enter, "127.0.0.1", 0)
    address = client._server_pool[0]
    address.uri = address.uri._replace(netloc=f"127.0.0.1:{stranger.sockets[0].getsockname()[1]}")
    client.drop()
    await until(lambda: greeted > 1 and client.is_connected)
    await client.close()
    stranger.close()
    await stranger.wait_closed()


async def test_what_is_written_at_once_stands_behind_what_is_pending(gateway: connect.BusClient) -> None:
    """A subscription that nats-py has not yet flushed is made before the message; one too large is refused."""
    arrived: list[tuple[bytes, bytes, bytes]] = []
    done = asyncio.Event()

    def take(subject: bytes, header: bytes, payload: bytes) -> None:
        arrived.append((subject, header, payload))
        done.set()

    inbox = gateway.new_inbox()
    await gateway.subscribe_at_once(inbox, take)
    gateway.publish_at_once(inbox, f"{inbox}.answer", b"NATS/1.0\r\na: b\r\n\r\n", b"payload")
    async with asyncio.timeout(30):
        await done.wait()
    assert arrived == [(inbox.encode(), b"NATS/1.0\r\na: b\r\n\r\n", b"payload")]
    with pytest.raises(nats.errors.MaxPayloadError):
        gateway.publish_at_once(inbox, inbox, b"", bytes(gateway.max_payload + 1))


async def test_nothing_is_written_at_once_without_a_connection(engine: Engine) -> None:
    """An error reaches the caller, who sends again later."""
    client = await engine.connect(User.GATEWAY)
    await client.close()
    with pytest.raises(nats.errors.Error):
        client.publish_at_once("x", "y", b"", b"")


PLAIN = {
    b"NATS/1.0\r\nNats-Sequence: 7\r\nNats-Subject: readings.4401.all.1\r\n\r\n",
    "NATS/1.0\r\nplace: 广州: 1\r\n\r\n".encode(),
}
"""Blocks of headers in the form of the server."""


@pytest.mark.parametrize(
    "block",
    [
        *sorted(PLAIN),
        b"NATS/1.0\r\nname:value\r\n\r\n",
        b"NATS/1.0\r\nname: \xff\r\n\r\n",
        b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 9\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\n\r\n",
        b"",
    ],
)
async def test_headers_are_read_as_the_client_library_reads_them(block: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of the server is read without the library, every other form by it, with the same result."""
    by_library = await Client()._process_headers(block)
    asked = []

    async def counted(_client: Client, headers: bytes) -> dict[str, str] | None:
        asked.append(headers)
        return by_library

    monkeypatch.setattr(Client, "_process_headers", counted)
    assert await connect.BusClient("test")._process_headers(block) == by_library
    assert asked == ([] if block in PLAIN else [block])
