"""The TCP source: devices with national protocols, identified frame by frame, answered after the commit.

    socket ─▶ FrameStream (frames) ─▶ ProtocolSession (sender, proof) ─▶ registry, passwords ─▶ Delivery
                                              └─▶ reply  ◀───────────────── acknowledged ◀──────┘

Reading of a connection pauses while too many of its frames are uncommitted, so that TCP flow control slows the device
down. A device without a reply sends again; deduplication recognises frames that were committed nevertheless.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol
from zoneinfo import ZoneInfo

import structlog

from sensegate import metrics
from sensegate.bus.free_ports import listen, url_host
from sensegate.bus.trust import server_context
from sensegate.clock import Clock
from sensegate.collect.contract import ProtocolSession
from sensegate.collect.handshakes import PacedListener
from sensegate.collect.passwords import DevicePasswords
from sensegate.collect.protocols import PROTOCOLS
from sensegate.collect.pushed import PushSource
from sensegate.collect.stream import FrameStream
from sensegate.config import IngestConfig, TcpConfig, TlsConfig
from sensegate.errors import ConfigError, Rejected
from sensegate.model import BOOL, FrameOutcome, ReceivedFrame

REPLY_TIMEOUT_S = 25.0
"""Time limit for outstanding replies after the device has closed its side."""
CLOSE_S = 2.0
UNREAD_BYTES_MAX = 65_536
"""Most unread bytes of replies before a connection is aborted."""
NAME_MAX = 128
_BACKLOG = 1_024
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Keep-alive options with which a vanished peer is detected within a minute."""
_UNSAFE = re.compile(r"[^0-9A-Za-z_.-]")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_log = structlog.get_logger("collect")


class Registry(Protocol):
    """The part of the device registry that a listener uses."""

    @property
    def enabled(self) -> BOOL:
        """Return whether a device may send, by index."""
        ...

    def find(self, name: str, /) -> int:
        """Return the index of the device with an id or alias; -1 if there is none."""
        ...

    def id(self, at: int, /) -> str:
        """Return the canonical id of an index."""
        ...


RefusalCallback = Callable[[str, str, str], None]
"""Callback (name, reason, address) for each frame whose sender is refused."""


class _TcpConnection:
    """An open connection."""

    def __init__(self, writer: asyncio.StreamWriter, session: ProtocolSession, address: str, protocol: str) -> None:
        self.session = session
        self.address = address
        self.devices: set[str] = set()
        """Ids of the devices that sent frames on it."""
        self.pending = 0
        self.refused = 0
        self._writer = writer
        self._protocol = protocol
        self._settled = asyncio.Event()

    def send(self, reply: bytes) -> None:
        """Send a reply; abort the connection if the device does not read its replies."""
        if not reply or self._writer.is_closing():
            return
        self._writer.write(reply)
        metrics.TCP_ANSWERS.labels(self._protocol).inc()
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            metrics.LIMIT_HITS.labels("tcp_unread").inc()
            self.abort()

    def settle(self) -> None:
        """Note that a frame was committed."""
        self.pending -= 1
        self._settled.set()

    async def wait_below(self, limit: int) -> None:
        """Wait until fewer than `limit` frames are uncommitted."""
        while self.pending >= limit:
            self._settled.clear()
            await self._settled.wait()

    def abort(self) -> None:
        """Abort the connection."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Flush and close the connection."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()


class TcpSource(PushSource):
    """A TCP port. `open` listens; `start` and `stop` restart the ingest without closing connections."""

    def __init__(
        self,
        config: TcpConfig,
        limits: IngestConfig,
        clock: Clock,
        devices: Registry,
        *,
        zone: str = "Asia/Shanghai",
        refused: RefusalCallback = lambda _name, _why, _address: None,
    ) -> None:
        """Create a listener, which `open` starts; `zone` is the time zone in replies.

        Raises `ConfigError` if the passwords are unreadable, or if any host could send for any device.
        """
        super().__init__(f"tcp:{config.name or config.protocol}", limits, clock)
        self._config = config
        self._devices = devices
        self._zone = ZoneInfo(zone)
        self._refused = refused
        self._allow = _networks(config)
        self._centres = frozenset(centre.upper() for centre in config.centres)
        self._passwords = DevicePasswords(config.passwords_file, clock) if config.passwords_file else None
        self._listeners: list[asyncio.Server] | list[PacedListener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_TcpConnection] = set()
        self._by_address: Counter[str] = Counter()
        self._unknown_frames = (0, 0)
        """(minute, stored frames of unknown devices in it)"""

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> str:
        """Start listening; return the address as ``tcp://host:port``.

        Raises:
            ConfigError: the address is not available, or the certificates cannot be loaded.
        """
        config = self._config
        context = _context(config.tls)
        try:
            if context:
                self._listeners, port = await listen(partial(self._listen_tls, context), config.port, config.host)
            else:
                start_server = partial(asyncio.start_server, self._accept, config.host, backlog=_BACKLOG)
                server, port = await listen(start_server, config.port, config.host)
                self._listeners = [server]
        except OSError as why:
            problem = f"the listener cannot use {config.host}:{config.port}: {why.strerror}"
            raise ConfigError(problem, key="listen.tcp", remedy="choose a free port, or 0") from why
        return f"{'tls' if context else 'tcp'}://{url_host(config.host)}:{port}"

    async def _listen_tls(self, context: ssl.SSLContext, port: int) -> list[PacedListener]:
        """Listen by TLS: an address is checked before its handshake, and handshakes are limited. Raises `OSError`."""

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._accept)

        sockets = await _listening_sockets(self._config.host, port)
        return [PacedListener(each, context, protocol, self._admits) for each in sockets]

    async def close(self) -> None:
        """Stop listening and close all connections; devices repeat unanswered frames."""
        for listener in self._listeners:
            listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listeners = []

    def disconnect(self, device: str) -> None:
        """Abort the connections on which a device sent frames, because it was disabled or moved."""
        for connection in self._connections:
            if device in connection.devices:
                connection.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if task is None or not self._admits(address):
            writer.transport.abort()
            return
        _keep_alive(writer)
        connection = _TcpConnection(
            writer, PROTOCOLS[self._config.protocol](self._config, self._zone), address, self._config.protocol
        )
        self._tasks.add(task)
        self._connections.add(connection)
        self._by_address[address] += 1
        metrics.TCP_CONNECTIONS.labels(self._config.protocol).inc()
        try:
            await self._run_connection(reader, connection)
        finally:
            metrics.TCP_CONNECTIONS.labels(self._config.protocol).dec()
            self._by_address[address] -= 1
            self._by_address += Counter()  # drops zeros
            self._connections.discard(connection)
            self._tasks.discard(task)
            connection.abort()

    def _admits(self, address: str) -> bool:
        """Return whether a connection from an address is within the limits; count one that is not."""
        limit = self._limit_for(address)
        if limit:
            metrics.LIMIT_HITS.labels(limit).inc()
        return not limit

    def _limit_for(self, address: str) -> str:
        """Return the limit that rejects an address; empty: none."""
        if self._allow and not _within(address, self._allow):
            self._refused("", f"the address is not in listen.tcp.allow ({self.name})", address)
            return "tcp_allow"
        if len(self._connections) >= self._config.connections_max:
            return "tcp_connections"
        if self._by_address[address] >= self._config.connections_per_address_max:
            return "tcp_connections_per_address"
        return ""

    # ── one connection ───────────────────────────────────────────────────────────────────────────────

    async def _run_connection(self, reader: asyncio.StreamReader, connection: _TcpConnection) -> None:
        stream = FrameStream(reader, connection.session.find_frame, self._config)
        async for frame in stream.frames():
            if len(frame) > self._limits.message_bytes_max:
                metrics.LIMIT_HITS.labels("message_bytes_max").inc()
                stream.reject(frame)
                continue
            try:
                parsed = connection.session.parse(frame)
            except Rejected:
                self._count("malformed")
                stream.reject(frame)
                continue
            if not await self._take(frame, parsed, connection, stream):
                stream.end_reason = "refused"
                break
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    await connection.wait_below(1)
        _log.debug("connection closed", source=self.name, address=connection.address, reason=stream.end_reason)
        await connection.close()

    async def _take(self, frame: bytes, parsed: ReceivedFrame, connection: _TcpConnection, stream: FrameStream) -> bool:
        """Process a frame; return whether the connection stays open."""
        outcome, device = self._identify(parsed, connection.address)
        if not device:
            self._count(outcome)
            if (
                outcome in {FrameOutcome.UNKNOWN, FrameOutcome.CHECK_FAILED}
                and parsed.is_stored
                and self._may_store_unknown()
            ):
                self.put(f"tcp/{self._config.protocol}/{_UNSAFE.sub('_', parsed.name[:NAME_MAX])}", frame)
            connection.send(connection.session.build_reply(parsed, outcome, self._clock.now()))
            if outcome is FrameOutcome.CHECK_FAILED:
                stream.reject(frame)
                return True
            connection.refused += 1
            return outcome is not FrameOutcome.PASSWORD and connection.refused < self._config.refused_max
        connection.devices.add(device)
        if outcome is not FrameOutcome.CHECK_FAILED:
            stream.accept()
        if outcome is FrameOutcome.ALIVE:
            self._count(outcome)
            connection.send(connection.session.build_reply(parsed, outcome, self._clock.now()))
            return True
        await connection.wait_below(self._config.inflight_max)
        if self.full:
            metrics.LIMIT_HITS.labels("depth_messages_max").inc()
            await self.wait_for_room()
        connection.pending += 1
        committed = self.put(f"tcp/{self._config.protocol}/{device}", frame, device)
        committed.add_done_callback(partial(self._settle, parsed, outcome, connection))
        return True

    def _settle(
        self, parsed: ReceivedFrame, outcome: FrameOutcome, connection: _TcpConnection, committed: asyncio.Future[None]
    ) -> None:
        connection.settle()
        self._count(outcome)
        if not committed.cancelled():
            connection.send(connection.session.build_reply(parsed, outcome, self._clock.now()))

    def _identify(self, frame: ReceivedFrame, address: str) -> tuple[FrameOutcome, str]:
        """Return the outcome of a frame, and the id of its device if it is accepted."""
        index = self._devices.find(frame.name) if 0 < len(frame.name) <= NAME_MAX else -1
        is_known = index >= 0 and bool(self._devices.enabled[index])
        is_proved = frame.password is None or not self._passwords or self._passwords.match(frame.name, frame.password)
        if not frame.checksum_ok:  # the sender's name may be the corrupt part
            return FrameOutcome.CHECK_FAILED, self._devices.id(index) if is_known and is_proved else ""
        name = frame.name[:NAME_MAX] or "(no name)"
        if not is_known:
            reason = "no such device is registered" if index < 0 else "the device is disabled"
            self._refused(name, f"{reason} ({self.name})", address)
            return FrameOutcome.UNKNOWN, ""
        if self._centres and frame.centre and frame.centre not in self._centres:
            self._refused(name, f"the frame is for centre {frame.centre} ({self.name})", address)
            return FrameOutcome.CENTRE, ""
        if not is_proved:
            self._refused(name, f"the password is wrong ({self.name})", address)
            return FrameOutcome.PASSWORD, ""
        return (FrameOutcome.COMMITTED if frame.is_stored else FrameOutcome.ALIVE), self._devices.id(index)

    def _may_store_unknown(self) -> bool:
        """Return whether another frame of an unknown device may be stored in this minute."""
        minute, count = self._clock.now() // 60_000_000, self._unknown_frames[1] + 1
        if minute != self._unknown_frames[0]:
            count = 1
        self._unknown_frames = (minute, count)
        return count <= self._config.unknown_per_minute and not self.full

    def _count(self, outcome: str) -> None:
        metrics.TCP_FRAMES.labels(self._config.protocol, str(outcome)).inc()


# ── listening by TLS ─────────────────────────────────────────────────────────────────────────────────


async def _listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return a socket that listens for each address of a host, as `asyncio.start_server` does. Raises `OSError`."""
    places = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((place[0], place[4]) for place in places):
            sockets.append(socket.create_server(address, family=family, backlog=_BACKLOG))
            sockets[-1].setblocking(False)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


# ── who may connect ──────────────────────────────────────────────────────────────────────────────────

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(config: TcpConfig) -> tuple[Network, ...]:
    proof = config.allow or config.passwords_file or config.tls.ca_file
    if config.host not in _LOOPBACK and not proof:
        raise ConfigError(
            f"{config.host}:{config.port} would accept frames of any device from any host",
            key="listen.tcp",
            remedy="give allow, passwords_file or tls.ca_file, or listen on 127.0.0.1",
        )
    try:
        return tuple(ipaddress.ip_network(text) for text in config.allow)
    except ValueError as why:
        raise ConfigError(
            str(why), key="listen.tcp.allow", remedy="give addresses or networks like 10.1.0.0/16"
        ) from why


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(mapped in network for network in networks)


def _context(tls: TlsConfig) -> ssl.SSLContext | None:
    if not tls.cert_file:
        return None
    return server_context("listen.tcp.tls", cert_file=tls.cert_file, key_file=tls.key_file, ca_file=tls.ca_file)


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is None:
        return
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
