"""Wiring of push delivery: each subscription from its committed offset.

share.subscriptions ─▶ publish.webhook  ─▶ HTTP address of the subscriber
                    ─▶ publish.brokered ─▶ our broker ─▶ MQTT and NATS clients (broker_clients, subscription_control)
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate import metrics
from sensegate.authority.bucket import Bucket
from sensegate.authority.callout import Callout
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Principal
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import Trail
from sensegate.bus import api, streams
from sensegate.bus.connect import trust
from sensegate.bus.engine import Engine, User
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.ports import PushTransport
from sensegate.publish.brokered import MqttPublisher, MqttSessions, NatsPublisher
from sensegate.publish.egress import Egress
from sensegate.publish.webhook import WebhookPublisher
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
    PushSubscription,
    PushSubscriptions,
    RetryPolicy,
    SubscriptionSpec,
    notify_nobody,
)
from sensegate.share.webhooks import Webhooks

CONTROL_SUBJECTS = "sg.control.*.*"
CLEAN_UP_INTERVAL_S = 3_600.0
_CONTROL_QUEUE_MAX = 10_000
"""Most queued control messages."""
_log = structlog.get_logger(__name__)


class PushDelivery:
    """Delivery of feeds that are pushed to subscribers."""

    def __init__(self, config: Config, clock: Clock, share: Sharing, tokens: Tokens, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.share = share
        self.tokens = tokens
        self.trail = trail
        self.consumers = ActiveConsumers(clock, lambda: share.reader.end)
        egress = config.egress
        self.retry = RetryPolicy(egress.retry_initial_s, egress.retry_max_s, egress.failures_max)
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}

    async def open(self, bucket: Bucket, sharing: Bucket, stack: contextlib.AsyncExitStack) -> None:
        """Load the committed offsets and webhooks, and continue their subscriptions.

        Webhooks are in the bucket of sharing, which is copied to the centre; offsets are valid for this log alone.
        """
        clock, egress = self.clock, self.config.egress
        offset_shelf, webhook_shelf = RecordStore(bucket, clock), RecordStore(sharing, clock)
        self.offsets: RecordTable[CommittedOffset] = RecordTable(offset_shelf, "offset", CommittedOffset)
        poster = await stack.enter_async_context(
            WebhookPublisher(Egress(egress.allow), clock, timeout_s=egress.timeout_s)
        )
        webhooks = PushSubscriptions(partial(self._subscription, poster))
        self.webhooks = Webhooks(
            webhook_shelf, self.offsets, webhooks, poster, self.trail, clock, may_see_token=self._may_see_token
        )
        await offset_shelf.open()
        await webhook_shelf.open()
        self.orphans = OrphanedOffsets(self.offsets, self._has_owner)
        self.tasks["orphaned offsets"] = self._clean_up
        self.tasks |= {
            "offset records": offset_shelf.run,
            "webhook records": webhook_shelf.run,
            "webhooks": webhooks.run,
        }

    async def open_broker(self, engine: Engine, callout: Callout, stack: contextlib.AsyncExitStack) -> None:
        """Open delivery to clients of the broker; from now on they may connect. Raises `Unavailable`."""
        feeds = await engine.connect(User.FEEDS, name="feeds")
        stack.push_async_callback(feeds.close)
        await streams.ensure_outlet(feeds)
        tls = self.config.engine.tls.cert_file

        def credential() -> tuple[str, int, str, str]:
            credential, info = engine.credential(User.FEEDS), engine.info
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(info.mqtt_host, info.mqtt_host)  # noqa: S104 - compared with, not bound to
            return host, info.mqtt_port, credential.user, credential.password

        async def notify_expired(spec: SubscriptionSpec, reason: str, first: str) -> None:
            await _publish_reply(feeds, f"{spec.target}.{PROBLEM_TAG}", ControlReply(problem=reason, first=first))

        topics = MqttPublisher(MqttSessions(feeds), credential, trust(tls) if tls else None)
        subscriptions = {
            MQTT: PushSubscriptions(
                partial(self._subscription, topics, notify_expired=notify_expired), wait_for_start=True
            ),
            NATS: PushSubscriptions(partial(self._subscription, NatsPublisher(feeds), notify_expired=notify_expired)),
        }
        clients = BrokerClients(engine, self.tokens, self.share.grants, self.clock, subscriptions)
        controls = SubscriptionControl(
            self.share.grants, self.share.reader, self.offsets, subscriptions, self.tokens.principal
        )
        await self._listen(feeds, controls)
        callout.guests.append(clients.authorize)
        self.tasks |= {
            "mqtt subscriptions": subscriptions[MQTT].run,
            "nats subscriptions": subscriptions[NATS].run,
            "subscribers": clients.run,
        }
        if engine.info.mqtt_port:
            self.tasks["mqtt outlet"] = topics.run

    async def _listen(self, feeds: Client, controls: SubscriptionControl) -> None:
        async def handle(message: Msg) -> None:
            reply = await controls.handle(message.subject, message.data)
            if reply.problem:
                _log.info("control message rejected", subject=message.subject, reason=reply.problem)
            reply_subject = controls.reply_of(message.subject, message.reply)
            if message.reply and not reply_subject:
                _log.warning("control message not answered", subject=message.subject, reason="foreign reply subject")
                metrics.LIMIT_HITS.labels("control_reply").inc()
            if reply_subject or reply.problem:
                await _publish_reply(feeds, reply_subject or problem_subject(message.subject), reply)

        with api.lost("subscribe to control messages"):
            await feeds.subscribe(CONTROL_SUBJECTS, cb=handle, pending_msgs_limit=_CONTROL_QUEUE_MAX)
            await feeds.flush()

    def _subscription(
        self, post: PushTransport, spec: SubscriptionSpec, notify_expired: NotifyExpired = notify_nobody
    ) -> PushSubscription:
        return PushSubscription(
            spec,
            self.offsets,
            self._open_pages,
            post,
            self.clock,
            consumers=self.consumers,
            meter=self._meter,
            reserve=self._reserve,
            retry=self.retry,
            notify_expired=notify_expired,
        )

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

    async def _clean_up(self) -> None:
        """Delete webhooks of ended tokens and orphaned offsets periodically, until cancelled."""
        while True:
            await self.clock.sleep(CLEAN_UP_INTERVAL_S)
            try:
                await self.webhooks.remove_ended(self._is_valid)
                await self.orphans.remove()
            except (Unavailable, Overloaded, StoreFull) as why:
                _log.warning("orphaned webhooks and offsets not deleted; retried later", reason=str(why))

    def _is_valid(self, token_id: str) -> bool:
        try:
            self.tokens.principal(token_id)
        except PermissionDenied:
            return False
        return True

    def _has_owner(self, subscription: str) -> bool:
        grant, dash, _ = subscription.rpartition("-")
        return (self.share.grants.find(grant) if dash else self.webhooks.records.find(subscription)) is not None

    def _may_see_token(self, token_id: str, principal: Principal) -> bool:
        try:
            self.tokens.get(token_id, principal)
        except NotFound:
            return False
        return True


async def _publish_reply(feeds: Client, subject: str, reply: ControlReply) -> None:
    """Publish a reply to a subscriber; a lost one is not repeated."""
    try:
        with api.lost("reply to a subscriber"):
            await feeds.publish(subject, msgspec.json.encode(reply))
    except Unavailable as why:
        _log.debug("reply to a subscriber lost", reason=str(why))
