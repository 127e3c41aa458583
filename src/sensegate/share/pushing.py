"""Wiring of feeds that are pushed to subscribers, each line from a place that is kept.

share.lines ─▶ publish.webhook  ─▶ the subscriber's own HTTP address
            ─▶ publish.brokered ─▶ our broker ─▶ who listens there by MQTT or NATS (share.guests, share.controls)
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
from sensegate.authority.scope import Principal
from sensegate.authority.shelf import Records, Shelf
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import Trail
from sensegate.bus import api, streams
from sensegate.bus.connect import trust
from sensegate.bus.engine import Engine, User
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.ports import PushTransport
from sensegate.publish.brokered import Sessions, Subjects, Topics
from sensegate.publish.egress import Egress
from sensegate.publish.webhook import Poster
from sensegate.share.broker_clients import MQTT, NATS, BrokerClients
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.metering import UsageReservation
from sensegate.share.pages import Pages
from sensegate.share.sharing import FeedRequest, Sharing
from sensegate.share.subscription_control import ControlReply, SubscriptionControl, problem_subject
from sensegate.share.subscriptions import (
    PROBLEM_TAG,
    CommittedOffset,
    NotifyExpired,
    OrphanedOffsets,
    Page,
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
"""Most control messages that wait to be taken."""
_log = structlog.get_logger("pushing")


class PushDelivery:
    """All that goes out to subscribers by itself."""

    def __init__(self, config: Config, clock: Clock, share: Sharing, tokens: Tokens, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.share = share
        self.tokens = tokens
        self.trail = trail
        self.consumers = ActiveConsumers(clock, lambda: share.reader.end)
        egress = config.egress
        self.retry = RetryPolicy(egress.retry_first_s, egress.retry_longest_s, egress.failures_max)
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}

    async def open(self, bucket: Bucket, sharing: Bucket, stack: contextlib.AsyncExitStack) -> None:
        """Open the shelf of places and the ways out; what was pushed before goes on.

        Webhooks stand in the bucket of sharing, of which the centre keeps a copy; places are of this log alone.
        """
        clock, egress = self.clock, self.config.egress
        shelf, kept = Shelf(bucket, clock), Shelf(sharing, clock)
        self.offsets: Records[CommittedOffset] = Records(shelf, "mark", CommittedOffset)
        poster = await stack.enter_async_context(Poster(Egress(egress.allow), clock, timeout_s=egress.timeout_s))
        webhooks = PushSubscriptions(partial(self._subscription, poster))
        self.webhooks = Webhooks(
            kept, self.offsets, webhooks, poster, self.trail, clock, may_see_token=self._may_see_token
        )
        await shelf.open()
        await kept.open()
        self.orphans = OrphanedOffsets(self.offsets, self._has_owner)
        self.tasks["places"] = self._clean_up
        self.tasks |= {"lines shelf": shelf.run, "webhooks shelf": kept.run, "webhooks": webhooks.run}

    async def open_broker(self, engine: Engine, callout: Callout, stack: contextlib.AsyncExitStack) -> None:
        """Open the way to those who listen at our broker; from now on they may come in. Raises `Unavailable`."""
        feeds = await engine.connect(User.FEEDS, name="feeds")
        stack.push_async_callback(feeds.close)
        await streams.ensure_outlet(feeds)
        tls = self.config.engine.tls.cert_file

        def credential() -> tuple[str, int, str, str]:
            ours, info = engine.credential(User.FEEDS), engine.info
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(info.mqtt_host, info.mqtt_host)  # noqa: S104 - read, not bound
            return host, info.mqtt_port, ours.user, ours.password

        async def told(terms: SubscriptionSpec, why: str, first: str) -> None:
            await _publish_reply(feeds, f"{terms.target}.{PROBLEM_TAG}", ControlReply(problem=why, first=first))

        topics = Topics(Sessions(feeds), credential, trust(tls) if tls else None)
        lines = {
            MQTT: PushSubscriptions(partial(self._subscription, topics, told=told), wait_for_start=True),
            NATS: PushSubscriptions(partial(self._subscription, Subjects(feeds), told=told)),
        }
        guests = BrokerClients(engine, self.tokens, self.share.grants, self.clock, lines)
        controls = SubscriptionControl(self.share.grants, self.share.reader, self.offsets, lines, self.tokens.of)
        await self._listen(feeds, controls)
        callout.guests.append(guests.authorize)
        self.tasks |= {
            "mqtt lines": lines[MQTT].run,
            "nats lines": lines[NATS].run,
            "subscribers": guests.run,
        }
        if engine.info.mqtt_port:
            self.tasks["mqtt outlet"] = topics.run

    async def _listen(self, feeds: Client, controls: SubscriptionControl) -> None:
        async def told(message: Msg) -> None:
            answer = await controls.handle(message.subject, message.data)
            if answer.problem:
                _log.info("a control message moved nothing", subject=message.subject, why=answer.problem)
            reply = controls.reply_of(message.subject, message.reply)
            if message.reply and not reply:
                _log.warning("reply of a control message is not the subscriber's inbox", subject=message.subject)
                metrics.LIMITED.labels("control_reply").inc()
            if reply or answer.problem:
                await _publish_reply(feeds, reply or problem_subject(message.subject), answer)

        with api.lost("subscribe to control messages"):
            await feeds.subscribe(CONTROL_SUBJECTS, cb=told, pending_msgs_limit=_CONTROL_QUEUE_MAX)
            await feeds.flush()

    def _subscription(
        self, post: PushTransport, terms: SubscriptionSpec, told: NotifyExpired = notify_nobody
    ) -> PushSubscription:
        return PushSubscription(
            terms,
            self.offsets,
            self._open_pages,
            post,
            self.clock,
            consumers=self.consumers,
            meter=self._meter,
            reserve=self._reserve,
            retry=self.retry,
            notify_expired=told,
        )

    async def _open_pages(self, terms: SubscriptionSpec, form: str, after: str) -> Pages:
        def still() -> Principal:
            return self.tokens.of(terms.subscriber)

        return await self.share.open_pages(still, FeedRequest(terms.feed, after), form=form, delivery=terms.delivery)

    def _reserve(self, terms: SubscriptionSpec, page: Page) -> UsageReservation:
        metering = self.share.metering
        return metering.reserve(terms.subscriber, terms.feed, terms.delivery, page.count, grant=page.grant)

    def _meter(self, terms: SubscriptionSpec, page: Page) -> None:
        self.share.metering.count(
            terms.subscriber,
            terms.feed,
            terms.delivery,
            requests=1,
            records=page.count,
            size=len(page.body),
            grant=page.grant,
        )

    async def _clean_up(self) -> None:
        """Remove what belongs to nobody any more, every hour, until cancelled."""
        while True:
            await self.clock.sleep(CLEAN_UP_INTERVAL_S)
            try:
                await self.webhooks.remove_ended(self._is_valid)
                await self.orphans.remove()
            except (Unavailable, Overloaded, StoreFull) as why:
                _log.warning("what belongs to nobody is removed later", cause=str(why))

    def _is_valid(self, token_id: str) -> bool:
        try:
            self.tokens.of(token_id)
        except PermissionDenied:
            return False
        return True

    def _has_owner(self, line: str) -> bool:
        grant, dash, _ = line.rpartition("-")
        return (self.share.grants.find(grant) if dash else self.webhooks.records.find(line)) is not None

    def _may_see_token(self, token_id: str, principal: Principal) -> bool:
        try:
            self.tokens.get(token_id, principal)
        except NotFound:
            return False
        return True


async def _publish_reply(feeds: Client, subject: str, answer: ControlReply) -> None:
    """Say something to one subscriber; who does not hear it may ask again."""
    try:
        with api.lost("tell a subscriber"):
            await feeds.publish(subject, msgspec.json.encode(answer))
    except Unavailable as why:
        _log.debug("a subscriber is not told", cause=str(why))
