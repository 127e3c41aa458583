"""The engine: an embedded nats-server that outlives its gateway, or an external one by URL.

What `start` does:

- an external server by URL: see that it answers, is new enough and takes our users;
- else lock the directory (one gateway) and read ``engine.json`` (ports, passwords, issuer's key; made once);
- a server left behind by a killed gateway, with the same configuration and version: adopt it, devices stay connected;
- a server left behind with another configuration: end it in order;
- start one, wait until it answers, watch it, and start it again after a growing pause whenever it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus import connect, disk, external, process, streams, trust
from sensegate.bus.connect import Link
from sensegate.bus.connections import Connection, Connections
from sensegate.bus.inventory import AccountStreams, Inventory
from sensegate.bus.ports import bracketed, free_port, is_free
from sensegate.bus.sealing import Sealing, sealing
from sensegate.bus.server_conf import Kept, User, issuer_of, render
from sensegate.bus.server_log import ServerLog, Violation
from sensegate.bus.slots import CONNECTIONS_MAX, centre_password, centre_user, inbox_prefix
from sensegate.bus.store_watch import StoreWatch
from sensegate.clock import Clock, SystemClock
from sensegate.config import Config, EngineConfig, StoreConfig
from sensegate.errors import ConfigError, EngineError, PermissionDenied, StreamLost, Unavailable

__all__ = ["Connection", "Credential", "Engine", "EngineInfo", "User", "Violation"]

_log = structlog.get_logger("engine")

_READY_S = 120.0
"""A store of tens of GB is recovered before the server listens."""
_ADOPT_S = 10.0
_STEADY_S = 1.0
"""A server that lived so long after it was ready is started again at once; the pause grows for one that keeps dying."""
_HEAL_MAX_S = 60.0
STORING = (User.GATEWAY, User.INTAKE, User.FEEDS)
"""Our users in the accounts that have a store."""
_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))


class EngineInfo(msgspec.Struct, frozen=True):
    """What is known of the running server."""

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


class Credential(msgspec.Struct, frozen=True):
    """How one of our users connects."""

    user: str
    password: str
    account: str
    inbox_prefix: str


def _near(host: str) -> str:
    """Return the address at which we ourselves reach a listener on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound


class Engine:
    """The server of one node or centre. `start` before anything else, `stop` last."""

    def __init__(
        self,
        config: EngineConfig,
        store: StoreConfig,
        directory: Path,
        *,
        name: str,
        nodes: Mapping[str, str] | None = None,
        slots: Sequence[str] = (),
        slot_connections: int = CONNECTIONS_MAX,
        clock: Clock | None = None,
        personal: bool = False,
    ) -> None:
        """Prepare the engine; `start` starts it.

        Args:
            config: of the server.
            store: sizes of its streams.
            directory: of the gateway.
            name: of the gateway, part of the server's name.
            nodes: secret of each configured node and of the other centre, by slot.
            slots: accounts in which nodes are placed when they join.
            slot_connections: most connections in a slot.
            clock: the time.
            personal: devices may send data of persons, so the store is encrypted unless the configuration says no.
        """
        self._config = config
        self._store = store
        self._directory = directory.resolve() / "engine"
        self._name = f"sensegate-{name}"
        self._nodes = dict(nodes or {})
        self._slots = tuple(slots)
        self._slot_connections = slot_connections
        self._clock = clock or SystemClock()
        self._personal = personal
        self._sealing = Sealing()
        self.inventory = Inventory.of(config, self._directory)
        """The streams that are known to exist."""
        self._kept: Kept | None = None
        self._info: EngineInfo | None = None
        self._lock = -1
        self._process: process.ServerProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._fault = asyncio.Event()
        self._context: ssl.SSLContext | None = None
        """Of all our own connections: what is renewed in it holds for their next handshake."""
        self._room: tuple[float, bool] = (-1.0, True)
        self._peers = Connections(lambda: self.connect(User.SYSTEM))
        self._log_file = ServerLog(self._directory, self._peers.note, self._on_fault)
        self._store_watch = StoreWatch(
            self._clock,
            self._peers.ask,
            {user.account: partial(self.connect, user, name="probe") for user in STORING},
            self.has_room,
            self._on_fault,
        )
        self.restarted = asyncio.Event()
        """Set whenever the server was started again after it had ended; clear it before you wait."""

    @classmethod
    def of(cls, config: Config, clock: Clock | None = None, *, slots: Sequence[str], personal: bool = False) -> Engine:
        """Return the engine of a node or centre; `slots`: those of a centre's nodes, see `authority.slots`."""
        directory = Path(config.directory)
        return cls(
            config.engine,
            config.store,
            directory,
            name=config.division,
            nodes=external.secrets_of(config),
            slots=slots,
            slot_connections=config.node_quota.connections,
            clock=clock,
            personal=personal,
        )

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> EngineInfo:
        """Return once the server answers.

        Raises:
            EngineError: it cannot be started, is too old, its store was made otherwise, or another gateway has the
                directory.
            ConfigError: it would listen beyond loopback without TLS, or the store's key cannot be read.
            StreamLost: a stream that existed cannot be read by the server; it was not started.
        """
        if self._config.url:
            self.inventory.load()
            return await self._reach()
        for key, host in (("engine.host", self._config.host), ("engine.mqtt_host", self._config.mqtt_host)):
            if host not in _LOOPBACK and not self._config.tls.cert_file:
                raise ConfigError(
                    f"{host} without TLS",
                    key=key,
                    remedy="give engine.tls.cert_file and key_file, or listen on loopback",
                )
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        version = process.binary_version(process.binary())
        process.check_version(version)
        self._lock = process.lock(self._directory / "gateway.lock", "another gateway uses this directory")
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            self._sealing = sealing(self._config, self._directory, personal=self._personal)
            self.inventory.load()
            self._log_file.open()
            self._info = await self._adopt(version) or await self._launch()
            undo.pop_all()
        self._tasks = [
            asyncio.create_task(self._log_file.follow(self._clock), name="engine log"),
            asyncio.create_task(self._watch(), name="engine watch"),
            asyncio.create_task(self._heal(), name="engine heal"),
            asyncio.create_task(self._store_watch.run(), name="engine store"),
        ]
        return self._info

    async def watched(self) -> None:
        """Return never; raise what ended the watch over the server.

        Raises:
            StreamLost: the server ended, and a stream that existed was missing before or after it started again.
        """
        if not self._tasks:  # an external server is watched by who runs it
            await asyncio.Event().wait()
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                task.result()
        raise EngineError("the watch over nats-server has ended; please report this bug")

    def troubles(self) -> list[str]:
        """Return why the store takes no writes; empty when it does."""
        why = self._store_watch.trouble
        return [f"engine: the store takes no writes: {why}; the server is started again if it stays so"] if why else []

    async def stop(self) -> None:
        """End the server in order and leave nothing behind. An external server is left alone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._peers.close()
        if self._process is not None:
            await self._process.end()
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
        """The server as it runs now."""
        if self._info is None:
            raise EngineError("the engine is not started")
        return self._info

    @property
    def sealed(self) -> bool:
        """Whether what the server stores is encrypted; of an external one as its configuration here says."""
        if self._config.url:
            return self._config.encryption in {"on", "convert"}
        return bool(self._sealing.cipher)

    def has_room(self) -> bool:
        """Say whether the disk of the store has its reserve free, and inodes.

        Looks at most once a second; an external one has.

        A disk that fills up tears a batch (measured), so the log stops writing before: hand this to `JetStreamLog`.
        """
        if self._config.url:
            return True
        now = self._clock.monotonic()
        if now - self._room[0] >= 1.0 or self._room[0] < 0:
            room = disk.has_room(self._directory, self._store.disk_reserve_bytes)
            if room != self._room[1]:
                _log.warning(
                    "the disk has room again" if room else "the disk is nearly full: commits stop until it has room"
                )
            self._room = (now, room)
        return self._room[1]

    # ── users ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def issuer_seed(self) -> bytes:
        """Seed of the account key with which the callout signs its answers."""
        return self._keep().issuer_seed.encode()

    @property
    def issuer(self) -> str:
        """Public key of the issuer."""
        return issuer_of(self._keep())

    def credential(self, user: User) -> Credential:
        """Return how one of our own users connects."""
        return Credential(user, self._keep().passwords[user], user.account, inbox_prefix(user))

    async def connect(
        self,
        user: User,
        *,
        name: str = "",
        on_slow: Callable[[], None] | None = None,
        on_reconnect: Callable[[], None] | None = None,
        on_disconnect: Callable[[], None] | None = None,
        raw_subjects: bool = False,
    ) -> connect.Link:
        """Return a connection of one of our users; see `connect.connect`."""
        own = self.credential(user)
        tls = self._trusted()
        link = await connect.connect(
            list(self.info.urls),
            own.user,
            own.password,
            inbox_prefix=own.inbox_prefix,
            name=name or f"sensegate {user}",
            on_slow=on_slow,
            on_reconnect=on_reconnect,
            on_disconnect=on_disconnect,
            raw_subjects=raw_subjects,
            tls=tls,
        )
        link.streams = AccountStreams(self.inventory, user.account)
        return link

    async def connect_slot(
        self,
        slot: str,
        *,
        on_reconnect: Callable[[], None] | None = None,
        on_disconnect: Callable[[], None] | None = None,
    ) -> Link:
        """Return a connection of the centre's own user in a slot. Raises as `connect.connect`."""
        return await connect.connect(
            list(self.info.urls),
            centre_user(slot),
            centre_password(self._keep().slot_seed, slot),
            inbox_prefix=inbox_prefix(slot),
            name=f"sensegate slot {slot}",
            on_reconnect=on_reconnect,
            on_disconnect=on_disconnect,
            tls=self._trusted(),
            answering=True,
        )

    def _trusted(self) -> ssl.SSLContext | None:
        """Return what our own connections check and show; None: no TLS."""
        config = self._config
        if self._context is not None:
            return self._context
        if config.url:
            if "tls://" not in config.url:
                return None
            self._context = trust.context(
                "engine", ca_file=config.ca_file, cert_file=config.tls.cert_file, key_file=config.tls.key_file
            )
        elif config.tls.cert_file:
            self._context = connect.trust(config.tls.cert_file)
            if config.link_ca_file:
                self._context.load_cert_chain(config.tls.cert_file, config.tls.key_file or None)
        return self._context

    def renew(self) -> None:
        """Have the server show the certificates as they are in their files now; devices connect again.

        Our own connections trust the new one beside the old. An external server is renewed by who runs it.

        Raises:
            ConfigError: they cannot be used; the old ones stay.
        """
        config = self._config
        if config.url or self._context is None:
            return
        trust.check(config.tls.cert_file, config.tls.key_file)
        self._context.load_verify_locations(config.tls.cert_file)
        if config.link_ca_file:
            self._context.load_cert_chain(config.tls.cert_file, config.tls.key_file or None)
        trust.gather(config, self._directory)
        if self._process is not None:
            self._process.renew()

    # ── connections ──────────────────────────────────────────────────────────────────────────────────

    async def connections(self, account: str, **selection: Any) -> list[Connection]:
        """Return the open connections of an account; `selection` as of the server (`mqtt_client`, `cid`)."""
        return await self._peers.present(account, **selection)

    async def connection_counts(self, accounts: Sequence[str]) -> dict[str, int]:
        """Return how many connections are open in each of some accounts: one question, however many they are."""
        return await self._peers.counts(accounts)

    async def kick(self, account: str, client_id: str = "", *, user: str = "") -> int:
        """Close the connections of an account with this MQTT client id, or of this user; return how many."""
        return await self._peers.kick(account, client_id, user)

    async def close_connection(self, cid: int) -> None:
        """Close one connection by the server's number."""
        await self._peers.close_one(cid)

    async def violations(self) -> list[Violation]:
        """Wait for refused publishes and subscriptions; return those seen since the last call.

        Bounded: beyond 10,000 not asked for, the oldest are dropped and counted. An external server tells none.
        """
        return await self._peers.violations()

    # ── the embedded server ──────────────────────────────────────────────────────────────────────────

    def _keep(self) -> Kept:
        """Return what is kept in ``engine.json``; make it the first time."""
        if self._kept is not None:
            return self._kept
        path = Path(self._config.credentials_file) if self._config.url else self._directory / "engine.json"
        try:
            self._kept = msgspec.json.decode(path.read_bytes(), type=Kept)
        except FileNotFoundError as why:
            if self._config.url:
                raise EngineError(f"{path}: the users of the external server are not there") from why
            self._kept = external.fresh()
        except (OSError, msgspec.DecodeError) as why:
            raise EngineError(f"{path} cannot be read: {why}; restore it, the server's users stand in it") from why
        return self._kept

    def _conf(self, kept: Kept) -> tuple[Path, str]:
        text = render(
            self._config,
            self._store,
            kept,
            self._directory,
            name=self._name,
            nodes=self._nodes,
            slots=self._slots,
            slot_connections=self._slot_connections,
            sealed=bool(self._sealing.cipher),
        )
        return self._directory / f"nats-{hashlib.sha256(text.encode()).hexdigest()[:16]}.conf", text

    async def _adopt(self, version: str) -> EngineInfo | None:
        found = process.find(self._directory)
        if found is None:
            return None
        kept = self._fixed(self._keep())
        conf, _ = self._conf(kept)
        try:
            if found.conf == conf:
                greeting = await process.greeting(_near(self._config.host), kept.port, _ADOPT_S)
                if greeting.server_name == self._name and greeting.version == version:
                    self._kept = kept
                    self._process = found
                    _log.info("adopted the server of a gateway that was killed", pid=found.pid)
                    return self._described(greeting, found.pid, adopted=True)
            _log.info("the configuration or version has changed: the server is started again", pid=found.pid)
        except (OSError, EOFError, TimeoutError, EngineError) as why:
            _log.warning("the server left behind does not answer: it is started again", pid=found.pid, error=str(why))
        await found.end()
        found.release()
        return None

    def _fixed(self, kept: Kept) -> Kept:
        """Return `kept` with the ports that the configuration fixes."""
        return msgspec.structs.replace(
            kept, port=self._config.port or kept.port, mqtt_port=self._config.mqtt_port or kept.mqtt_port
        )

    async def _launch(self) -> EngineInfo:
        kept = self._fixed(self._keep())
        # A port that we chose is kept, so that clients and devices find us again; it is chosen anew only when taken.
        if not self._config.port and not (kept.port and is_free(kept.port, self._config.host)):
            kept = msgspec.structs.replace(kept, port=free_port(self._config.host))
        if not self._config.mqtt_port and not (kept.mqtt_port and is_free(kept.mqtt_port, self._config.mqtt_host)):
            kept = msgspec.structs.replace(kept, mqtt_port=free_port(self._config.mqtt_host))
        process.write_private(self._directory / "engine.json", msgspec.json.encode(kept).decode())
        self._kept = kept
        conf, text = self._conf(kept)
        trust.gather(self._config, self._directory)
        process.write_private(conf, text)
        for old in self._directory.glob("nats-*.conf"):
            if old != conf:
                old.unlink()
        return await self._run(conf)

    async def _run(self, conf: Path) -> EngineInfo:
        """Start the server and wait until both listeners answer."""
        kept = self._keep()
        await asyncio.to_thread(self.inventory.check)
        (self._directory / "nats.out").unlink(missing_ok=True)
        self._process = started = process.spawn(conf, self._directory, self._sealing.environment)
        deadline = self._clock.monotonic() + _READY_S
        while True:
            if not started.alive:
                self._log_file.close()
                told = self._log_file.last_errors[-3:] or [process.tail(self._directory / "nats.out")]
                raise EngineError(f"nats-server ended at once: {' | '.join(told)}")
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                greeting = await process.greeting(_near(self._config.host), kept.port)
                if greeting.server_name != self._name:
                    raise EngineError(f"port {kept.port} is taken by another nats-server, {greeting.server_name}")
                _, writer = await asyncio.open_connection(_near(self._config.mqtt_host), kept.mqtt_port)
                writer.close()
                return self._described(greeting, started.pid, adopted=False)
            if self._clock.monotonic() > deadline:
                raise EngineError(f"nats-server (pid {started.pid}) does not listen after {_READY_S:.0f} s")
            await self._clock.sleep(0.01)

    def _described(self, greeting: process.Greeting, pid: int, *, adopted: bool) -> EngineInfo:
        kept = self._keep()
        scheme = "tls" if self._config.tls.cert_file else "nats"
        return EngineInfo(
            urls=(f"{scheme}://{bracketed(_near(self._config.host))}:{kept.port}",),
            host=_near(self._config.host),
            port=kept.port,
            mqtt_host=_near(self._config.mqtt_host),
            mqtt_port=kept.mqtt_port,
            pid=pid,
            server_id=greeting.server_id,
            version=greeting.version,
            max_payload=greeting.max_payload,
            adopted=adopted,
        )

    async def _watch(self) -> None:
        """Start the server again whenever it ends, on the same ports and store."""
        pause_s = 0.1
        while True:
            assert self._process is not None  # noqa: S101 - set before this task starts
            began = self._clock.monotonic()
            await self._process.ended()
            self._process.release()
            if self._clock.monotonic() - began > _STEADY_S:
                pause_s = 0.1
            _log.error("the server ended; it is started again", pid=self._process.pid, pause_s=pause_s)
            metrics.RESTARTS.labels("engine").inc()
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, self._config.restart_backoff_max_s)
            try:
                self._info = await self._run(self._conf(self._keep())[0])
                await self._compare()
            except StreamLost:
                raise  # `watched` tells it; the server is not started again
            except (EngineError, ConfigError, OSError) as why:
                # A full disk, no more descriptors, a certificate that is being replaced: it may be so for a while only.
                _log.error("the server cannot be started; tried again", error=str(why))
                continue
            self._peers.forget()
            self._store_watch.forget()
            self.restarted.set()

    async def _compare(self) -> None:
        """See that the server, started again, has each known stream.

        Raises:
            StreamLost: it has not, though its files are whole.
        """
        for user in STORING:
            names = [known.name for known in self.inventory.streams if known.account == user.account]
            if not names:
                continue
            try:
                link = await self.connect(user, name="inventory")
                try:
                    for name in names:
                        await streams.compare(link, name)
                finally:
                    await link.close()
            except (Unavailable, PermissionDenied) as why:
                _log.warning("the streams cannot be compared with those that existed", reason=str(why))

    def _on_fault(self, why: str) -> None:
        if not self._fault.is_set():
            _log.error("the store takes no writes; the server is started again when the disk has room", reason=why)
        self._fault.set()

    async def _heal(self) -> None:
        """Start the server again after an error of the disk: until then it refuses every write without an answer."""
        pause_s, healed = 1.0, self._clock.monotonic()
        while True:
            await self._fault.wait()
            if self._clock.monotonic() - healed > 2 * _HEAL_MAX_S:
                pause_s = 1.0
            await self._clock.sleep(pause_s)
            while not self.has_room():
                await self._clock.sleep(1.0)
            self._fault.clear()
            if self._process is not None and self._process.alive:
                _log.warning("the server is started again after an error of its disk", pid=self._process.pid)
                metrics.RESTARTS.labels("engine store").inc()
                await self._process.end()
            pause_s, healed = min(pause_s * 2, _HEAL_MAX_S), self._clock.monotonic()

    # ── an external server ───────────────────────────────────────────────────────────────────────────

    async def _reach(self) -> EngineInfo:
        urls = tuple(part.strip() for part in self._config.url.split(","))
        host, port, greeting = await self._first_of(urls)
        process.check_version(greeting.version)
        if not greeting.jetstream:
            raise EngineError(f"JetStream is off at {host}:{port}; switch it on, the log lives in it")
        self._info = EngineInfo(
            urls=urls,
            host=host,
            port=port,
            mqtt_host=self._config.mqtt_host,
            mqtt_port=self._config.mqtt_port,
            pid=0,
            server_id=greeting.server_id,
            version=greeting.version,
            max_payload=greeting.max_payload,
        )
        try:
            await (await self.connect(User.GATEWAY)).close()
        except (Unavailable, PermissionDenied) as why:
            raise EngineError(f"the external server does not take our users: {why}") from why
        return self._info

    @staticmethod
    async def _first_of(urls: Sequence[str]) -> tuple[str, int, process.Greeting]:
        """Return host, port and greeting of the first server of a cluster that answers."""
        silent = []
        for url in urls:
            place = urlsplit(url)
            host, port = place.hostname or "", place.port or 4222
            try:
                return host, port, await process.greeting(host, port, 10.0)
            except (OSError, EOFError, TimeoutError) as why:
                silent.append(f"no nats-server at {host}:{port}: {why or type(why).__name__}")
        raise EngineError("; ".join(silent))
