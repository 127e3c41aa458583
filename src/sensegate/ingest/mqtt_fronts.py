"""The gateway's side of its MQTT fronts: starts, watches and admits clients for them, and counts their events."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate import metrics
from sensegate.authority.callout import Callout
from sensegate.authority.devices import Devices
from sensegate.bus import api
from sensegate.bus.client_facts import key_of
from sensegate.bus.engine import Engine, User
from sensegate.bus.files import write_private
from sensegate.bus.free_ports import free_port, is_free, url_host
from sensegate.bus.opening import Core
from sensegate.bus.server_conf import LOOPBACK
from sensegate.clock import Clock, SystemClock
from sensegate.collect.front import messages
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.messages import (
    Answer,
    Answers,
    Changes,
    Check,
    Close,
    FrontSettings,
    Questions,
    Report,
    ServiceCodes,
    ServicePublish,
)
from sensegate.collect.front.packets import ReasonCode
from sensegate.collect.front.process import READY, ListenerCertificates, serve
from sensegate.collect.front.rights import TopicMatcher
from sensegate.collect.front.services import FEEDS
from sensegate.collect.topic import subject_of
from sensegate.config import Config
from sensegate.decode.watch import ProfileWatcher
from sensegate.errors import ConfigError, EngineError, Unavailable
from sensegate.model import Device

PORT_WAIT_S = 8.0
"""Longest time that the fronts of a gateway that was just killed may hold a port."""
READY_S = 60.0
STOP_S = 10.0
RESTART_MIN_S, RESTART_MAX_S = 0.1, 5.0
REPORTS_KEPT_S = 5.0
"""Time without a report after which the last report of a front is forgotten."""
FRONTS_MAX = 256
CLOSE_GATHER_S = 0.02
"""Changes within this time are sent together."""

_log = structlog.get_logger("ingest")
_encode = msgspec.msgpack.Encoder().encode
_decode_questions = msgspec.msgpack.Decoder(Questions).decode
_decode_check = msgspec.msgpack.Decoder(Check).decode
_decode_report = msgspec.msgpack.Decoder(Report).decode
_decode_publish = msgspec.msgpack.Decoder(ServicePublish).decode

TakeControl = Callable[[str, str, bytes], Awaitable[bool]]
"""(token, topic, payload): takes what a subscriber of feeds publishes; returns whether it may publish there."""


class FrontRegistry:
    """Answers the questions of fronts, from the registry and the profiles in force."""

    def __init__(
        self, link: Client, callout: Callout, devices: Devices, profiles: ProfileWatcher, clock: Clock
    ) -> None:
        """`profiles` name the topics of which messages at QoS 0 are taken; `link`: connection of `User.GATEWAY`."""
        self._link = link
        self._callout = callout
        self._devices = devices
        self._profiles = profiles
        self._clock = clock
        self._closing: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._is_all_changed = True  # fronts that outlived another gateway process may have missed what it did not tell
        self._problems: dict[str, tuple[str, float]] = {}

    def problems(self) -> dict[str, str]:
        """Return front -> why it does not store messages at the moment, of those that were heard recently."""
        since = self._clock.monotonic() - REPORTS_KEPT_S
        return {front: problem for front, (problem, heard_at) in self._problems.items() if heard_at >= since}

    async def open(self, take_control: TakeControl) -> None:
        """Begin to answer; `take_control` is given what subscribers of feeds publish. Raises `Unavailable`."""
        link = self._link

        async def take(message: Msg) -> None:
            request = _decode_publish(message.data)
            is_allowed = await take_control(request.token, request.topic, request.payload)
            code = ReasonCode.SUCCESS if is_allowed else ReasonCode.NOT_AUTHORIZED
            await self._respond(message, _encode(ServiceCodes((code,))))

        with api.translate_client_errors("subscribe to the questions of fronts"):
            await link.subscribe(messages.ADMIT, queue="gateway", cb=self._admit)
            await link.subscribe(messages.CHECK, queue="gateway", cb=self._check)
            await link.subscribe(messages.REPORT, cb=self._take_report)
            await link.subscribe(f"{messages.SERVICE_PUBLISH}.{FEEDS}", queue="gateway", cb=take)
            await link.flush()
        self._callout.on_close.append(self._close)
        self._profiles.on_change.append(self._profiles_changed)

    async def run(self) -> None:
        """Tell fronts whose connections are to be closed, until cancelled."""
        self._changed.set()
        while True:
            await self._changed.wait()
            await self._clock.sleep(CLOSE_GATHER_S)
            self._changed.clear()
            users, self._closing = tuple(self._closing), {}
            # Before they are told: what changes meanwhile is told again.
            is_all_changed, self._is_all_changed = self._is_all_changed, False
            try:
                if users:
                    await self._tell(users)
                if is_all_changed:
                    await self._tell(())
            except Unavailable as why:
                _log.warning("fronts not told whom to disconnect; trying again", reason=str(why))
                self._closing = dict.fromkeys([*users, *self._closing])
                self._is_all_changed |= is_all_changed
                await self._clock.sleep(0.2)
                self._changed.set()

    async def _tell(self, users: tuple[str, ...]) -> None:
        with api.translate_client_errors("fronts"):
            await self._link.publish(messages.CLOSE, _encode(Close(users)))

    def _close(self, user: str) -> None:
        self._closing[user] = None
        self._changed.set()

    async def _admit(self, message: Msg) -> None:
        asked = _decode_questions(message.data).questions
        answers = tuple(
            self._answer(question.user, question.password, question.common_name, question.address) for question in asked
        )
        await self._respond(message, _encode(Answers(answers)))

    def _answer(self, user: str, password: str, common_name: str, address: str) -> Answer:
        if self._devices.index.find_id(user) < 0:
            return Answer(is_known=False)
        verified = self._callout.authenticate(user, password, common_name, address)
        if verified is None:
            return Answer(is_known=True)
        device, proof = verified
        return self._rights(device, proof.until)

    def _rights(self, device: Device, until: int = 0) -> Answer:
        publish, subscribe = self._callout.topics(device)
        best_effort = self._taken_at_qos0(publish)
        credential = hashlib.blake2b(_encode(self._devices.credentials(device.id)), digest_size=16).digest()
        return Answer(
            is_known=True,
            is_admitted=True,
            until=until,
            publish=tuple(publish),
            subscribe=tuple(subscribe),
            best_effort=best_effort,
            credential=credential,
        )

    def _taken_at_qos0(self, publish: list[str]) -> tuple[str, ...]:
        """Return those topic filters of a device of which messages at QoS 0 are taken."""
        wanted = self._profiles.set.topics_at_qos0()
        if not wanted:
            return ()
        within, granted = TopicMatcher(wanted), TopicMatcher(publish)
        filters = [own for own in publish if within.covers(own)]
        return (*filters, *(topic for topic in wanted if topic not in filters and granted.covers(topic)))

    def _profiles_changed(self, _in_force: object, _names: object) -> None:
        """Tell the fronts to request again, for all devices, which QoS 0 messages are taken."""
        self._changed.set()
        self._is_all_changed = True

    async def _check(self, message: Msg) -> None:
        closed: list[str] = []
        rights: dict[str, Answer] = {}
        for user, (credential, state) in _decode_check(message.data).states.items():
            at = self._devices.index.find_id(user)
            answer = self._rights(self._devices.record(at)) if at >= 0 else None
            if answer is None or not self._devices.enabled[at] or answer.credential != credential:
                closed.append(user)
            elif answer.state != state:
                rights[user] = answer
        await self._respond(message, _encode(Changes(tuple(closed), rights)))

    async def _take_report(self, message: Msg) -> None:
        report = _decode_report(message.data)
        for refusal in report.refusals:
            subject = refusal.detail if refusal.operation == "connect" else subject_of(refusal.detail)
            self._callout.note_refused(
                refusal.user, refusal.operation, subject, address=refusal.address, count=refusal.count
            )
        for limit, count in report.limits.items():
            metrics.LIMIT_HITS.labels(limit).inc(count)
        metrics.MQTT_CONNECTIONS.labels(report.front).set(report.connections)
        metrics.MQTT_QUEUED.labels(report.front).set(report.queued_bytes)
        if report.problem:
            if len(self._problems) >= FRONTS_MAX:
                self._problems.pop(next(iter(self._problems)))
            self._problems[report.front] = report.problem, self._clock.monotonic()
        else:
            self._problems.pop(report.front, None)

    @staticmethod
    async def _respond(message: Msg, answer: bytes) -> None:
        with contextlib.suppress(Unavailable), api.translate_client_errors("answer a front"):
            await message.respond(answer)


class MqttFronts:
    """The fronts on this machine: child processes, or one within this process. A gateway may have none of its own."""

    def __init__(self, config: Config, engine: Engine, clock: Clock, registry: FrontRegistry | None = None) -> None:
        """`open` starts the processes, `admit` lets devices in.

        Args:
            config: of the node.
            engine: to which the fronts connect.
            clock: the clock.
            registry: answers the questions of fronts, in a gateway; None: another process does.
        """
        self._config = config
        self._settings = config.listen.mqtt
        self._engine = engine
        self._clock = clock
        self._port_file = Path(config.directory) / "mqtt.port"
        self._registry = registry
        self._has_fronts = registry is None or not self._settings.separate
        self._reserved: socket.socket | None = None
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._certificates: ListenerCertificates | None = None
        count = max(self._settings.processes, 1) if self._has_fronts else 0
        prefix = f"{socket.gethostname()}-{self._settings.port}-" if self._settings.separate else ""
        self._listening = {f"{prefix}mqtt-{number}": asyncio.Event() for number in range(count)}
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0
        """Port to which devices connect."""

    @property
    def url(self) -> str:
        """Address for devices."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.host, self._settings.host)  # noqa: S104 - compared
        return f"mqtt://{url_host(host)}:{self.port}"

    async def open(self) -> None:
        """Reserve the port and start the processes, which take some time until they listen.

        Raises:
            ConfigError: it would listen beyond loopback without TLS.
            EngineError: the port is taken.
        """
        if self._settings.host not in LOOPBACK and not self._config.engine.tls.cert_file:
            raise ConfigError(
                f"{self._settings.host} without TLS",
                key="listen.mqtt.host",
                remedy="set engine.tls.cert_file and key_file, or listen on loopback",
            )
        if not self._has_fronts:
            self.port = self._settings.port
            return
        await self._reserve()
        if self._settings.processes:
            self._tasks = [asyncio.create_task(self._supervise(name), name=name) for name in self._listening]

    async def admit(self, take_control: TakeControl | None = None) -> None:
        """Let devices in; return when all fronts listen. Raises `Unavailable`.

        Args:
            take_control: is given what subscribers of feeds publish; None: another process answers the fronts.
        """
        if self._registry and take_control:
            await self._registry.open(take_control)
            self._tasks.append(asyncio.create_task(self._registry.run(), name="mqtt registry"))
        if self._has_fronts and not self._settings.processes:
            self._certificates = ListenerCertificates(self._config.engine.tls)
            (name,) = self._listening
            self._tasks.append(asyncio.create_task(self._run_here(name), name=_WITHIN))
        waiting = [asyncio.ensure_future(listening.wait()) for listening in self._listening.values()]
        try:
            async with asyncio.timeout(READY_S):
                while not all(listening.is_set() for listening in self._listening.values()):
                    await asyncio.wait([*waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
                    waiting = [listening for listening in waiting if not listening.done()]
                    self._raise_failure()
        except TimeoutError as why:
            raise Unavailable(f"the MQTT listener did not start within {READY_S:.0f} s; see the log") from why
        finally:
            for listening in waiting:
                listening.cancel()

    def _raise_failure(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def run(self) -> None:
        """Wait until the supervision of the fronts fails; never return."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._raise_failure()
        raise EngineError("the supervision of the MQTT fronts ended; please report this bug")

    async def stop(self) -> None:
        """Have all fronts store what they have taken, and end them."""
        self._stop.set()
        for child in self._children.values():
            if child.stdin:
                child.stdin.close()
        in_here = [task for task in self._tasks if task.get_name() == _WITHIN]
        if in_here:
            await asyncio.wait(in_here, timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reserved:
            self._reserved.close()
            self._reserved = None

    async def _reserve(self) -> None:
        """Bind the port without listening, so that no other program gets it while a front restarts."""
        deadline = self._clock.monotonic() + PORT_WAIT_S
        host, wanted = self._settings.host, self._settings.port or self._last_port()
        # The fronts of a gateway that was just killed hold it until they have stored what they took.
        while (reserved := _bound(host, wanted or free_port(host))) is None:
            if self._clock.monotonic() <= deadline:
                await self._clock.sleep(0.1)
            elif self._settings.port:
                raise EngineError(f"port {wanted} on {host} is taken; free it, or change listen.mqtt.port")
            else:
                wanted = 0
        self._reserved, self.port = reserved, reserved.getsockname()[1]
        if self.port != self._settings.port:
            write_private(self._port_file, str(self.port))

    def _last_port(self) -> int:
        """Return the free port that was chosen before, so that devices find the gateway again; 0: none."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._port_file.read_text(encoding="ascii"))
        return 0

    def warnings(self) -> list[str]:
        """Return a sentence for each front that does not store messages."""
        problems = self._registry.problems() if self._registry else {}
        return [f"{front}: messages are not stored: {problem}" for front, problem in problems.items()]

    def not_ready(self) -> list[str]:
        """Return a sentence for each front that does not listen."""
        return [f"{name} does not listen" for name, listening in self._listening.items() if not listening.is_set()]

    def reload_certificates(self) -> None:
        """Have all fronts load their certificates again; connections stay. Raises `ConfigError`."""
        if self._certificates:
            self._certificates.reload()
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGHUP)

    def _front_settings(self, name: str) -> FrontSettings:
        credential = self._engine.credential(User.GATEWAY)
        info, listen = self._engine.info, self._settings
        return FrontSettings(
            name=name,
            host=listen.host,
            port=self.port,
            limits=FrontLimits(
                packet_bytes_max=min(listen.packet_bytes_max, info.max_payload - _HEADROOM),
                connections_max=listen.connections_max,
                connections_per_address_max=listen.connections_per_address_max,
                inflight_max=listen.inflight_max,
                queue_bytes_max=listen.queue_bytes_max,
                session_expiry_max_s=listen.session_expiry_max_h * 3_600,
                connect_timeout_s=listen.connect_timeout_s,
            ),
            engine=self._config.engine,
            urls=info.urls,
            user=credential.user,
            password=credential.password,
            inbox_prefix=credential.inbox_prefix,
            broker_host=info.mqtt_host,
            broker_port=info.mqtt_port,
            facts_key=key_of(self._engine.issuer_seed),
            sessions_bytes_max=self._config.store.registry_bytes,
            log_level=self._config.log_level,
            log_format=self._config.log_format,
        )

    async def _run_here(self, name: str) -> None:
        """Run a front in this process, and again when it has lost the engine."""
        while not self._stop.is_set():
            try:
                await serve(
                    self._front_settings(name),
                    self._clock,
                    ready=self._listening[name].set,
                    stop=self._stop,
                    certificates=self._certificates,
                )
            except Unavailable as why:
                self._listening[name].clear()
                _log.warning("front ended; restarting it", front=name, reason=str(why))
                await self._clock.sleep(RESTART_MIN_S)

    async def _supervise(self, name: str) -> None:
        """Run a front process, and again whenever it ends."""
        pause_s = RESTART_MIN_S
        while not self._stop.is_set():
            began = self._clock.monotonic()
            child = await self._start(name)
            try:
                await self._await_ready(name, child)
                code = await child.wait()
            finally:
                self._listening[name].clear()
                await self._end(name, child)
            if self._stop.is_set():
                return
            if self._clock.monotonic() - began > 10 * RESTART_MAX_S:
                pause_s = RESTART_MIN_S
            metrics.RESTARTS.labels("mqtt front").inc()
            _log.error("front ended; restarting it", front=name, reason=f"exit code {code}", pause_s=pause_s)
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_MAX_S)

    async def _start(self, name: str) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "sensegate.collect.front.process",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._children[name] = child
        settings = msgspec.msgpack.encode(self._front_settings(name))
        if child.stdin:
            child.stdin.write(len(settings).to_bytes(4, "little") + settings)
        return child

    async def _await_ready(self, name: str, child: asyncio.subprocess.Process) -> None:
        if child.stdout is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                if await child.stdout.readline() == READY:
                    self._listening[name].set()

    async def _end(self, name: str, child: asyncio.subprocess.Process) -> None:
        """End a front: it stores what it has taken first."""
        self._children.pop(name, None)
        if child.stdin:
            child.stdin.close()
        if child.returncode is not None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


_WITHIN = "mqtt front"
"""Name of the task of the front within this process."""
_HEADROOM = 16 * 1024
"""Bytes of a batch around its messages."""


def _bound(host: str, port: int) -> socket.socket | None:
    """Return a socket that is bound to a port, without listening; none if another program has the port.

    The fronts share it (SO_REUSEPORT), so whether somebody else has it is asked without sharing.
    """
    if not is_free(port, host):
        return None
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        return None
    return bound


async def open_fronts(
    core: Core, callout: Callout, devices: Devices, profiles: ProfileWatcher, stack: contextlib.AsyncExitStack
) -> MqttFronts:
    """Start the fronts of a gateway; `MqttFronts.admit` lets devices in.

    Args:
        core: configuration, clock and engine.
        callout: decides who may connect.
        devices: the registry.
        profiles: the profiles in force.
        stack: ends the fronts.

    Raises:
        ConfigError, EngineError: as `MqttFronts.open`.
    """
    registry = FrontRegistry(core.bus, callout, devices, profiles, core.clock)
    fronts = MqttFronts(core.config, core.engine, core.clock, registry)
    stack.push_async_callback(fronts.stop)
    await fronts.open()
    return fronts


async def run_fronts(config: Config) -> None:
    """Run the fronts of a machine apart from the gateway, until cancelled.

    They need the servers of the cluster and a gateway of the node on any machine. Devices stay connected while another
    gateway takes over.

    Raises:
        ConfigError, EngineError: as `MqttFronts.open`.
    """
    clock = SystemClock()
    Path(config.directory).mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240 - nothing else runs yet
    async with contextlib.AsyncExitStack() as stack:
        engine = Engine.of(config, clock, slots=())
        await engine.start()
        stack.push_async_callback(engine.stop)
        fronts = MqttFronts(config, engine, clock)
        stack.push_async_callback(fronts.stop)
        await fronts.open()
        await fronts.admit()
        _log.info("fronts ready", mqtt=fronts.url)
        await fronts.run()
