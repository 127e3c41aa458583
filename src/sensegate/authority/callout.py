"""Answers to nats-server's auth callout: permission to connect by MQTT, and topics to publish.

        CONNECT ─▶ question ─▶ credential right? device enabled? client id free? ─▶ signed rights, or a refusal
        registry change ─▶ disabled, or its rights changed ─▶ its connections are closed (it comes again with the new)
        server's log ─▶ refused publishes and subscriptions ─▶ counted per device, alarmed

A device publishes under the topics that its profile names (and those of the devices behind it) and nowhere else; it
hears its own down topics. A second connection of a user is let in only with the same client id (the server then closes
the first); a client id that another user has in use is refused, since the server would close that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog
from msgspec.structs import replace
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate import metrics
from sensegate.authority.certificates import common_name
from sensegate.authority.connections import DeviceConnections
from sensegate.authority.credentials import Proof
from sensegate.authority.device_table import StoredDevice
from sensegate.authority.devices import Devices
from sensegate.authority.jwt import AuthRequest, CalloutSigner, Permissions, decode_request
from sensegate.authority.refusals import DeniedOperation, RefusalAlarm, Refusals
from sensegate.authority.renewals import Differ, Renewals, users_of
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.topics import subject_of
from sensegate.authority.trail import Trail
from sensegate.bus import api, server_conf
from sensegate.bus.client_facts import PREFIX, FactsVerifier, key_of
from sensegate.bus.engine import Connection, Violation
from sensegate.bus.server_log import mask_free_text
from sensegate.clock import Clock
from sensegate.errors import ConfigError, EngineError, PermissionDenied, SensegateError, Unavailable
from sensegate.model import Device

_log = structlog.get_logger("authority")

ACCOUNT = server_conf.User.INTAKE.account
TOPICS_MAX = 1_000
"""Most topics of one connection, with those of the devices behind it."""
_CHECKS_MAX = 256
"""Most connects at once that wait for a look at other connections; more are refused."""
_ALARMS_MAX = 1_000

TopicsOf = Callable[[Device], tuple[list[str], list[str]]]
"""Device -> (topic filters it may publish to, those it may subscribe to), MQTT form."""


def plain_topics(device: Device) -> tuple[list[str], list[str]]:
    """Return the topics of the plain layout."""
    return [f"sg/{device.id}/up", f"sg/{device.id}/status"], [f"sg/{device.id}/down"]


PublishOf = Callable[[Device, Sequence[str], Sequence[str] | None, str], list[str]]
"""(device, its names, names of its gateway or None where it is its own, the gateway's profile) -> topic filters."""


HeardOf = Callable[[Device, Sequence[str]], list[str]]
"""(device, its names) -> topic filters."""


def _nothing(_device: Device, _names: Sequence[str]) -> list[str]:
    return []


def profile_topics(publish_of: PublishOf, devices: Devices, heard_of: HeardOf = _nothing) -> TopicsOf:
    """Return the topics of profiles: both are methods of `decode.ProfileSet`, handed in by the wiring.

    A device that is named in the payload gets the topics with its gateway's names in them, and only those: never the
    gateway's name in a place where a device's own stands. Each hears ``sg/<id>/down`` and what its profile says.
    """

    def topics_of(device: Device) -> tuple[list[str], list[str]]:
        down = [f"sg/{device.id}/down", *heard_of(device, _names(device))]
        if not device.gateways:
            return publish_of(device, _names(device), None, ""), down
        up: dict[str, None] = {}
        for name in device.gateways:
            at = devices.find(name)
            gateway = devices.record(at) if at >= 0 else None
            through = (_names(gateway), gateway.profile) if gateway else ([], "")
            up |= dict.fromkeys(publish_of(device, _names(device), *through))
        return list(up), down

    return topics_of


def _names(device: Device) -> list[str]:
    return [name for name in (device.id, device.alias) if name]


class Guest(msgspec.Struct, frozen=True):
    """A client that is no device and is admitted: a node, a subscriber."""

    name: str
    account: str
    rights: Permissions
    kind: str = "STANDARD"
    """Kind of connection: STANDARD or MQTT."""
    until: int = 0
    """µs UTC; 0: no end is known."""


GuestOf = Callable[[AuthRequest], "Guest | None"]
"""Returns the guest, None where it is none of his to decide on. Raises `PermissionDenied`."""


class Server(Protocol):
    """Part of `bus.engine.Engine` that the callout needs."""

    async def connect(self, user: server_conf.User) -> Client: ...

    async def connections(self, account: str, **selection: object) -> list[Connection]: ...

    async def close_connection(self, cid: int) -> None: ...

    async def violations(self) -> list[Violation]: ...

    @property
    def issuer_seed(self) -> bytes: ...


class Callout:
    """Answers for one gateway; several processes may share the questions."""

    def __init__(
        self,
        server: Server,
        devices: Devices,
        clock: Clock,
        *,
        trail: Trail | None = None,
        topics_of: TopicsOf = plain_topics,
        is_camera: Callable[[Device], bool] = lambda _: False,
    ) -> None:
        """`is_camera`: its refused topics are reported without free text."""
        self._is_camera = is_camera
        self._server = server
        self._devices = devices
        self._clock = clock
        self._trail = trail
        self._topics_of = topics_of
        self._guests: tuple[GuestOf, ...] = ()
        self._signer = CalloutSigner(server.issuer_seed)
        self._open = DeviceConnections(server, ACCOUNT, clock)
        self._renewals = Renewals(devices, self._close, clock)
        self._facts = FactsVerifier(key_of(server.issuer_seed))
        self._client: Client | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._checks: set[asyncio.Task[None]] = set()
        self._alarms: asyncio.Queue[RefusalAlarm] = asyncio.Queue(_ALARMS_MAX)
        self.refusals = Refusals(clock)
        self.admitted = 0
        """Connections let in since the process began."""
        self.on_close: list[Callable[[str], None]] = []
        """Called with each user whose connections are to be closed, for connections that others hold."""

    async def start(self, guests: Sequence[GuestOf] = ()) -> None:
        """Begin to answer; before it returns, connections of devices disabled meanwhile are closed.

        `guests` are asked about each client that connects, before the registry of devices.

        Raises:
            Unavailable: the server does not answer.
        """
        self._guests = tuple(guests)
        self._devices.on_change.append(self._changed)
        self.refusals.on_alarm.append(self._note)
        await self._open.start()
        self._client = await self._server.connect(server_conf.User.CALLOUT)
        with api.translate_client_errors("subscribe to the auth callout"):
            await self._client.subscribe("$SYS.REQ.USER.AUTH", queue="callout", cb=self._asked)
            await self._client.flush()
        await self._open.sweep(self._allowed)
        self._tasks = [
            asyncio.create_task(self._count_violations(), name="authority violations"),
            asyncio.create_task(self._record_alarms(), name="authority alarms"),
            asyncio.create_task(self._renewals.run(), name="authority renewals"),
        ]

    async def stop(self) -> None:
        """Stop answering; open connections stay."""
        for task in [*self._tasks, *self._checks]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._checks, return_exceptions=True)
        if self._changed in self._devices.on_change:
            self._devices.on_change.remove(self._changed)
        if self._client is not None:
            await self._client.close()
            self._client = None
        await self._open.stop()

    def renew(self, profile: str, differ: Differ) -> None:
        """Close, little by little, the connections of the devices of a profile whose topics have changed.

        They come again at once, with their new rights.
        """
        self._renewals.schedule(profile, differ)

    def close(self, user: str) -> None:
        """Close a device's connections; whether it may come again is asked when it does."""
        self._close(user)

    def _close(self, user: str, *, for_good: bool = False) -> None:
        self._open.close(user, for_good=for_good)
        for listener in self.on_close:
            listener(user)

    def topics(self, device: Device) -> tuple[list[str], list[str]]:
        """Return topic filters that a device's connection may publish to, and those it may subscribe to.

        They are its own and those of the devices behind it.
        """
        publish: dict[str, None] = {}
        subscribe: dict[str, None] = {}
        for granted in self._granted(device):
            up, down = self._topics_of(granted)
            if len(publish) + len(subscribe) + len(up) + len(down) > TOPICS_MAX:
                _log.error("too many topics for one connection; the rest is refused", device=device.id, most=TOPICS_MAX)
                break
            publish |= dict.fromkeys(up)
            subscribe |= dict.fromkeys(down)
        return list(publish), list(subscribe)

    def _granted(self, device: Device) -> list[Device]:
        """Return a device and those behind it, as far as they may publish over its connection."""
        behind = (self._devices.record(at) for at in self._devices.children(device.id) if self._devices.enabled[at])
        # One that stands behind several may do over this connection what it may through this gateway alone.
        return [device, *(replace(child, gateway=device.id) for child in behind)]

    def authenticate(self, user: str, password: str, common_name: str, address: str) -> tuple[Device, Proof] | None:
        """Return a device that may connect, with the proof of its credential; None: it is refused, and counted.

        Args:
            user: the user name.
            password: the password.
            common_name: common name of the certificate shown; empty: none was shown.
            address: where it connects from.
        """
        verified = self._devices.verify(user, password)
        named = common_name if self._devices.index.find_id(common_name) >= 0 else ""
        if verified is not None and named in ("", verified[0].id):
            self.admitted += 1
            return verified
        other = f"the certificate shown is that of device {named}"
        why = self._why_not(user) if verified is None else other
        self.refusals.add(user, DeniedOperation.CONNECT, why, address=address)
        return None

    def rights(self, device: Device) -> Permissions:
        """Return the rights of a device's connection: its own topics and those of the devices behind it."""
        publish: dict[str, None] = {}
        subscribe: dict[str, None] = {}
        for granted in self._granted(device):
            up, down = self._topics_of(granted)
            try:
                more_up, more_down = [subject_of(topic) for topic in up], [subject_of(topic) for topic in down]
            except ConfigError as why:
                _log.error("topic cannot be granted; the device has no right to it", device=granted.id, reason=str(why))
                continue
            if len(publish) + len(subscribe) + len(more_up) + len(more_down) > TOPICS_MAX:
                _log.error("too many topics for one connection; the rest is refused", device=device.id, most=TOPICS_MAX)
                break
            publish |= dict.fromkeys(more_up)
            subscribe |= dict.fromkeys(more_down)
        return Permissions(tuple(publish), tuple(subscribe))

    # ── connects ────────────────────────────────────────────────────────────────────────────────────

    async def _asked(self, message: Msg) -> None:
        try:
            asked = decode_request(message.data)
        except EngineError as why:
            _log.error("authorization request refused", reason=str(why))
            return
        if not asked.connect_opts.password.startswith(PREFIX):
            await self._decide(message, asked)
        elif unwrapped := await self._asked_by_front(message, asked):
            await self._decide(message, unwrapped)

    async def _decide(self, message: Msg, asked: AuthRequest) -> None:
        user, client = asked.connect_opts.user, asked.client_info
        if await self._asked_as_guest(message, asked):
            return
        if client.type != "mqtt":
            await self._refuse(message, asked, "only MQTT clients are let in here")
            return
        verified = self._devices.verify(user, asked.connect_opts.password)
        named = self._named(asked)
        if verified is None or named not in ("", verified[0].id):
            other = f"the certificate shown is that of device {named}"
            await self._refuse(message, asked, self._why_not(user) if verified is None else other)
            return
        device, proof = verified
        rival = self._open.rival(user, client.mqtt_id)
        if rival is None:
            await self._admit(message, asked, device, proof.until)
            return
        if len(self._checks) >= _CHECKS_MAX:
            await self._refuse(message, asked, "too many connects with client ids in use; try again")
            return
        # What we know of open connections may be stale: the server is asked, without holding up the others.
        check = asyncio.create_task(self._contest(message, asked, device, proof.until, rival))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _asked_by_front(self, message: Msg, asked: AuthRequest) -> AuthRequest | None:
        """Answer for a device that a front has admitted; for another client return what it asks through the front."""
        user = asked.connect_opts.user
        facts = self._facts.verify(asked.connect_opts.password, user, self._clock.now())
        if facts is None:
            await self._refuse(message, asked, "the facts of a front are forged, old or used")
            return None
        if not facts.is_device:
            return replace(
                asked,
                connect_opts=replace(asked.connect_opts, password=facts.password),
                client_info=replace(asked.client_info, host=facts.address, mqtt_id=facts.client_id),
            )
        at = self._devices.index.find_id(user)
        if at < 0 or not self._devices.enabled[at]:
            await self._refuse(message, asked, self._why_not(user))
        else:
            await self._admit(message, asked, self._devices.record(at), 0)
        return None

    def _named(self, asked: AuthRequest) -> str:
        """Return the device that the certificate shown names; empty: none was shown, or it names none of ours."""
        chains = asked.client_tls.verified_chains if asked.client_tls else ()
        if not chains or not chains[0]:
            return ""
        name = common_name(chains[0][0])
        return name if self._devices.index.find_id(name) >= 0 else ""

    async def _asked_as_guest(self, message: Msg, asked: AuthRequest) -> bool:
        """Answer a client that is not a device; return False if it is unknown."""
        for guest_of in self._guests:
            try:
                guest = guest_of(asked)
            except PermissionDenied as why:
                await self._refuse(message, asked, str(why))
                return True
            if guest is not None:
                now_s, until_s = self._clock.now() // 1_000_000, -(-guest.until // 1_000_000)
                answer = self._signer.admit(
                    asked,
                    account=guest.account,
                    name=guest.name,
                    rights=guest.rights,
                    now_s=now_s,
                    until_s=until_s,
                    kind=guest.kind,
                )
                await self._respond(message, answer)
                return True
        return False

    async def _contest(self, message: Msg, asked: AuthRequest, device: Device, until: int, rival: int) -> None:
        if await self._open.is_open(rival):
            why = "user or client id is in use by another connection: one client id a device, and each its own"
            await self._refuse(message, asked, why)
        else:
            await self._admit(message, asked, device, until)

    async def _admit(self, message: Msg, asked: AuthRequest, device: Device, until: int) -> None:
        now_s = self._clock.now() // 1_000_000
        rights = self.rights(device)
        answer = self._signer.admit(
            asked, account=ACCOUNT, name=device.id, rights=rights, now_s=now_s, until_s=-(-until // 1_000_000)
        )
        self.admitted += 1
        self._open.opened(asked.client_info.id, device.id, asked.client_info.mqtt_id)
        await self._respond(message, answer)

    async def _refuse(self, message: Msg, asked: AuthRequest, why: str) -> None:
        self.refusals.add(asked.connect_opts.user, DeniedOperation.CONNECT, why, address=asked.client_info.host)
        await self._respond(message, self._signer.refuse(asked, why, now_s=self._clock.now() // 1_000_000))

    @staticmethod
    async def _respond(message: Msg, answer: bytes) -> None:
        try:
            with api.translate_client_errors("answer the auth callout"):
                await message.respond(answer)
        except Unavailable as why:
            # The server refuses the client after its time-out; it comes again.
            _log.debug("authorization answer not sent", reason=str(why))

    def _why_not(self, user: str) -> str:
        at = self._devices.index.find_id(user)
        if at < 0:
            return "no such device"
        if not self._devices.enabled[at]:
            return "the device is disabled or retired"
        return "wrong password"

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, at: int, before: StoredDevice | None, after: StoredDevice | None) -> None:
        device_id = self._devices.id(at)
        if before is None:
            # A new device behind a gateway widens the gateway's rights.
            for gateway in after.device.gateways if after else ():
                self._close(gateway)
            return
        if after is None or not self._devices.enabled[at]:
            for user in users_of(before.device):
                self._close(user, for_good=not before.device.gateway)
            return
        if _rights_differ(before.device, after.device):
            for user in {*users_of(before.device), *users_of(after.device)}:
                self._close(user)
        elif before.credentials.current != after.credentials.current and not after.credentials.previous_until:
            self._close(device_id)

    def _allowed(self, user: str) -> bool:
        at = self._devices.index.find_id(user)
        return at >= 0 and bool(self._devices.enabled[at])

    # ── refusals ────────────────────────────────────────────────────────────────────────────────────

    async def _count_violations(self) -> None:
        while True:
            try:
                seen = await self._server.violations()
            except SensegateError as why:
                _log.debug("violations of rights not read", reason=str(why))
                await self._clock.sleep(1.0)
                continue
            for violation in seen:
                if violation.mqtt and violation.account in ("", ACCOUNT):
                    name = violation.user or violation.client_id
                    self.note_refused(name, violation.operation, violation.subject, address=violation.address)

    def note_refused(self, name: str, operation: str, subject: str, *, address: str, count: int = 1) -> None:
        """Count refused operations on a subject; of a camera without the free text in it."""
        at = self._devices.index.find_id(name)
        camera = at >= 0 and self._is_camera(self._devices.record(at))
        detail = mask_free_text(subject) if camera else subject
        self.refusals.add(name, DeniedOperation(operation), detail, address=address, count=count)

    def _note(self, alarm: RefusalAlarm) -> None:
        if self._trail is None:
            return
        if self._alarms.full():
            metrics.LIMIT_HITS.labels("alarms").inc()
            return
        self._alarms.put_nowait(alarm)

    async def _record_alarms(self) -> None:
        """Put alarms of known devices on the audit trail; strangers fill it not."""
        while True:
            alarm = await self._alarms.get()
            at = self._devices.index.find_id(alarm.device)
            if self._trail is None or at < 0:
                continue
            device = self._devices.record(at)
            by = Principal(device.id, Role.DEVICE, Scope(device.division, device.department))
            details = {"detail": alarm.detail, "count": alarm.count, "address": alarm.address}
            try:
                await self._trail.record(by, f"refused.{alarm.operation.value}", device.id, after=dict(details))
            except SensegateError as why:
                _log.error("alarm not on the audit trail", device=device.id, reason=str(why))


def _rights_differ(before: Device, after: Device) -> bool:
    return (before.profile, before.alias, before.gateway, before.state) != (
        after.profile,
        after.alias,
        after.gateway,
        after.state,
    )
