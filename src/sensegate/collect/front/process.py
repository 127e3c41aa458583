"""A whole front: its connections to engine and gateway, its listener. It has a process of its own, or the gateway's.

``python -m sensegate.collect.front.process`` reads its settings (`FrontSettings`) from standard input, of which the
gateway holds the other end: when that closes, the front stores what it has taken, acknowledges it, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import uvloop

from sensegate import logs
from sensegate.bus import trust
from sensegate.bus.connect import LinkEvents, Login, connect, engine_context
from sensegate.bus.kv import KvBucket
from sensegate.bus.malloc import limit_arenas
from sensegate.bus.server_conf import has_broker_tls
from sensegate.clock import Clock, SystemClock
from sensegate.collect.front.admission import AdmissionClient
from sensegate.collect.front.front import Front, FrontPeers
from sensegate.collect.front.messages import FrontSettings
from sensegate.collect.front.session_memory import BUCKET, SharedSessions
from sensegate.collect.front.sessions import SessionKey
from sensegate.collect.front.store import IntakeStore
from sensegate.collect.front.upstream import BrokerAddress
from sensegate.collect.intake.batch import new_instance
from sensegate.config import TlsConfig
from sensegate.errors import ConfigError, SensegateError

READY = b"ready\n"
SETTINGS_BYTES_MAX = 1024**2
TICKETS = 1
"""Session tickets after a handshake of TLS 1.3: a device has one connection, and each costs 7 % of the handshake."""
STOP_S = 5.0
"""Longest time to store accepted messages when the front ends."""

_log = structlog.get_logger("collect")


class ListenerCertificates:
    """The certificates of a front's listener, which can be replaced while it runs."""

    def __init__(self, config: TlsConfig) -> None:
        """Load the certificates. Raises `ConfigError`."""
        self._config = config
        self.context: ssl.SSLContext | None = None
        """None: the listener uses no TLS."""
        if config.cert_file:
            self.context = trust.server_context(
                "engine.tls", cert_file=config.cert_file, key_file=config.key_file, ca_file=config.ca_file
            )
            self.context.num_tickets = TICKETS

    def reload(self) -> None:
        """Load the files again; connections stay. Raises `ConfigError`: the previous certificates stay in use."""
        context, config = self.context, self._config
        if context is None:
            return
        trust.check(config.cert_file, config.key_file)
        context.load_cert_chain(config.cert_file, config.key_file or None)
        if config.ca_file:
            context.load_verify_locations(config.ca_file)


async def serve(
    settings: FrontSettings,
    clock: Clock,
    *,
    ready: Callable[[], None],
    stop: asyncio.Event,
    certificates: ListenerCertificates | None = None,
) -> None:
    """Run a front until `stop` is set; then store what it has taken, and close its connections.

    Args:
        settings: the settings.
        clock: the clock.
        ready: called once it listens.
        stop: ends it.
        certificates: of the listener; None: they are loaded.

    Raises:
        Unavailable, PermissionDenied: the engine cannot be reached.
        ConfigError: the certificates are unusable.
    """
    listener = certificates or ListenerCertificates(settings.engine.tls)
    checks: list[Callable[[], None]] = []
    losses: list[Callable[[], None]] = []

    def disconnected() -> None:
        for report_loss in losses:
            report_loss()

    def check() -> None:
        for run_check in checks:
            run_check()

    def forget(key: SessionKey) -> None:
        front.sessions.forget(key)

    link = await connect(
        list(settings.urls),
        Login(settings.user, settings.password, settings.inbox_prefix),
        name=settings.name,
        tls=engine_context(settings.engine),
        events=LinkEvents(on_reconnect=check, on_disconnect=disconnected),
    )
    link.replicas = settings.engine.replicas
    try:
        instance = new_instance()
        admission = AdmissionClient(link, settings.name, clock)
        store = IntakeStore(link, instance)
        broker_tls = engine_context(settings.engine) if has_broker_tls(settings.engine) else None
        broker = BrokerAddress(settings.broker_host, settings.broker_port, settings.facts_key, broker_tls)
        sessions = SharedSessions(
            await KvBucket.open(link, BUCKET, bytes_max=settings.sessions_bytes_max),
            instance.hex(),
            clock,
            forget,
        )
        await sessions.open()
        front = Front(
            store,
            instance,
            admission,
            admission,
            clock=clock,
            limits=settings.limits,
            beside=FrontPeers(
                broker if settings.broker_port else None, sessions, neighbours=admission, services=admission
            ),
        )
        await store.open(front.writer)
        await admission.open(front)
        losses += [front.writer.disconnected, front.sessions.forget_messages]
        checks.append(admission.check)
        running = asyncio.gather(front.run(), admission.run(), sessions.run())
        try:
            await front.listen(settings.host, settings.port, listener.context)
            ready()
            stopping = asyncio.create_task(stop.wait())
            watched: set[asyncio.Future[Any]] = {running, stopping}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if running.done():
                running.result()
        finally:
            await front.close(STOP_S)
            await admission.report()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    finally:
        await link.close()


async def _run(settings: FrontSettings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    certificates = ListenerCertificates(settings.engine.tls)

    def reload() -> None:
        try:
            certificates.reload()
        except ConfigError as why:
            _log.warning("certificates not reloaded; keeping the previous ones", reason=str(why))

    def stop_at_end() -> None:
        if not os.read(sys.stdin.fileno(), 4_096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    def ready() -> None:
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        gc.collect()
        gc.freeze()

    loop.add_reader(sys.stdin.fileno(), stop_at_end)
    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the gateway ends its fronts
    await serve(settings, SystemClock(), ready=ready, stop=stop, certificates=certificates)


def _read_settings() -> FrontSettings:
    descriptor = sys.stdin.fileno()
    length = int.from_bytes(os.read(descriptor, 4), "little")
    if not 0 < length <= SETTINGS_BYTES_MAX:
        raise ConfigError("a front is started by its gateway", remedy="run `sensegate run`")
    body = b""
    while len(body) < length:
        chunk = os.read(descriptor, length - len(body))
        if not chunk:
            raise ConfigError("the settings of the front ended early", remedy="run `sensegate run`")
        body += chunk
    return msgspec.msgpack.decode(body, type=FrontSettings)


def main() -> None:
    """Run a front in this process."""
    settings = _read_settings()
    logs.configure(settings.log_level, settings.log_format)
    limit_arenas()
    try:
        uvloop.run(_run(settings))
    except SensegateError as why:
        _log.error("front ended", reason=str(why))
        raise SystemExit(1) from why


if __name__ == "__main__":
    main()
