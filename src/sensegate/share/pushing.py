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
from sensegate.bus.connect import trust_certificate
from sensegate.bus.engine import Engine, User
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.ports import Post
from sensegate.publish.brokered import Sessions, Subjects, Topics
from sensegate.publish.egress import Egress
from sensegate.publish.webhook import Poster
from sensegate.share.controls import Answer, Controls, told_at
from sensegate.share.guests import MQTT, NATS, Guests
from sensegate.share.hooks import Hooks
from sensegate.share.lines import PROBLEM, Limits, Line, Lines, Mark, Page, Sweep, Terms, Told, nobody
from sensegate.share.metering import Cover
from sensegate.share.pages import Pages
from sensegate.share.roll import Roll
from sensegate.share.sharing import FeedRequest, Sharing

CONTROL = "sg.control.*.*"
SWEEP_S = 3_600.0
_CONTROLS_MAX = 10_000
"""Most control messages that wait to be taken."""
_log = structlog.get_logger("pushing")


class Pushing:
    """All that goes out to subscribers by itself."""

    def __init__(self, config: Config, clock: Clock, share: Sharing, tokens: Tokens, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.share = share
        self.tokens = tokens
        self.trail = trail
        self.roll = Roll(clock, lambda: share.reader.end)
        egress = config.egress
        self.limits = Limits(egress.retry_first_s, egress.retry_longest_s, egress.failures_max)
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}

    async def open(self, bucket: Bucket, sharing: Bucket, stack: contextlib.AsyncExitStack) -> None:
        """Open the shelf of places and the ways out; what was pushed before goes on.

        Webhooks stand in the bucket of sharing, of which the centre keeps a copy; places are of this log alone.
        """
        clock, egress = self.clock, self.config.egress
        shelf, kept = Shelf(bucket, clock), Shelf(sharing, clock)
        self.marks: Records[Mark] = Records(shelf, "mark", Mark)
        poster = await stack.enter_async_context(Poster(Egress(egress.allow), clock, timeout_s=egress.timeout_s))
        webhooks = Lines(partial(self._line, poster))
        self.hooks = Hooks(kept, self.marks, webhooks, poster, self.trail, clock, visible=self._visible)
        await shelf.open()
        await kept.open()
        self.places = Sweep(self.marks, self._owned)
        self.tasks["places"] = self._sweep
        self.tasks |= {"lines shelf": shelf.run, "webhooks shelf": kept.run, "webhooks": webhooks.run}

    async def open_broker(self, engine: Engine, callout: Callout, stack: contextlib.AsyncExitStack) -> None:
        """Open the way to those who listen at our broker; from now on they may come in. Raises `Unavailable`."""
        feeds = await engine.connect(User.FEEDS, name="feeds")
        stack.push_async_callback(feeds.close)
        await streams.ensure_subscriber_streams(feeds)
        tls = self.config.engine.tls.cert_file

        def credential() -> tuple[str, int, str, str]:
            ours, info = engine.credential(User.FEEDS), engine.info
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(info.mqtt_host, info.mqtt_host)  # noqa: S104 - read, not bound
            return host, info.mqtt_port, ours.user, ours.password

        async def told(terms: Terms, why: str, first: str) -> None:
            await _said(feeds, f"{terms.to}.{PROBLEM}", Answer(problem=why, first=first))

        topics = Topics(Sessions(feeds), credential, trust_certificate(tls) if tls else None)
        lines = {
            MQTT: Lines(partial(self._line, topics, told=told), asked=True),
            NATS: Lines(partial(self._line, Subjects(feeds), told=told)),
        }
        guests = Guests(engine, self.tokens, self.share.grants, self.clock, lines)
        controls = Controls(self.share.grants, self.share.reader, self.marks, lines, self.tokens.of)
        await self._listen(feeds, controls)
        callout.guests.append(guests.guest_of)
        self.tasks |= {
            "mqtt lines": lines[MQTT].run,
            "nats lines": lines[NATS].run,
            "subscribers": guests.run,
        }
        if engine.info.mqtt_port:
            self.tasks["mqtt outlet"] = topics.run

    async def _listen(self, feeds: Client, controls: Controls) -> None:
        async def told(message: Msg) -> None:
            answer = await controls.take(message.subject, message.data)
            if answer.problem:
                _log.info("a control message moved nothing", subject=message.subject, why=answer.problem)
            reply = controls.reply_of(message.subject, message.reply)
            if message.reply and not reply:
                _log.warning("reply of a control message is not the subscriber's inbox", subject=message.subject)
                metrics.LIMITED.labels("control_reply").inc()
            if reply or answer.problem:
                await _said(feeds, reply or told_at(message.subject), answer)

        with api.translate_client_errors("subscribe to control messages"):
            await feeds.subscribe(CONTROL, cb=told, pending_msgs_limit=_CONTROLS_MAX)
            await feeds.flush()

    def _line(self, post: Post, terms: Terms, told: Told = nobody) -> Line:
        return Line(
            terms,
            self.marks,
            self._opened,
            post,
            self.clock,
            roll=self.roll,
            metered=self._metered,
            covered=self._covered,
            limits=self.limits,
            told=told,
        )

    async def _opened(self, terms: Terms, form: str, after: str) -> Pages:
        def still() -> Principal:
            return self.tokens.of(terms.subscriber)

        return await self.share.open_pages(still, FeedRequest(terms.feed, after), form=form, delivery=terms.delivery)

    def _covered(self, terms: Terms, page: Page) -> Cover:
        metering = self.share.metering
        return metering.covered(terms.subscriber, terms.feed, terms.delivery, page.count, grant=page.grant)

    def _metered(self, terms: Terms, page: Page) -> None:
        self.share.metering.count(
            terms.subscriber,
            terms.feed,
            terms.delivery,
            requests=1,
            records=page.count,
            size=len(page.body),
            grant=page.grant,
        )

    async def _sweep(self) -> None:
        """Remove what belongs to nobody any more, every hour, until cancelled."""
        while True:
            await self.clock.sleep(SWEEP_S)
            try:
                await self.hooks.sweep(self._good)
                await self.places.look()
            except (Unavailable, Overloaded, StoreFull) as why:
                _log.warning("what belongs to nobody is removed later", cause=str(why))

    def _good(self, token_id: str) -> bool:
        try:
            self.tokens.of(token_id)
        except PermissionDenied:
            return False
        return True

    def _owned(self, line: str) -> bool:
        grant, dash, _ = line.rpartition("-")
        return (self.share.grants.find(grant) if dash else self.hooks.records.find(line)) is not None

    def _visible(self, token_id: str, principal: Principal) -> bool:
        try:
            self.tokens.get(token_id, principal)
        except NotFound:
            return False
        return True


async def _said(feeds: Client, subject: str, answer: Answer) -> None:
    """Say something to one subscriber; who does not hear it may ask again."""
    try:
        with api.translate_client_errors("tell a subscriber"):
            await feeds.publish(subject, msgspec.json.encode(answer))
    except Unavailable as why:
        _log.debug("a subscriber is not told", cause=str(why))
