"""Clients of the MQTT extension: who may connect, what they publish and subscribe to, and which of them are connected.

The user name is the id of a token with ``/sta`` behind, the password the token, and the client id begins with the id of
the token. The front has the requests of a client answered here; what it subscribes to stands at the broker under the
mount point of its token, to which nobody else has a right.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from functools import partial

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.authority.callout import Guest
from sensegate.authority.devices import Devices
from sensegate.authority.jwt import AuthRequest, Permissions
from sensegate.authority.scope import Action, Principal, has_right
from sensegate.authority.trail import Trail
from sensegate.bus import api
from sensegate.bus.engine import Engine, User
from sensegate.clock import Clock
from sensegate.collect.front.messages import (
    SERVICE_PUBLISH,
    SERVICE_SUBSCRIBE,
    ServiceCodes,
    ServicePublish,
    ServiceSubscribe,
)
from sensegate.collect.front.packets import ReasonCode
from sensegate.collect.front.services import ServiceUser, service_user
from sensegate.errors import (
    CancellableTaskGroup,
    NotFound,
    Overloaded,
    PermissionDenied,
    SensegateError,
    StoreFull,
    Unavailable,
)
from sensegate.model import Device
from sensegate.sensorthings.bodies import decoded
from sensegate.sensorthings.topics import parse_topic
from sensegate.sensorthings.updates import TokenUpdates, UpdateParts
from sensegate.sensorthings.writing import EntityWriter, WriteActs
from sensegate.share.feeds import ALL_FEED
from sensegate.share.transports.brokered import topic_of_subject
from sensegate.web.bodies import NewDevice
from sensegate.web.problems import BadRequest

SERVICE = "sta"
ACCOUNT = User.FEEDS.account
CHECK_INTERVAL_S = 1.0
GRANTED_S = 10.0
"""A subscription that was granted is at the broker within this time."""
GRANTED_CHECK_S = 0.05
"""Interval between checks while a subscription that was granted is not at the broker."""
TOPICS_MAX = 200
"""Most topics of a token."""
REQUESTS_MAX = 2_000
"""Most requests of all fronts at a time."""
_log = structlog.get_logger("sensorthings")
_encode = msgspec.msgpack.Encoder().encode
_decode_publish = msgspec.msgpack.Decoder(ServicePublish).decode
_decode_subscribe = msgspec.msgpack.Decoder(ServiceSubscribe).decode

Ingest = Callable[[Device, Principal, bytes, str], Awaitable[None]]
"""(device, caller, body, content type): returns after the message is committed."""


class ClientParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Parts that serve MQTT clients."""

    engine: Engine
    bus: Client
    """Connection of `User.GATEWAY`."""
    updates: UpdateParts
    devices: Devices
    trail: Trail
    ingest: Ingest
    clock: Clock


class MqttClients:
    """Clients of the MQTT extension."""

    def __init__(self, parts: ClientParts) -> None:
        self._parts = parts
        self._updates: dict[str, TokenUpdates] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        parts.updates.tokens.on_change.append(lambda _token: self._wake.set())

    # ── authorization ─────────────────────────────────────────────────────────────────────────────────

    def authorize(self, question: AuthRequest) -> Guest | None:
        """Return the permissions of a client; None: it is none of these.

        Raises:
            PermissionDenied: the token is invalid or of another user name, or may neither read nor send readings.
        """
        options = question.connect_opts
        user = service_user(options.user)
        if user is None or user.service != SERVICE:
            return None
        if question.client_info.type != "mqtt":
            raise PermissionDenied("the SensorThings API is spoken by MQTT and HTTP")
        principal = self._parts.updates.tokens.verify(options.password)
        if user.token != principal.id:
            raise PermissionDenied(f"the user name must be the id of the token and /{SERVICE}")
        if not question.client_info.mqtt_id.startswith(principal.id):
            # A session belongs to its client id: another's id would take over its queued messages.
            raise PermissionDenied(f"the client id must begin with the id of the token, {principal.id}")
        if not _has_any_right(principal):
            raise PermissionDenied(f"role {principal.role} may neither read nor send readings")
        subject = user.mount_point.replace("/", ".") + ">"
        return Guest(options.user, ACCOUNT, Permissions((), (subject,)), "MQTT")

    # ── requests of fronts ────────────────────────────────────────────────────────────────────────────

    async def listen(self) -> None:
        """Begin to answer fronts. Raises `Unavailable`."""
        with api.translate_client_errors("subscribe to the requests of fronts"):
            for subject, answer in ((f"{SERVICE_PUBLISH}.{SERVICE}", self._take), (SERVICE_SUBSCRIBE, self._grant)):
                await self._parts.bus.subscribe(subject, queue="gateway", cb=partial(self._begin, answer))
            await self._parts.bus.flush()

    async def _begin(self, answer: Callable[[bytes], Awaitable[tuple[int, ...]]], message: Msg) -> None:
        """Answer a request in a task of its own: a commit does not hold up the next request."""
        if len(self._requests) >= REQUESTS_MAX:
            await self._respond(message, (ReasonCode.SERVER_BUSY,))
            return
        task = asyncio.create_task(self._answer(answer, message), name="sensorthings request")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answer(self, answer: Callable[[bytes], Awaitable[tuple[int, ...]]], message: Msg) -> None:
        await self._respond(message, await answer(message.data))

    @staticmethod
    async def _respond(message: Msg, codes: tuple[int, ...]) -> None:
        with contextlib.suppress(Unavailable), api.translate_client_errors("answer a front"):
            await message.respond(_encode(ServiceCodes(codes)))

    async def _take(self, raw: bytes) -> tuple[int, ...]:
        """Return the reason code of a message, after the commit of its Observation."""
        request = _decode_publish(raw)
        try:
            await self._create(request)
        except SensegateError as why:
            _log.info("observation refused", token=request.token, topic=request.topic[:100], reason=str(why))
            return (_code_of(why),)
        return (ReasonCode.SUCCESS,)

    async def _create(self, request: ServicePublish) -> None:
        """Take an Observation as POST would. Raises as `EntityWriter.create`, `BadRequest`, `PermissionDenied`."""
        parts, service = self._parts, self._parts.updates.service
        principal = parts.updates.tokens.principal(request.token)
        topic = parse_topic(request.topic)
        if topic.feed != ALL_FEED.name or topic.select:
            raise BadRequest(
                "topic: Observations are published to v1.1/Observations or v1.1/Datastreams(ID)/Observations"
            )
        await service.reader.catch_up()
        view = await service.view(principal, ALL_FEED.name, "json", parts.clock.now())
        if not view.is_own:
            raise PermissionDenied("a token for feeds, or with a grant for all of them, reads only; use another")
        target = await service.resolve_parent(view, topic.steps)
        if target.kind.name != "Observation":
            raise BadRequest(f"topic: a {target.kind.name} is created by POST; Observations also by MQTT")

        async def push(device: str, body: bytes) -> None:
            await parts.ingest(parts.devices.get(device), principal, body, "application/json")

        acts = WriteActs(register=_no_device, withdraw=_no_withdrawal, push=push)
        writer = EntityWriter(service.views, parts.trail, service.intake, principal, acts)
        await writer.create(view, target.kind, decoded(request.payload), target.parent)

    async def _grant(self, raw: bytes) -> tuple[int, ...]:
        """Return the reason code of each topic; 0: it is followed from now on."""
        request = _decode_subscribe(raw)
        codes = []
        for text in request.topics:
            try:
                await self._follow(ServiceUser(request.token, request.service), text)
            except SensegateError as why:
                _log.info("subscription refused", token=request.token, topic=text[:100], reason=str(why))
                codes.append(_subscription_code_of(why))
            else:
                codes.append(int(ReasonCode.SUCCESS))
        self._wake.set()
        return tuple(codes)

    async def _follow(self, user: ServiceUser, text: str) -> None:
        topic = parse_topic(text)
        updates = self._updates.get(user.token) or TokenUpdates(self._parts.updates, user)
        if len(updates.topics) >= TOPICS_MAX and text not in updates.topics:
            raise Overloaded(f"token {user.token} has {TOPICS_MAX} topics already", retry_after_s=60)
        await updates.follow(topic)
        self._updates.setdefault(user.token, updates).topics.setdefault(text, updates.topics[text])

    # ── connections ───────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Follow which clients are connected and to what they subscribe, and run their updates, until cancelled."""
        async with CancellableTaskGroup() as group:
            while True:
                self._wake.clear()
                try:
                    await self._check_connections(group)
                except Unavailable as why:
                    _log.debug("connections not checked", reason=str(why))
                is_granting = any(
                    not followed.connections
                    for updates in self._updates.values()
                    for followed in updates.topics.values()
                )
                if is_granting:
                    await self._parts.clock.sleep(GRANTED_CHECK_S)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_INTERVAL_S):
                        await self._wake.wait()

    async def _check_connections(self, group: asyncio.TaskGroup) -> None:
        """Close connections that have lost their rights; bring topics in line with the subscriptions of the others."""
        subscribed: dict[str, Counter[str]] = {token: Counter() for token in self._updates}
        for connection in await self._parts.engine.connections(ACCOUNT, subscriptions=True):
            user = service_user(connection.authorized_user)
            if user is None or not connection.mqtt_client:
                continue
            topics = map(topic_of_subject, connection.subscriptions_list)
            mine = {topic.removeprefix(user.mount_point) for topic in topics if topic.startswith(user.mount_point)}
            if problem := self._problem_of(user, mine):
                await self._parts.engine.close_connection(connection.cid)
                _log.info("connection closed", token=user.token, service=user.service, reason=problem)
                continue
            subscribed.setdefault(user.token, Counter()).update(mine)
        for token, counts in subscribed.items():
            await self._bring_in_line(group, ServiceUser(token, SERVICE), counts)

    def _problem_of(self, user: ServiceUser, topics: Collection[str]) -> str:
        """Return why a client with some topics has to be disconnected; empty: it may stay."""
        try:
            principal = self._parts.updates.tokens.principal(user.token)
        except PermissionDenied as why:
            return str(why)
        if not _has_any_right(principal):
            return f"role {principal.role} may neither read nor send readings"
        updates = self._updates.get(user.token)
        if updates is None or not updates.denied:
            return ""
        feeds = {updates.topics[text].topic.feed for text in topics if text in updates.topics}
        return next((why for feed, why in updates.denied.items() if feed in feeds), "")

    async def _bring_in_line(self, group: asyncio.TaskGroup, user: ServiceUser, counts: Counter[str]) -> None:
        now = self._parts.clock.monotonic()
        # Sessions that were continued, and those of an earlier process, subscribe without asking.
        for text in counts.keys() - self._topics_of(user.token):
            with contextlib.suppress(SensegateError):
                await self._follow(user, text)
        updates = self._updates.get(user.token)
        if updates is None:
            return
        for text, followed in list(updates.topics.items()):
            followed.connections = counts[text]
            if not followed.connections and now - followed.granted_at > GRANTED_S:
                del updates.topics[text]
        task = self._running.get(user.token)
        if not updates.topics:
            del self._updates[user.token]
            if task is not None:
                task.cancel()
                del self._running[user.token]
        elif task is None or task.done():
            self._running[user.token] = group.create_task(updates.run(), name=f"sensorthings {user.token}")

    def _topics_of(self, token: str) -> set[str]:
        updates = self._updates.get(token)
        return set(updates.topics) if updates is not None else set()


def _has_any_right(principal: Principal) -> bool:
    return has_right(principal, Action.READ_READINGS) or has_right(principal, Action.INGEST)


def _code_of(why: SensegateError) -> int:
    """Return the reason code of a message that is not taken."""
    match why:
        case PermissionDenied() | NotFound():
            return ReasonCode.NOT_AUTHORIZED
        case Overloaded() | Unavailable() | StoreFull():
            return ReasonCode.SERVER_BUSY
        case BadRequest() if why.status == 503:
            return ReasonCode.SERVER_BUSY
        case BadRequest():
            is_of_topic = str(why).startswith(("topic", "path"))
            return ReasonCode.TOPIC_NAME_INVALID if is_of_topic else ReasonCode.PAYLOAD_FORMAT_INVALID
    return ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR


def _subscription_code_of(why: SensegateError) -> int:
    """Return the reason code of a topic that is not granted."""
    match why:
        case PermissionDenied() | NotFound():
            return ReasonCode.NOT_AUTHORIZED
        case Overloaded():
            return ReasonCode.QUOTA_EXCEEDED
        case BadRequest():
            return ReasonCode.TOPIC_FILTER_INVALID
    return ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR


async def _no_device(_body: NewDevice) -> object:
    raise BadRequest("body: Things are registered by POST; publish Observations")


async def _no_withdrawal(_device: str, _name: str, _begin: int, _end: int) -> None:
    raise BadRequest("body: Observations are deleted by DELETE")
