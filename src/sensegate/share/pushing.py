"""Wiring of push delivery: each subscription from its committed offset.

subscriptions ─▶ transports.webhook  ─▶ HTTP address of the subscriber
              ─▶ transports.brokered ─▶ our broker ─▶ MQTT and NATS clients (broker_clients, subscription_control)
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate import metrics
from sensegate.authority.callout import GuestOf
from sensegate.authority.egress import Egress
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import Trail
from sensegate.bus import api, streams
from sensegate.bus.connect import trust_certificate
from sensegate.bus.engine import User
from sensegate.bus.opening import Core
from sensegate.bus.server_conf import has_broker_tls
from sensegate.clock import Clock
from sensegate.errors import NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.share.broker_clients import MQTT, NATS, BrokerClients
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.delivery import FeedPage
from sensegate.share.metering import UsageReservation
from sensegate.share.pages import FeedPages
from sensegate.share.sharing import FeedRequest, Sharing
from sensegate.share.subscription_control import ControlReply, SubscriptionControl, problem_subject
from sensegate.share.subscriptions import (
    PROBLEM_TAG,
    CommittedOffset,
    NotifyExpired,
    OrphanedOffsets,
    PushParts,
    PushSubscription,
    PushSubscriptions,
    RetryPolicy,
    SubscriptionSpec,
    notify_nobody,
)
from sensegate.share.transports.brokered import MqttPublisher, MqttSessions, NatsPublisher, subject_of_topic
from sensegate.share.transports.contract import PushTransport
from sensegate.share.transports.outbound_mqtt import CONNECTIONS_MAX, OutboundBrokers
from sensegate.share.transports.webhook import open_webhooks
from sensegate.share.webhooks import Webhooks

CONTROL_SUBJECTS = "sg.control.*.*"
CLEAN_UP_INTERVAL_S = 3_600.0
_CONTROL_QUEUE_MAX = 10_000
"""Most queued control messages."""
_log = structlog.get_logger(__name__)


MakeSubscription = Callable[[PushTransport, SubscriptionSpec, NotifyExpired], PushSubscription]


class PushDelivery(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Delivery of feeds that are pushed to subscribers."""

    consumers: ActiveConsumers
    webhooks: Webhooks
    authorize: GuestOf
    """Admits clients of the broker that are subscribers."""
    take_control: Callable[[str, str, bytes], Awaitable[bool]]
    """(token, topic, payload): takes a control message by MQTT; returns whether the token may publish there."""
    topics: MqttPublisher
    """Publishes at the broker by MQTT."""
    poster: PushTransport
    """Posts to HTTP addresses of subscribers."""
    brokers: OutboundBrokers
    """Publishes at MQTT brokers of subscribers."""
    subscription: MakeSubscription
    """Makes the subscription of a feature; its id begins with one of `FeatureSpec.subscription_prefixes`, else its
    offset is taken for orphaned and deleted."""
    offsets: RecordTable[CommittedOffset]
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> task that runs as long as the gateway."""


async def open_push(
    core: Core,
    share: Sharing,
    tokens: Tokens,
    trail: Trail,
    stack: contextlib.AsyncExitStack,
    *,
    feature_prefixes: tuple[str, ...] = (),
) -> PushDelivery:
    """Load the committed offsets and webhooks, and open delivery to clients of the broker.

    Webhooks are in the bucket of sharing, which is copied to the centre; offsets are valid for this log alone.
    `feature_prefixes`: of ids of subscriptions whose features delete their offsets themselves.

    Raises:
        Unavailable: the engine or a bucket is not reached.
    """
    clock, egress = core.clock, core.config.egress
    offset_store, webhook_store = (
        RecordStore(await core.bucket("lines"), clock),
        RecordStore(await core.bucket("sharing"), clock),
    )
    offsets: RecordTable[CommittedOffset] = RecordTable(offset_store, "offset", CommittedOffset)
    consumers = ActiveConsumers(clock, lambda: share.reader.end)
    makers = _SubscriptionMaker(core, share, tokens, offsets, consumers)
    poster = await stack.enter_async_context(open_webhooks(Egress(egress.allow), clock, timeout_s=egress.timeout_s))
    executor = ThreadPoolExecutor(CONNECTIONS_MAX, thread_name_prefix="outbound-mqtt")
    stack.callback(executor.shutdown, wait=False, cancel_futures=True)
    webhook_subscriptions = PushSubscriptions(partial(makers.subscription, poster))
    webhooks = Webhooks(
        webhook_store,
        offsets,
        webhook_subscriptions,
        poster,
        trail,
        clock,
        may_see_token=partial(may_see_token, tokens),
    )
    await offset_store.open()
    await webhook_store.open()

    def has_owner(subscription: str) -> bool:
        if subscription.startswith(feature_prefixes):
            return True
        grant, dash, _ = subscription.rpartition("-")
        return (share.grants.find(grant) if dash else webhooks.records.find(subscription)) is not None

    clean_up = _CleanUp(webhooks, OrphanedOffsets(offsets, has_owner), tokens, clock)
    clients = await _open_broker(core, makers, stack)
    return PushDelivery(
        consumers=consumers,
        webhooks=webhooks,
        authorize=clients.authorize,
        take_control=clients.take_control,
        topics=clients.topics,
        poster=poster,
        brokers=OutboundBrokers(Egress(egress.allow), executor, egress.timeout_s),
        subscription=makers.subscription,
        offsets=offsets,
        tasks={
            "orphaned offsets": clean_up.run,
            "offset records": offset_store.run,
            "webhook records": webhook_store.run,
            "webhooks": webhook_subscriptions.run,
            **clients.tasks,
        },
    )


class _BrokerDelivery(msgspec.Struct, frozen=True, eq=False):
    authorize: GuestOf
    take_control: Callable[[str, str, bytes], Awaitable[bool]]
    topics: MqttPublisher
    tasks: Mapping[str, Callable[[], Awaitable[None]]]


async def _open_broker(core: Core, makers: _SubscriptionMaker, stack: contextlib.AsyncExitStack) -> _BrokerDelivery:
    """Open delivery to clients of the broker. Raises `Unavailable`."""
    engine = core.engine
    feeds = await engine.connect(User.FEEDS, name="feeds")
    stack.push_async_callback(feeds.close)
    await streams.ensure_subscriber_streams(feeds)
    settings = core.config.engine
    tls = settings.tls.cert_file if has_broker_tls(settings) else ""

    def credential() -> tuple[str, int, str, str]:
        credential, info = engine.credential(User.FEEDS), engine.info
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(info.mqtt_host, info.mqtt_host)  # noqa: S104 - compared with, not bound to
        return host, info.mqtt_port, credential.user, credential.password

    async def notify_expired(spec: SubscriptionSpec, reason: str, first: str) -> None:
        await _publish_reply(feeds, f"{spec.target}.{PROBLEM_TAG}", ControlReply(problem=reason, first=first))

    topics = MqttPublisher(MqttSessions(feeds), credential, trust_certificate(tls) if tls else None)
    subscriptions = {
        MQTT: PushSubscriptions(
            partial(makers.subscription, topics, notify_expired=notify_expired), wait_for_start=True
        ),
        NATS: PushSubscriptions(partial(makers.subscription, NatsPublisher(feeds), notify_expired=notify_expired)),
    }
    share, tokens = makers.share, makers.tokens
    clients = BrokerClients(engine, tokens, share.grants, core.clock, subscriptions)
    controls = SubscriptionControl(share.grants, share.reader, makers.offsets, subscriptions, tokens.principal)
    await _listen(feeds, controls)

    async def take_control(token: str, topic: str, payload: bytes) -> bool:
        subject = subject_of_topic(topic)
        if not clients.may_publish(token, subject):
            return False
        await _handle_control(feeds, controls, subject, payload)
        return True

    tasks = {
        "mqtt subscriptions": subscriptions[MQTT].run,
        "nats subscriptions": subscriptions[NATS].run,
        "subscribers": clients.run,
    }
    if engine.info.mqtt_port:
        tasks["mqtt outlet"] = topics.run
    return _BrokerDelivery(clients.authorize, take_control, topics, tasks)


async def _listen(feeds: Client, controls: SubscriptionControl) -> None:
    async def handle(message: Msg) -> None:
        await _handle_control(feeds, controls, message.subject, message.data, message.reply)

    with api.translate_client_errors("subscribe to control messages"):
        await feeds.subscribe(CONTROL_SUBJECTS, cb=handle, pending_msgs_limit=_CONTROL_QUEUE_MAX)
        await feeds.flush()


async def _handle_control(
    feeds: Client, controls: SubscriptionControl, subject: str, payload: bytes, answer_to: str = ""
) -> None:
    """Handle a control message, and publish the reply.

    Args:
        feeds: a connection of `User.FEEDS`.
        controls: handles it.
        subject: its subject.
        payload: its content.
        answer_to: reply subject; empty: the sender gave none.
    """
    reply = await controls.handle(subject, payload)
    if reply.problem:
        _log.info("control message rejected", subject=subject, reason=reply.problem)
    reply_subject = controls.reply_of(subject, answer_to)
    if answer_to and not reply_subject:
        _log.warning("control message not answered", subject=subject, reason="foreign reply subject")
        metrics.LIMIT_HITS.labels("control_reply").inc()
    if reply_subject or reply.problem:
        await _publish_reply(feeds, reply_subject or problem_subject(subject), reply)


class _SubscriptionMaker:
    """Makes push subscriptions, whichever way they are delivered."""

    def __init__(
        self,
        core: Core,
        share: Sharing,
        tokens: Tokens,
        offsets: RecordTable[CommittedOffset],
        consumers: ActiveConsumers,
    ) -> None:
        egress = core.config.egress
        self.share = share
        self.tokens = tokens
        self.offsets = offsets
        self._parts = PushParts(
            offsets,
            self._open_pages,
            core.clock,
            consumers,
            self._meter,
            RetryPolicy(egress.retry_initial_s, egress.retry_max_s, egress.failures_max),
            self._reserve,
        )

    def subscription(
        self, post: PushTransport, spec: SubscriptionSpec, notify_expired: NotifyExpired = notify_nobody
    ) -> PushSubscription:
        """Return a subscription that is delivered by a transport."""
        return PushSubscription(spec, post, self._parts, notify_expired=notify_expired)

    async def _open_pages(self, spec: SubscriptionSpec, form: str, after: str) -> FeedPages:
        def current_principal() -> Principal:
            return self.tokens.principal(spec.subscriber)

        return await self.share.open_pages(
            current_principal, FeedRequest(spec.feed, after), form=form, delivery=spec.delivery
        )

    def _reserve(self, spec: SubscriptionSpec, page: FeedPage) -> UsageReservation:
        metering = self.share.metering
        return metering.reserve(spec.subscriber, spec.feed, spec.delivery, page.count, grant=page.grant)

    def _meter(self, spec: SubscriptionSpec, page: FeedPage) -> None:
        self.share.metering.count(
            spec.subscriber,
            spec.feed,
            spec.delivery,
            requests=1,
            records=page.count,
            size=len(page.body),
            grant=page.grant,
        )


class _CleanUp:
    """Deletes webhooks of ended tokens and orphaned offsets."""

    def __init__(self, webhooks: Webhooks, orphans: OrphanedOffsets, tokens: Tokens, clock: Clock) -> None:
        self._webhooks = webhooks
        self._orphans = orphans
        self._tokens = tokens
        self._clock = clock

    async def run(self) -> None:
        """Delete them periodically, until cancelled."""
        while True:
            await self._clock.sleep(CLEAN_UP_INTERVAL_S)
            try:
                await self._webhooks.remove_ended(self._is_valid)
                await self._orphans.remove()
            except (Unavailable, Overloaded, StoreFull) as why:
                _log.warning("orphaned webhooks and offsets not deleted; retried later", reason=str(why))

    def _is_valid(self, token_id: str) -> bool:
        try:
            self._tokens.principal(token_id)
        except PermissionDenied:
            return False
        return True


def may_see_token(tokens: Tokens, token_id: str, principal: Principal) -> bool:
    """Return whether a caller may see and change what belongs to a token."""
    try:
        tokens.get(token_id, principal)
    except NotFound:
        return False
    return True


async def _publish_reply(feeds: Client, subject: str, reply: ControlReply) -> None:
    """Publish a reply to a subscriber; a lost one is not repeated."""
    try:
        with api.translate_client_errors("reply to a subscriber"):
            await feeds.publish(subject, msgspec.json.encode(reply))
    except Unavailable as why:
        _log.debug("reply to a subscriber lost", reason=str(why))
