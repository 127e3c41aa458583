"""Devices that speak a national protocol over TCP: identified frame by frame, answered after the commit.

    socket ─▶ FrameStream (whole frames) ─▶ Talk (who, which proof) ─▶ registry, passwords ─▶ Delivery
                                              └─▶ answer  ◀──────────────── acknowledged ◀──────┘

A connection is read no further while too many of its frames wait for their commit, so TCP itself holds the device
back. A device that gets no answer sends again; that its frame was committed after all shows as a duplicate.
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
from sensegate.bus.ports import bracketed, listen
from sensegate.clock import Clock
from sensegate.collect.passwords import Passwords
from sensegate.collect.protocols import TALKS
from sensegate.collect.pushed import Pushed
from sensegate.collect.stream import FrameStream
from sensegate.config import IngestConfig, TcpConfig, TlsConfig
from sensegate.errors import ConfigError, Rejected
from sensegate.model import BOOL, Heard, Outcome
from sensegate.ports import Talk

ANSWER_S = 25.0
"""A device that has closed its side waits so long for the answers that it is owed."""
CLOSE_S = 2.0
UNREAD_BYTES_MAX = 65_536
"""Most bytes of answers that a device leaves unread."""
NAME_MAX = 128
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A peer that vanished without a word is noticed within a minute."""
_UNSAFE = re.compile(r"[^0-9A-Za-z_.-]")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_log = structlog.get_logger("collect")


class Registry(Protocol):
    """What a listener must know of the registry."""

    @property
    def enabled(self) -> BOOL:
        """Whether device *i* may send."""
        ...

    def find(self, name: str, /) -> int:
        """Return the index of the device with this id or alias, -1 if there is none."""
        ...

    def id(self, at: int, /) -> str:
        """Return the canonical id of an index."""
        ...


Refused = Callable[[str, str, str], None]
"""(name, why, address): called for each frame that is refused for who sent it."""


class _Caller:
    """One open connection."""

    def __init__(self, writer: asyncio.StreamWriter, talk: Talk, address: str, protocol: str) -> None:
        self.talk = talk
        self.address = address
        self.devices: set[str] = set()
        """Whose frames it has brought."""
        self.owed = 0
        self.refused = 0
        self._writer = writer
        self._protocol = protocol
        self._less = asyncio.Event()

    def say(self, answer: bytes) -> None:
        """Send an answer; a device that never reads them is cut off."""
        if not answer or self._writer.is_closing():
            return
        self._writer.write(answer)
        metrics.TCP_ANSWERS.labels(self._protocol).inc()
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            metrics.LIMIT_HITS.labels("tcp_unread").inc()
            self.abort()

    def paid(self) -> None:
        """Say that one frame less waits for its commit."""
        self.owed -= 1
        self._less.set()

    async def fewer(self, than: int) -> None:
        """Return when fewer frames wait for their commit."""
        while self.owed >= than:
            self._less.clear()
            await self._less.wait()

    def abort(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Send what is to be sent, and end the connection."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()


class TcpSource(Pushed):
    """One port. `open` listens; `start` and `stop` are those of the ingest, which devices do not notice."""

    def __init__(
        self,
        config: TcpConfig,
        limits: IngestConfig,
        clock: Clock,
        devices: Registry,
        *,
        zone: str = "Asia/Shanghai",
        refused: Refused = lambda _name, _why, _address: None,
    ) -> None:
        """Make a listener that does not listen yet; `zone`: of the times in answers.

        Raises `ConfigError` where the passwords cannot be read, or where anyone could speak for any device.
        """
        super().__init__(f"tcp:{config.name or config.protocol}", limits, clock)
        self._config = config
        self._devices = devices
        self._zone = ZoneInfo(zone)
        self._refused = refused
        self._allow = _networks(config)
        self._centres = frozenset(centre.upper() for centre in config.centres)
        self._passwords = Passwords(config.passwords_file, clock) if config.passwords_file else None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._callers: set[_Caller] = set()
        self._by_address: Counter[str] = Counter()
        self._knocks = (0, 0)
        """(minute, frames of unknown devices that were kept in it)"""

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> str:
        """Listen; return where, as ``tcp://host:port``.

        Raises:
            ConfigError: the address cannot be listened on, or the certificates cannot be used.
        """
        config = self._config
        context = _context(config.tls)
        listening = partial(asyncio.start_server, self._accept, config.host, ssl=context, backlog=1_024)
        try:
            self._server, port = await listen(listening, config.port, config.host)
        except OSError as why:
            what = f"cannot listen on {config.host}:{config.port}: {why.strerror}"
            raise ConfigError(what, key="listen.tcp", remedy="choose a free port, or 0") from why
        return f"{'tls' if context else 'tcp'}://{bracketed(config.host)}:{port}"

    async def close(self) -> None:
        """Listen no more and end all connections; what was not answered comes again."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server = None

    def expel(self, device: str) -> None:
        """End the connections that have brought frames of a device: it was disabled, or is another's now."""
        for caller in self._callers:
            if device in caller.devices:
                caller.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if task is None or (why := self._turned_away(address)):
            if task is not None:
                metrics.LIMIT_HITS.labels(why).inc()
            writer.transport.abort()
            return
        _keep_alive(writer)
        caller = _Caller(writer, TALKS[self._config.protocol](self._config, self._zone), address, self._config.protocol)
        self._tasks.add(task)
        self._callers.add(caller)
        self._by_address[address] += 1
        metrics.TCP_CONNECTIONS.labels(self._config.protocol).inc()
        try:
            await self._converse(reader, caller)
        finally:
            metrics.TCP_CONNECTIONS.labels(self._config.protocol).dec()
            self._by_address[address] -= 1
            self._by_address += Counter()  # drops zeros
            self._callers.discard(caller)
            self._tasks.discard(task)
            caller.abort()

    def _turned_away(self, address: str) -> str:
        """Return which limit keeps an address out; empty: none."""
        if self._allow and not _within(address, self._allow):
            self._refused("", f"not among listen.tcp.allow ({self.name})", address)
            return "tcp_allow"
        if len(self._callers) >= self._config.connections_max:
            return "tcp_connections"
        if self._by_address[address] >= self._config.connections_per_address_max:
            return "tcp_connections_per_address"
        return ""

    # ── one connection ───────────────────────────────────────────────────────────────────────────────

    async def _converse(self, reader: asyncio.StreamReader, caller: _Caller) -> None:
        stream = FrameStream(reader, caller.talk.cut, self._config)
        async for frame in stream.frames():
            if len(frame) > self._limits.message_bytes_max:
                metrics.LIMIT_HITS.labels("message_bytes_max").inc()
                stream.bad(frame)
                continue
            try:
                heard = caller.talk.hear(frame)
            except Rejected:
                self._count("malformed")
                stream.bad(frame)
                continue
            if not await self._take(frame, heard, caller, stream):
                stream.ended = "refused"
                break
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await caller.fewer(1)
        _log.debug("connection ended", source=self.name, address=caller.address, why=stream.ended)
        await caller.close()

    async def _take(self, frame: bytes, heard: Heard, caller: _Caller, stream: FrameStream) -> bool:
        """Take one frame; return whether more are heard on this connection."""
        outcome, device = self._judge(heard, caller.address)
        if not device:
            self._count(outcome)
            if outcome in {Outcome.UNKNOWN, Outcome.CHECK_FAILED} and heard.keeps and self._knock():
                self.put(f"tcp/{self._config.protocol}/{_UNSAFE.sub('_', heard.name[:NAME_MAX])}", frame)
            caller.say(caller.talk.answer(heard, outcome, self._clock.now()))
            if outcome is Outcome.CHECK_FAILED:
                stream.bad(frame)
                return True
            caller.refused += 1
            return outcome is not Outcome.PASSWORD and caller.refused < self._config.refused_max
        caller.devices.add(device)
        if outcome is not Outcome.CHECK_FAILED:
            stream.good()
        if outcome is Outcome.ALIVE:
            self._count(outcome)
            caller.say(caller.talk.answer(heard, outcome, self._clock.now()))
            return True
        await caller.fewer(self._config.inflight_max)
        if self.full:
            metrics.LIMIT_HITS.labels("depth_messages_max").inc()
            await self.room()
        caller.owed += 1
        committed = self.put(f"tcp/{self._config.protocol}/{device}", frame, device)
        committed.add_done_callback(partial(self._settle, heard, outcome, caller))
        return True

    def _settle(self, heard: Heard, outcome: Outcome, caller: _Caller, committed: asyncio.Future[None]) -> None:
        caller.paid()
        self._count(outcome)
        if not committed.cancelled():
            caller.say(caller.talk.answer(heard, outcome, self._clock.now()))

    def _judge(self, heard: Heard, address: str) -> tuple[Outcome, str]:
        """Return what is to become of a frame, and the id of its device where it is taken."""
        index = self._devices.find(heard.name) if 0 < len(heard.name) <= NAME_MAX else -1
        is_known = index >= 0 and bool(self._devices.enabled[index])
        is_proved = heard.password is None or not self._passwords or self._passwords.match(heard.name, heard.password)
        if not heard.right:  # what it says of its sender may be what is wrong with it
            return Outcome.CHECK_FAILED, self._devices.id(index) if is_known and is_proved else ""
        shown = heard.name[:NAME_MAX] or "(no name)"
        if not is_known:
            why = "no such device is registered" if index < 0 else "the device is disabled"
            self._refused(shown, f"{why} ({self.name})", address)
            return Outcome.UNKNOWN, ""
        if self._centres and heard.centre and heard.centre not in self._centres:
            self._refused(shown, f"meant for centre {heard.centre} ({self.name})", address)
            return Outcome.CENTRE, ""
        if not is_proved:
            self._refused(shown, f"wrong password ({self.name})", address)
            return Outcome.PASSWORD, ""
        return (Outcome.COMMITTED if heard.keeps else Outcome.ALIVE), self._devices.id(index)

    def _knock(self) -> bool:
        """Return whether one more frame of an unknown device is kept in this minute."""
        minute, count = self._clock.now() // 60_000_000, self._knocks[1] + 1
        if minute != self._knocks[0]:
            count = 1
        self._knocks = (minute, count)
        return count <= self._config.unknown_per_minute and not self.full

    def _count(self, outcome: str) -> None:
        metrics.TCP_FRAMES.labels(self._config.protocol, str(outcome)).inc()


# ── who may connect ──────────────────────────────────────────────────────────────────────────────────

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(config: TcpConfig) -> tuple[Network, ...]:
    proof = config.allow or config.passwords_file or config.tls.ca_file
    if config.host not in _LOOPBACK and not proof:
        raise ConfigError(
            f"{config.host}:{config.port} lets anyone speak for any device",
            key="listen.tcp",
            remedy="give allow, passwords_file or tls.ca_file, or listen on 127.0.0.1",
        )
    try:
        return tuple(ipaddress.ip_network(text) for text in config.allow)
    except ValueError as why:
        raise ConfigError(str(why), key="listen.tcp.allow", remedy="an address, or a network like 10.1.0.0/16") from why


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in network for network in networks)


def _context(tls: TlsConfig) -> ssl.SSLContext | None:
    if not tls.cert_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file or None)
        if tls.ca_file:
            context.load_verify_locations(tls.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as why:
        remedy = "PEM files; see config/README.md"
        raise ConfigError(f"certificate cannot be used: {why}", key="listen.tcp.tls", remedy=remedy) from why
    return context


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    line = writer.get_extra_info("socket")
    if line is None:
        return
    with suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
