"""The engine: an embedded nats-server that outlives its gateway, or an external one by URL.

What `start` does:

- an external server by URL: check that it responds, is recent enough and accepts our users;
- otherwise lock the directory (one gateway) and read ``engine.json`` (ports, passwords, issuer key; generated once);
- adopt a server that a killed gateway left running with the same configuration and version: devices stay connected;
- terminate a server left running with another configuration;
- start a server, wait until it responds, watch it, and restart it with exponential back-off whenever it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus import connect, disk, external, process, streams, trust
from sensegate.bus.cluster_watch import ClusterMonitor
from sensegate.bus.connect import BusClient
from sensegate.bus.connections import Connection, ServerConnections
from sensegate.bus.encryption import StoreEncryption, open_encryption
from sensegate.bus.files import write_private
from sensegate.bus.free_ports import free_port, is_free, url_host
from sensegate.bus.inventory import AccountStreams, Inventory
from sensegate.bus.server_conf import LOOPBACK, NO_SLOTS, EngineState, NodeSlots, ServerPlace, User, issuer_of, render
from sensegate.bus.server_log import ServerLog, Violation
from sensegate.bus.slots import centre_password, centre_user, inbox_prefix
from sensegate.bus.store_watch import StoreMonitor
from sensegate.clock import Clock, SystemClock
from sensegate.config import Config, EngineConfig, StoreConfig
from sensegate.errors import ConfigError, EngineError, PermissionDenied, StreamLost, Unavailable

__all__ = ["Connection", "Credential", "Engine", "EngineInfo", "User", "Violation"]

_log = structlog.get_logger("engine")

_READY_S = 120.0
"""Time for the server to start listening at the start of the gateway; it recovers a store of tens of GB first."""
_RECOVERY_MAX_S = 3600.0
"""The same for a restart, after which nobody could repeat the start: a server that needs longer is hung."""
_ADOPT_S = 10.0
_STABLE_S = 1.0
"""A server that ran for longer than this is restarted at once; otherwise the pause before a restart doubles."""
_FAULT_RESTART_MAX_S = 60.0
_VERIFY_PAUSE_S = 0.5
"""Time between two attempts to compare the streams of a restarted server with the inventory."""
_PORT_TRIES = 5
"""Starts with chosen ports, of which another process may take one before the server listens."""
_PORT_TAKEN = "address already in use"
STORE_USERS = (User.GATEWAY, User.INTAKE, User.FEEDS)
"""Users of the accounts that store streams."""


class EngineInfo(msgspec.Struct, frozen=True):
    """Addresses and properties of the running server."""

    urls: tuple[str, ...]
    host: str
    port: int
    mqtt_host: str
    mqtt_port: int
    pid: int
    """0 for an external server."""
    server_id: str
    version: str
    max_payload: int
    adopted: bool = False


class _PortTaken(EngineError):
    """Another process listens on a port of the server."""


class Credential(msgspec.Struct, frozen=True):
    """Credentials of one of the gateway's own users."""

    user: str
    password: str
    account: str
    inbox_prefix: str


def _client_host(host: str) -> str:
    """Return the address by which a local client reaches a listener on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound


class Engine:
    """The server of a node or centre. Call `start` before anything else, and `stop` last."""

    def __init__(
        self,
        config: EngineConfig,
        store: StoreConfig,
        directory: Path,
        *,
        name: str,
        slots: NodeSlots = NO_SLOTS,
        clock: Clock | None = None,
        personal: bool = False,
    ) -> None:
        """Prepare the engine; `start` starts it.

        Args:
            config: settings of the server.
            store: sizes of the streams.
            directory: directory of the gateway.
            name: name of the gateway, part of the server's name.
            slots: accounts of the nodes.
            clock: the time.
            personal: messages may contain personal data: the store is encrypted unless the configuration says `off`.
        """
        self._config = config
        self._store = store
        self._directory = directory.resolve() / "engine"
        self._name = f"sensegate-{name}"
        self._slots = slots
        self._clock = clock or SystemClock()
        self._personal = personal
        self._encryption = StoreEncryption()
        self.inventory = Inventory.of(config, self._directory)
        """Record of the streams that exist."""
        self._state: EngineState | None = None
        self._info: EngineInfo | None = None
        self._lock = -1
        self._process: process.ServerProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._fault = asyncio.Event()
        self._is_starting = False
        """True from the end of the server until the next one listens: it is silent because it recovers its store."""
        self._is_unverified = False
        """True from the end of the server until the next one has shown that it has each known stream."""
        self._context: ssl.SSLContext | None = None
        """TLS context of all own connections; certificates loaded into it apply from the next handshake on."""
        self._room: tuple[float, bool] = (-1.0, True)
        self._server_connections = ServerConnections(lambda: self.connect(User.SYSTEM))
        self._log_file = ServerLog(self._directory, self._server_connections.record_violation, self._on_fault)
        self._store_monitor = StoreMonitor(
            self._clock,
            self._server_connections.request,
            {user.account: partial(self.connect, user, name="probe") for user in STORE_USERS},
            self.has_room,
            self._on_stuck,
        )
        self._cluster_monitor = ClusterMonitor(
            self._clock, self._urls, partial(self.connect, User.GATEWAY, name="cluster probe")
        )
        self.restarted = asyncio.Event()
        """Set after each restart of the server, once its streams are verified; clear it before waiting."""

    @property
    def _urls(self) -> tuple[str, ...]:
        """Addresses of the external servers."""
        return tuple(part.strip() for part in self._config.url.split(",") if part.strip())

    @classmethod
    def of(cls, config: Config, clock: Clock | None = None, *, slots: Sequence[str], personal: bool = False) -> Engine:
        """Return the engine of a configuration; `slots`: those for the nodes of a centre (`authority.slots`)."""
        directory = Path(config.directory)
        return cls(
            config.engine,
            config.store,
            directory,
            name=config.division,
            slots=NodeSlots(external.slot_secrets(config), tuple(slots), config.node_quota.connections),
            clock=clock,
            personal=personal,
        )

    # ── start and stop ─────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> EngineInfo:
        """Start, adopt or reach the server; return once it responds.

        Raises:
            EngineError: the server does not start or is too old, its store was created with other settings, or another
                gateway uses the directory.
            ConfigError: it would listen beyond loopback without TLS, or the key of the store cannot be read.
            StreamLost: a known stream is unreadable; the server was not started.
        """
        if self._config.url:
            self.inventory.load()
            info = await self._connect_external()
            if self._config.replicas > 1:
                self._tasks = [asyncio.create_task(self._cluster_monitor.run(), name="engine cluster")]
            return info
        for key, host in (("engine.host", self._config.host), ("engine.mqtt_host", self._config.mqtt_host)):
            if host not in LOOPBACK and not self._config.tls.cert_file:
                raise ConfigError(
                    f"{host} without TLS",
                    key=key,
                    remedy="set engine.tls.cert_file and key_file, or listen on loopback",
                )
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        version = process.binary_version(process.binary())
        process.check_version(version)
        self._lock = process.lock(self._directory / "gateway.lock", "another gateway uses this directory")
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            self._encryption = open_encryption(self._config, self._directory, personal=self._personal)
            self.inventory.load()
            self._log_file.open()
            self._info = await self._adopt(version) or await self._launch()
            undo.pop_all()
        self._tasks = [
            asyncio.create_task(self._log_file.follow(self._clock), name="engine log"),
            asyncio.create_task(self._restart_when_ended(), name="engine watch"),
            asyncio.create_task(self._restart_after_faults(), name="engine heal"),
            asyncio.create_task(self._store_monitor.run(), name="engine store"),
        ]
        return self._info

    async def wait_failed(self) -> None:
        """Wait until the supervision of the server fails; never return.

        Raises:
            StreamLost: the server ended, and a known stream was missing before or after its restart.
        """
        if not self._tasks:  # the operator of an external server supervises it
            await asyncio.Event().wait()
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                task.result()
        raise EngineError("the supervision of nats-server ended; please report this bug")

    def warnings(self) -> list[str]:
        """Return a sentence if the store accepts no writes, or was not verified since a restart; empty otherwise."""
        if self._cluster_monitor.problem:
            return [f"engine: {self._cluster_monitor.problem}"]
        if self._is_starting:
            return ["engine: the server is restarted; it recovers its store"]
        if self._is_unverified:
            return ["engine: the server was restarted; its streams are not compared with the inventory yet"]
        problem = self._store_monitor.problem
        if not problem:
            return []
        return [f"engine: the store accepts no writes: {problem}; the server is restarted if this lasts"]

    def notices(self) -> list[str]:
        """Return a sentence if a server or a copy of a cluster is missing; empty otherwise."""
        return [self._cluster_monitor.warning] if self._cluster_monitor.warning else []

    async def stop(self) -> None:
        """Terminate the server gracefully and release all resources. An external server keeps running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._server_connections.close()
        if self._process is not None:
            await self._process.terminate()
            self._process.release()
            self._process = None
        self._log_file.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def info(self) -> EngineInfo:
        """Addresses and properties of the server as it runs now."""
        if self._info is None:
            raise EngineError("the engine is not started")
        return self._info

    @property
    def is_encrypted(self) -> bool:
        """Return whether the store is encrypted; for an external server as the configuration says."""
        if self._config.url:
            return self._config.encryption in {"on", "convert"}
        return bool(self._encryption.cipher)

    def has_room(self) -> bool:
        """Return whether the disk of the store has its reserve and enough inodes free.

        The result is cached for a second; for an external server it is always True.

        A disk that fills up breaks the atomicity of a batch (measured), so the log stops writing before that: pass this
        method to `JetStreamLog`.
        """
        if self._config.url:
            return True
        now = self._clock.monotonic()
        if now - self._room[0] >= 1.0 or self._room[0] < 0:
            room = disk.has_room(self._directory, self._store.disk_reserve_bytes)
            if room != self._room[1]:
                _log.warning(
                    "disk space available again" if room else "disk nearly full; commits stop until space is available"
                )
            self._room = (now, room)
        return self._room[1]

    # ── users ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def issuer_seed(self) -> bytes:
        """Seed of the account key that signs responses of the auth callout."""
        return self._load_state().issuer_seed.encode()

    @property
    def issuer(self) -> str:
        """Public key of the auth callout's issuer."""
        return issuer_of(self._load_state())

    def credential(self, user: User) -> Credential:
        """Return the credentials of one of the gateway's own users."""
        return Credential(user, self._load_state().passwords[user], user.account, inbox_prefix(user))

    async def connect(
        self,
        user: User,
        *,
        name: str = "",
        on_slow: Callable[[], None] | None = None,
        on_reconnect: Callable[[], None] | None = None,
        on_disconnect: Callable[[], None] | None = None,
        raw_subjects: bool = False,
    ) -> connect.BusClient:
        """Return a client connected as one of the gateway's own users; see `connect.connect`."""
        own = self.credential(user)
        tls = self._client_tls()
        link = await connect.connect(
            list(self.info.urls),
            connect.Login(own.user, own.password, own.inbox_prefix),
            name=name or f"sensegate {user}",
            tls=tls,
            events=connect.LinkEvents(on_slow, on_reconnect, on_disconnect),
            link_options=connect.LinkOptions(raw_subjects=raw_subjects),
        )
        link.known_streams = AccountStreams(self.inventory, user.account)
        link.replicas = self._config.replicas
        return link

    async def connect_slot(
        self,
        slot: str,
        *,
        on_reconnect: Callable[[], None] | None = None,
        on_disconnect: Callable[[], None] | None = None,
    ) -> BusClient:
        """Return a client connected as the centre's own user of a slot. Raises as `connect.connect`."""
        return await connect.connect(
            list(self.info.urls),
            connect.Login(centre_user(slot), centre_password(self._load_state().slot_seed, slot), inbox_prefix(slot)),
            name=f"sensegate slot {slot}",
            tls=self._client_tls(),
            events=connect.LinkEvents(on_reconnect=on_reconnect, on_disconnect=on_disconnect),
            link_options=connect.LinkOptions(answering=True),
        )

    def _client_tls(self) -> ssl.SSLContext | None:
        """Return the TLS context of own connections; None: no TLS."""
        if self._context is None:
            self._context = connect.engine_context(self._config)
        return self._context

    def reload_certificates(self) -> None:
        """Have the server reload its certificate files; devices reconnect.

        Own connections trust the new certificate in addition to the old one. An external server is not touched.

        Raises:
            ConfigError: the files are unusable; the old certificates stay in use.
        """
        config = self._config
        if config.url or self._context is None:
            return
        trust.check(config.tls.cert_file, config.tls.key_file)
        self._context.load_verify_locations(config.tls.cert_file)
        if config.link_ca_file:
            self._context.load_cert_chain(config.tls.cert_file, config.tls.key_file or None)
        trust.write_link_authorities(config, self._directory)
        if self._process is not None:
            self._process.reload()

    # ── connections ──────────────────────────────────────────────────────────────────────────────────

    async def connections(self, account: str, **selection: Any) -> list[Connection]:
        """Return the open connections of an account; `selection` as of the server (`mqtt_client`, `cid`)."""
        return await self._server_connections.list_open(account, **selection)

    async def connection_counts(self, accounts: Sequence[str]) -> dict[str, int]:
        """Return the number of open connections per account, with one request."""
        return await self._server_connections.counts(accounts)

    async def kick(self, account: str, client_id: str = "", *, user: str = "") -> int:
        """Close the connections of an account with this MQTT client id, or of this user; return their number."""
        return await self._server_connections.kick(account, client_id, user)

    async def close_connection(self, cid: int) -> None:
        """Close a connection by its id (`cid`)."""
        await self._server_connections.close_connection(cid)

    async def violations(self) -> list[Violation]:
        """Wait for permission violations; return those since the last call.

        At most 10,000 are queued: then the oldest are dropped and counted. An external server reports none.
        """
        return await self._server_connections.violations()

    # ── the embedded server ──────────────────────────────────────────────────────────────────────────

    def _load_state(self) -> EngineState:
        """Return the content of ``engine.json``, generated the first time."""
        if self._state is not None:
            return self._state
        path = Path(self._config.credentials_file) if self._config.url else self._directory / "engine.json"
        try:
            self._state = msgspec.json.decode(path.read_bytes(), type=EngineState)
        except FileNotFoundError as why:
            if self._config.url:
                raise EngineError(f"{path}: the file of users of the external server is missing") from why
            self._state = external.generate_state()
        except (OSError, msgspec.DecodeError) as why:
            raise EngineError(f"{path} cannot be read: {why}; restore it, it holds the server's users") from why
        return self._state

    def _server_config(self, state: EngineState) -> tuple[Path, str]:
        text = render(
            self._config,
            self._store,
            state,
            ServerPlace(self._name, self._directory),
            slots=self._slots,
            encrypted=bool(self._encryption.cipher),
        )
        return self._directory / f"nats-{hashlib.sha256(text.encode()).hexdigest()[:16]}.conf", text

    async def _adopt(self, version: str) -> EngineInfo | None:
        running = process.find(self._directory)
        if running is None:
            return None
        state = self._with_configured_ports(self._load_state())
        conf, _ = self._server_config(state)
        try:
            if running.conf == conf:
                server = await process.read_server_info(_client_host(self._config.host), state.port, _ADOPT_S)
                if server.server_name == self._name and server.version == version:
                    self._state = state
                    self._process = running
                    _log.info("adopted the running server of a killed gateway", pid=running.pid)
                    return self._engine_info(server, running.pid, adopted=True)
            _log.info("configuration or version changed: restarting the server", pid=running.pid)
        except (OSError, EOFError, TimeoutError, EngineError) as why:
            _log.warning("the running server does not respond: restarting it", pid=running.pid, reason=str(why))
        await running.terminate()
        running.release()
        return None

    def _with_configured_ports(self, state: EngineState) -> EngineState:
        """Return the state with the ports that the configuration fixes."""
        return msgspec.structs.replace(
            state, port=self._config.port or state.port, mqtt_port=self._config.mqtt_port or state.mqtt_port
        )

    async def _launch(self) -> EngineInfo:
        for _ in range(_PORT_TRIES - 1):
            try:
                return await self._run(self._write_config())
            except _PortTaken as why:
                if self._config.port and self._config.mqtt_port:
                    raise
                _log.warning("the server starts again on another port", reason=str(why))
                if self._process is not None:
                    await self._process.terminate()
                    self._process.release()
                self._log_file.open()
        return await self._run(self._write_config())

    def _write_config(self) -> Path:
        """Write the configuration of the server, with free ports where none is configured; return its path."""
        state = self._with_configured_ports(self._load_state())
        # A chosen port is stored, so that clients and devices find it again; another is chosen only when it is taken.
        if not self._config.port and not (state.port and is_free(state.port, self._config.host)):
            state = msgspec.structs.replace(state, port=free_port(self._config.host))
        if not self._config.mqtt_port and not (state.mqtt_port and is_free(state.mqtt_port, self._config.mqtt_host)):
            state = msgspec.structs.replace(state, mqtt_port=free_port(self._config.mqtt_host))
        write_private(self._directory / "engine.json", msgspec.json.encode(state).decode())
        self._state = state
        conf, text = self._server_config(state)
        trust.write_link_authorities(self._config, self._directory)
        write_private(conf, text)
        for old in self._directory.glob("nats-*.conf"):
            if old != conf:
                old.unlink()
        return conf

    async def _run(self, conf: Path, *, limit_s: float = _READY_S) -> EngineInfo:
        """Start the server and wait until both listeners respond.

        Raises:
            EngineError: the server ended, or does not respond after `limit_s`; it may still run then.
            StreamLost: a known stream is unreadable; the server was not started.
        """
        state = self._load_state()
        await asyncio.to_thread(self.inventory.check)
        (self._directory / "nats.out").unlink(missing_ok=True)
        self._process = started = process.spawn(conf, self._directory, self._encryption.environment)
        began, reported_s = self._clock.monotonic(), _READY_S
        while True:
            if not started.is_alive:
                self._log_file.close()
                errors = self._log_file.last_errors[-3:] or [process.last_lines(self._directory / "nats.out")]
                error = _PortTaken if _PORT_TAKEN in "".join(errors) else EngineError
                raise error(f"nats-server ended at once: {' | '.join(errors)}")
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                server = await process.read_server_info(_client_host(self._config.host), state.port)
                if server.server_name != self._name:
                    raise _PortTaken(f"port {state.port} is taken by another nats-server, {server.server_name}")
                _, writer = await asyncio.open_connection(_client_host(self._config.mqtt_host), state.mqtt_port)
                writer.close()
                return self._engine_info(server, started.pid, adopted=False)
            waited_s = self._clock.monotonic() - began
            if waited_s > limit_s:
                raise EngineError(f"nats-server (pid {started.pid}) does not listen after {limit_s:.0f} s")
            if waited_s > reported_s:
                _log.warning("the server does not listen yet; waiting on", pid=started.pid, waited_s=round(waited_s))
                reported_s *= 2
            await self._clock.sleep(0.01)

    def _engine_info(self, server: process.NatsServerInfo, pid: int, *, adopted: bool) -> EngineInfo:
        state = self._load_state()
        scheme = "tls" if self._config.tls.cert_file else "nats"
        return EngineInfo(
            urls=(f"{scheme}://{url_host(_client_host(self._config.host))}:{state.port}",),
            host=_client_host(self._config.host),
            port=state.port,
            mqtt_host=_client_host(self._config.mqtt_host),
            mqtt_port=state.mqtt_port,
            pid=pid,
            server_id=server.server_id,
            version=server.version,
            max_payload=server.max_payload,
            adopted=adopted,
        )

    async def _restart_when_ended(self) -> None:
        """Restart the server whenever it ends, on the same ports and store."""
        pause_s = 0.1
        while (running := self._process) is not None:
            began = self._clock.monotonic()
            await running.wait_ended()
            running.release()
            self._is_starting = self._is_unverified = True
            if self._clock.monotonic() - began > _STABLE_S:
                pause_s = 0.1
            _log.error("the server ended; restarting it", pid=running.pid, pause_s=pause_s)
            metrics.RESTARTS.labels("engine").inc()
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, self._config.restart_backoff_max_s)
            try:
                self._info = await self._run(self._server_config(self._load_state())[0], limit_s=_RECOVERY_MAX_S)
                self._server_connections.reset()
                self._store_monitor.reset()
                self._is_starting = False
                await self._verify_streams()
            except StreamLost:
                raise  # `wait_failed` reports it; the server is not restarted
            except (EngineError, ConfigError, OSError) as why:
                # A full disk, no free descriptors, a certificate that is being replaced: possibly temporary.
                _log.error("the server does not start; retrying", reason=str(why))
                if self._process is not None:
                    await self._process.terminate()  # where it hangs: this loop waits for its end
                continue
            self._is_unverified = False
            self.restarted.set()

    async def _verify_streams(self) -> None:
        """Check that the restarted server has each known stream; try again while it does not respond.

        Raises:
            StreamLost: a stream is missing, although its files are intact.
            EngineError: the server ended meanwhile.
        """
        for user in STORE_USERS:
            names = [known.name for known in self.inventory.streams if known.account == user.account]
            if not names:
                continue
            while not await self._has_streams(user, names):
                if self._process is None or not self._process.is_alive:
                    raise EngineError("the server ended before its streams were compared with the inventory")
                await self._clock.sleep(_VERIFY_PAUSE_S)

    async def _has_streams(self, user: User, names: Sequence[str]) -> bool:
        """Return whether the server has shown that it has each stream; False: no response. Raises `StreamLost`."""
        try:
            link = await self.connect(user, name="inventory")
            try:
                for name in names:
                    await streams.verify(link, name)
            finally:
                await link.close()
        except StreamLost:
            raise
        except (Unavailable, PermissionDenied, EngineError) as why:
            _log.warning("streams not compared with the inventory; trying again", reason=str(why))
            return False
        return True

    def _on_stuck(self, reason: str) -> None:
        """Restart a server whose store does not respond, unless it is starting: its recovery would begin anew."""
        if not self._is_starting:
            self._on_fault(reason)

    def _on_fault(self, reason: str) -> None:
        if not self._fault.is_set():
            _log.error("the store accepts no writes; the server is restarted once the disk has space", reason=reason)
        self._fault.set()

    async def _restart_after_faults(self) -> None:
        """Restart the server after a disk error: until then it rejects every write without a response."""
        pause_s, healed = 1.0, self._clock.monotonic()
        while True:
            await self._fault.wait()
            if self._clock.monotonic() - healed > 2 * _FAULT_RESTART_MAX_S:
                pause_s = 1.0
            await self._clock.sleep(pause_s)
            while not self.has_room():
                await self._clock.sleep(1.0)
            self._fault.clear()
            if self._process is not None and self._process.is_alive:
                _log.warning("restarting the server after a disk error", pid=self._process.pid)
                metrics.RESTARTS.labels("engine store").inc()
                await self._process.terminate()
            pause_s, healed = min(pause_s * 2, _FAULT_RESTART_MAX_S), self._clock.monotonic()

    # ── an external server ───────────────────────────────────────────────────────────────────────────

    async def _connect_external(self) -> EngineInfo:
        urls = self._urls
        host, port, server = await self._first_reachable(urls)
        process.check_version(server.version)
        if not server.jetstream:
            raise EngineError(f"JetStream is disabled at {host}:{port}; enable it, the log is a stream")
        self._info = EngineInfo(
            urls=urls,
            host=host,
            port=port,
            mqtt_host=self._config.mqtt_host,
            mqtt_port=self._config.mqtt_port,
            pid=0,
            server_id=server.server_id,
            version=server.version,
            max_payload=server.max_payload,
        )
        try:
            await (await self.connect(User.GATEWAY)).close()
        except (Unavailable, PermissionDenied) as why:
            raise EngineError(f"the external server does not accept the gateway's users: {why}") from why
        return self._info

    @staticmethod
    async def _first_reachable(urls: Sequence[str]) -> tuple[str, int, process.NatsServerInfo]:
        """Return host, port and INFO of the first server of a cluster that responds."""
        failures = []
        for url in urls:
            parsed = urlsplit(url)
            host, port = parsed.hostname or "", parsed.port or 4222
            try:
                return host, port, await process.read_server_info(host, port, 10.0)
            except (OSError, EOFError, TimeoutError) as why:
                failures.append(f"no nats-server at {host}:{port}: {why or type(why).__name__}")
        raise EngineError("; ".join(failures))
