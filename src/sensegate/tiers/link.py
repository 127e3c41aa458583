"""The transport between tiers: requests of members in the accounts of their slots, answered by the centre.

    node: CentreLink ── up.<slot>.<channel> ─▶ slot's account ─▶ NodeLinks: handler ── answer ─▶ _INBOX_<slot>.…

Each channel of a slot has a credit: a number of subscriptions of the centre, each limited to one message and renewed
before the answer is sent. A request beyond the credit meets no subscription, and the server itself answers "no
responders" (503): a flood costs neither the centre nor the other members more than that credit.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from functools import partial

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from sensegate import __version__, metrics
from sensegate.bus import api
from sensegate.bus.connect import BusClient
from sensegate.bus.slots import inbox_prefix, is_peer, request_subject
from sensegate.clock import Clock
from sensegate.config.sites import NodeQuotaConfig
from sensegate.errors import Fenced, Overloaded, PermissionDenied, SensegateError, StoreFull, Superseded, Unavailable
from sensegate.tiers import envelope
from sensegate.tiers.envelope import HELLO, PROTOCOL_VERSIONS, LinkAnswer, LinkRequest, MemberHello, Welcome
from sensegate.tiers.liveness import Liveness
from sensegate.tiers.members import release_fault
from sensegate.tiers.quota import SharedTime, TokenBucket

MemberId = str
Handler = Callable[[MemberId, bytes], Awaitable["bytes | None"]]
"""(member, request body) -> the answer; None: no answer, for the outcome is unknown or another centre is active.

Raises `SensegateError` to refuse, `Overloaded` to ask for a pause.
"""
Connect = Callable[..., Awaitable[BusClient]]
"""Connects the centre's own user in a slot, as `Engine.connect_slot` does."""

REQUEST_TIMEOUT_S = 10.0
RECONNECT_S = 0.5
RECONNECT_MAX_S = 10.0
CONNECTING_MAX = 16
"""Most connections that are opened at the same time."""
HOLD_MAX_S = 5.0
"""Longest time for which the subscription of a member over its quota is withheld."""
HOLD_FRACTION = 0.8
"""Fraction of the requested pause for which the subscription is withheld: a member that waits it out is served."""
TURN_BURST_S = 1.0
"""Time for which a member may use all of the centre's time before its share counts."""
TURN_WAIT_MAX_S = 1.0
"""Longest time for which a span waits for its turn."""
CONTENDED_S = 1.0
"""Time since the last span of another member after which nobody has to wait for a turn."""
QUOTA_RETRIES_MAX = 8
"""Most attempts of a question while the member is over its quota."""
REPLY_BYTES_MAX = 256
PROBE = "probe"
PROBE_TIMEOUT_S = 2.0
"""A process that has not answered a probe after this time is considered dead."""

_log = structlog.get_logger("tiers")


def connection_name(role: str, member: str) -> str:
    """Return the name of a connection to a centre; its last word is the release, which the centre checks."""
    return f"{role} {member} {__version__}"


class Channel(StrEnum):
    """Kinds of requests with a credit each, so that none waits for another."""

    LIVE = "live"
    BACKLOG = "backlog"
    QUESTIONS = "ask"
    CONTROL = "control"
    """Greetings and lease requests, which a standby answers as well."""


CREDIT: Mapping[Channel, int] = {Channel.LIVE: 1, Channel.BACKLOG: 1, Channel.QUESTIONS: 4, Channel.CONTROL: 2}
"""Most requests of a channel that a centre processes at once for one member."""
SPAN_CHANNELS = (Channel.LIVE, Channel.BACKLOG)
TURN_SHARE: Mapping[Channel, float] = {Channel.LIVE: 0.25, Channel.BACKLOG: 0.5}
"""Share of the time in which a centre processes spans of one member on a lane, while others send theirs."""
CONTROL_QUESTIONS = frozenset({HELLO, "lease"})


class MemberGreeting(msgspec.Struct, frozen=True):
    """The last greeting of a member."""

    hello: MemberHello
    version: int
    received_at: int
    """µs UTC."""


# ── the centre's side ───────────────────────────────────────────────────────────────────────────────────


class NodeLinks:
    """Restricted connections of the centre, one in each slot in use, and the handlers of what members ask there."""

    def __init__(
        self,
        connect: Connect,
        clock: Clock,
        *,
        quota: NodeQuotaConfig | None = None,
        term: Callable[[], int | None] = lambda: 0,
        active: bool = True,
    ) -> None:
        """Prepare the links; `run` connects.

        Args:
            connect: opens a connection in a slot.
            clock: source of time.
            quota: rates that one member may use.
            term: returns the term of this centre; None while it must stay silent because another may be active.
            active: whether this centre accepts spans; a standby answers `Channel.CONTROL` alone.
        """
        self._connect = connect
        self.clock = clock
        self.quota = quota or NodeQuotaConfig()
        self.term = term
        self.active = active
        self.handlers: dict[Channel, Handler] = {}
        self.answers: dict[str, Handler] = {HELLO: self._hello}
        """Question -> its handler."""
        self.greetings: dict[MemberId, MemberGreeting] = {}
        self.liveness = Liveness(clock)
        """Times at which members were last heard."""
        self.connecting = asyncio.Semaphore(CONNECTING_MAX)
        self._last_spans: dict[MemberId, float] = {}
        """Moment of the last span of each member (monotonic, s)."""
        self.span_time = SharedTime(clock)
        self._assigned: dict[str, MemberId] = {}
        self._slots: dict[str, tuple[MemberId, _SlotLink, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    def serve(self, channel: Channel, handler: Handler) -> None:
        """Set the handler of a channel; it is used from the next connection on."""
        self.handlers[channel] = handler

    def answer(self, *answers: Mapping[str, Handler]) -> None:
        """Have questions answered, each by one handler. Raises `ValueError` where a question has two."""
        for question, handler in (pair for mapping in answers for pair in mapping.items()):
            if question in self.answers:
                raise ValueError(f"question '{question}' has two handlers")
            self.answers[question] = handler

    def assign(self, slots: Mapping[str, MemberId]) -> None:
        """Set the slots in use and their members; `run` opens and closes connections accordingly."""
        self._assigned = dict(slots)
        self._changed.set()

    @property
    def connected(self) -> dict[str, MemberId]:
        """Slots in which the centre's own connection is open -> their members."""
        return {slot: member for slot, (member, link, _) in self._slots.items() if link.connected}

    async def run(self) -> None:
        """Keep a connection in each assigned slot until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._reconcile()
                await self._changed.wait()
        finally:
            self._assigned = {}
            await self._reconcile()

    async def _reconcile(self) -> None:
        removed = [slot for slot, (member, _, _) in self._slots.items() if self._assigned.get(slot) != member]
        tasks = [self._slots.pop(slot)[2] for slot in removed]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for slot, member in self._assigned.items():
            if slot not in self._slots:
                link = _SlotLink(self, slot, member)
                self._slots[slot] = member, link, asyncio.create_task(link.run(self._connect), name=f"slot {slot}")

    def channels(self) -> list[Channel]:
        """Return the channels that this centre answers."""
        if not self.active:
            return [Channel.CONTROL]
        return [Channel.CONTROL, Channel.QUESTIONS, *self.handlers]

    def note_span(self, member: MemberId) -> bool:
        """Note a span of a member; return whether another member has sent one within `CONTENDED_S`."""
        now = self.clock.monotonic()
        self._last_spans[member] = now
        return any(now - last < CONTENDED_S for other, last in self._last_spans.items() if other != member)

    async def probe(self, member: MemberId, token: str) -> bool:
        """Return whether the process of a member that claimed with this token answers now."""
        if not token.isalnum():
            return False
        for known, link, _ in self._slots.values():
            if known == member and await link.probe(token):
                return True
        return False

    async def _hello(self, member: MemberId, payload: bytes) -> bytes:
        try:
            hello = envelope.decode_hello(payload)
        except (msgspec.DecodeError, RecursionError) as why:
            raise PermissionDenied(f"hello: cannot be read ({why}); update the older one of the two") from why
        if hello.member != member:
            raise PermissionDenied(f"hello: this link is that of {member}, not of {hello.member[:32]}; join again")
        version = envelope.negotiated_version(hello.versions)
        if fault := release_fault(__version__, hello.release):
            raise PermissionDenied(f"hello: {fault}")
        self.greetings[member] = MemberGreeting(hello, version, self.clock.now())
        term = self.term()
        active = self.active and term is not None
        return envelope.encode(Welcome(version, __version__, term or 0, active, self.clock.now()))


class _SlotLink:
    """The centre's connection in one slot."""

    def __init__(self, links: NodeLinks, slot: str, member: MemberId) -> None:
        self._links = links
        self._slot = slot
        self._member = member
        self._clock = links.clock
        self._link: BusClient | None = None
        self._open = dict.fromkeys(Channel, 0)
        """Open subscriptions and requests in progress per channel: together at most its credit."""
        self._tasks: set[asyncio.Task[None]] = set()
        quota = links.quota
        # The peer centre replicates everything; a quota would only delay it.
        self._limited = not is_peer(slot)
        self._bytes = TokenBucket(quota.bytes_per_s, self._clock)
        self._spans = TokenBucket(quota.spans_per_s, self._clock)
        self._questions = TokenBucket(quota.questions_per_s, self._clock)
        self._turns = {
            channel: TokenBucket(share, self._clock, burst_s=TURN_BURST_S) for channel, share in TURN_SHARE.items()
        }
        """Centre's time that the spans of a lane may use, in seconds."""

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.is_connected

    async def run(self, connect: Connect) -> None:
        """Keep the connection until cancelled."""
        pause_s = RECONNECT_S
        try:
            while True:
                try:
                    async with self._links.connecting:
                        self._link = await connect(self._slot, on_reconnect=self._on_reconnect)
                    await self._arm_all()
                    pause_s = RECONNECT_S
                    await self._link.credentials_refused.wait()
                    await self._close()
                except (Unavailable, PermissionDenied) as why:
                    _log.warning("no connection in a node's account", slot=self._slot, reason=str(why))
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, RECONNECT_MAX_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._close()

    async def probe(self, token: str) -> bool:
        """Return whether a process answers; where none listens the server says so at once."""
        link = self._link
        if link is None or not link.is_connected:
            return False
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        reply = f"{request_subject(self._slot, PROBE)}.{secrets.token_hex(8)}"
        try:
            await link.subscribe(reply, future=answer, max_msgs=1)
            await link.publish(probe_subject(self._slot, token), b"", reply=reply)
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return (await answer).headers is None
        except (nats.errors.Error, OSError, TimeoutError):
            return False

    async def _close(self) -> None:
        link, self._link = self._link, None
        self._open = dict.fromkeys(Channel, 0)
        if link is not None:
            await link.close()

    # ── credit ──────────────────────────────────────────────────────────────────────────────────────

    def _start(self, name: str, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._on_task_done, name))

    def _on_task_done(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()):
            # A bug met by a member's request ends neither its link nor the process.
            metrics.NODE_DROPPED.labels(self._member, "failed").inc()
            _log.error("request of a node failed", member=self._member, channel=name, exc_info=bug)

    def _on_reconnect(self) -> None:
        self._start("reconnect", self._arm_all())

    async def _arm_all(self) -> None:
        for channel in self._links.channels():
            await self._arm(channel)

    async def _arm(self, channel: Channel) -> None:
        """Subscribe as often as the credit of a channel allows; if disconnected, on the next connection."""
        link = self._link
        while link is not None and link.is_connected and self._open[channel] < CREDIT[channel]:
            self._open[channel] += 1
            message: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
            message.add_done_callback(partial(self._on_message, channel, link))
            try:
                # Both commands leave in one write: no message comes between them.
                subscription = await link.subscribe(
                    request_subject(self._slot, channel), queue="centre", future=message, max_msgs=1
                )
                await subscription.unsubscribe(limit=1)
            except (nats.errors.Error, OSError) as why:
                self._open[channel] -= 1
                _log.debug("slot not subscribed", slot=self._slot, channel=channel, reason=str(why))
                return

    def _on_message(self, channel: Channel, link: BusClient, message: asyncio.Future[Msg]) -> None:
        if not message.cancelled() and link is self._link:
            self._links.liveness.note(self._member)
            self._start(channel, self._process(channel, message.result()))

    async def _process(self, channel: Channel, message: Msg) -> None:
        link = self._link
        hold_s = self._charge(channel, len(message.data))
        try:
            answer = (
                _answer(self._links.term(), retry_after_s=hold_s)
                if hold_s
                else await self._handle_in_turn(channel, message)
            )
            if hold_s:
                await self._respond(message, answer)
                await self._clock.sleep(min(HOLD_FRACTION * hold_s, HOLD_MAX_S))
        finally:
            if link is self._link:
                self._open[channel] -= 1
                await self._arm(channel)
        if not hold_s:
            await self._respond(message, answer)

    def _charge(self, channel: Channel, size: int) -> float:
        """Charge a request to the member's quota; return the seconds to wait where the quota is used up, else 0."""
        if not self._limited:
            return 0.0
        count = self._spans if channel in SPAN_CHANNELS else self._questions
        for name, bucket in (("bytes", self._bytes), (channel.value, count)):
            if wait_s := bucket.wait_s:
                metrics.NODE_LIMIT_HITS.labels(self._member, name).inc()
                return wait_s
        self._bytes.take(size)
        count.take(1)
        return 0.0

    async def _handle_in_turn(self, channel: Channel, message: Msg) -> LinkAnswer | None:
        """Handle a request; a span waits first where its member has used its share and others send spans, too.

        Without this a member that sends its spans back to back is always being served, and each span of the others
        waits for one of them.
        """
        turn = self._turns.get(channel)
        if turn is None or not self._limited or not self._links.note_span(self._member):
            return await self._handle(channel, message)
        if wait_s := turn.wait_s:
            metrics.NODE_LIMIT_HITS.labels(self._member, "turn").inc()
            await self._clock.sleep(min(wait_s, TURN_WAIT_MAX_S))
        mark = self._links.span_time.begin()
        try:
            return await self._handle(channel, message)
        finally:
            turn.take(self._links.span_time.end(mark))

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────

    async def _handle(self, channel: Channel, message: Msg) -> LinkAnswer | None:
        """Return the answer to a request; None: it gets no answer."""
        term = self._links.term()
        answer = None
        if term is not None or channel is Channel.CONTROL:
            answer = await self._call_handler(channel, message.data, term)
        # Another centre may have become active meanwhile.
        silent = channel is not Channel.CONTROL and self._links.term() != term
        return None if silent else answer

    async def _call_handler(self, channel: Channel, payload: bytes, term: int | None) -> LinkAnswer | None:
        try:
            request = envelope.decode_request(payload)
            value = await self._handler(channel, request)(self._member, request.body)
        except Overloaded as why:
            return _answer(term, unavailable=str(why), retry_after_s=max(why.retry_after_s, 0.01))
        except (Unavailable, Fenced, Superseded, StoreFull) as why:
            if channel in SPAN_CHANNELS and not isinstance(why, StoreFull):
                return None  # whether the span stands on the log is not known
            return _answer(term, unavailable=str(why) or type(why).__name__)
        except (SensegateError, ValueError, RecursionError) as why:  # the last two come from decoders
            return _answer(term, refusal=str(why) or type(why).__name__)
        return None if value is None else _answer(term, value=value)

    def _handler(self, channel: Channel, request: LinkRequest) -> Handler:
        """Return the handler of a request. Raises `PermissionDenied` where there is none."""
        if request.version not in PROTOCOL_VERSIONS and request.question != HELLO:
            raise PermissionDenied(envelope.version_mismatch([request.version]))
        if channel in SPAN_CHANNELS:
            return self._links.handlers[channel]
        is_control = request.question in CONTROL_QUESTIONS
        handler = self._links.answers.get(request.question)
        if handler is None or is_control != (channel is Channel.CONTROL):
            raise PermissionDenied(f"this centre does not know the question '{request.question[:32]}'; update it")
        return handler

    async def _respond(self, message: Msg, answer: LinkAnswer | None) -> None:
        if answer is None or self._link is None:
            return
        reply = message.reply
        if not reply.startswith(f"{inbox_prefix(self._slot)}.") or len(reply) > REPLY_BYTES_MAX:
            # The server would not let us publish there either; this makes the attempt visible.
            metrics.NODE_DROPPED.labels(self._member, "reply").inc()
            _log.warning("request of a node dropped: reply outside its inbox", member=self._member, reply=reply[:64])
            return
        try:
            with api.translate_client_errors("answer a node"):
                await self._link.publish(reply, envelope.encode(answer))
        except Unavailable as why:
            _log.debug("answer to a node not sent", member=self._member, reason=str(why))


def _answer(
    term: int | None, *, value: bytes = b"", refusal: str = "", unavailable: str = "", retry_after_s: float = 0.0
) -> LinkAnswer:
    return LinkAnswer(PROTOCOL_VERSIONS[-1], term or 0, value, refusal, unavailable, retry_after_s)


def probe_subject(slot: str, token: str) -> str:
    """Return the subject on which a process answers probes."""
    return f"down.{slot}.writer.{token}"


async def _answer_probe(message: Msg) -> None:
    try:
        await message.respond(b"")
    except nats.errors.Error as why:
        _log.debug("probe not answered", reason=str(why))


# ── the node's side ─────────────────────────────────────────────────────────────────────────────────────


class CentreLink:
    """A member's requests to its centre over one connection."""

    def __init__(
        self, connection: BusClient, *, slot: str, member: MemberId, term: Callable[[], int] = lambda: 0
    ) -> None:
        """Wrap a connection of a member in its slot; `term` returns the highest centre term that the member knows."""
        self.connection = connection
        self._slot = slot
        self._member = member
        self._known_term = term
        self._seen_term = 0
        self._version = PROTOCOL_VERSIONS[0]
        self._credit = {channel: asyncio.Semaphore(CREDIT[channel]) for channel in Channel}

    @property
    def term(self) -> int:
        """Highest known term of a centre."""
        return max(self._known_term(), self._seen_term)

    @property
    def payload_bytes_max(self) -> int:
        """Largest body of a request."""
        return self.connection.max_payload - envelope.ENVELOPE_BYTES

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()

    async def hello(self, *, writer: str = "", writer_epoch: int = 0, timeout_s: float = REQUEST_TIMEOUT_S) -> Welcome:
        """Greet the centre and agree on a protocol version.

        Raises:
            Unavailable: no answer came.
            PermissionDenied: no common version, or releases too far apart; the text names both.
        """
        hello = MemberHello(PROTOCOL_VERSIONS, __version__, self._member, self.term, writer, writer_epoch)
        answer = await self.ask(HELLO, envelope.encode(hello), timeout_s)
        try:
            welcome = envelope.decode_welcome(answer)
        except (msgspec.DecodeError, RecursionError) as why:
            raise Unavailable(f"the centre's welcome cannot be read: {why}") from why
        if welcome.version not in PROTOCOL_VERSIONS:
            raise PermissionDenied(envelope.version_mismatch([welcome.version]))
        self._version = welcome.version
        return welcome

    async def answer_probes(self, token: str) -> None:
        """Answer the centre's probes for the process that claims with this token. Raises `Unavailable`."""
        with api.translate_client_errors("subscribe to probes"):
            await self.connection.subscribe(probe_subject(self._slot, token), cb=_answer_probe)

    async def ask(self, question: str, payload: bytes = b"", timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Return the centre's answer to a question.

        Raises:
            Unavailable: no answer came; whether the centre received the question is not known.
            PermissionDenied: the centre refused; the text says why.
            Overloaded: this member is over its quota; nothing was processed.
        """
        channel = Channel.CONTROL if question in CONTROL_QUESTIONS else Channel.QUESTIONS
        return await self._request(channel, question, payload, timeout_s)

    async def ask_with_retries(self, question: str, payload: bytes = b"", *, clock: Clock) -> bytes:
        """Return the centre's answer to a question; wait and try again while this member is over its quota.

        Raises:
            Unavailable, PermissionDenied: as `ask`.
        """
        for _ in range(QUOTA_RETRIES_MAX):
            try:
                return await self.ask(question, payload)
            except Overloaded as why:
                await clock.sleep(why.retry_after_s)
        raise Unavailable(f"the centre does not answer '{question}' now: this node is over its quota")

    async def send_span(self, lane: Channel | str, payload: bytes, timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Return the centre's answer to a span of a lane (`live` or `backlog`).

        Raises:
            Unavailable: the outcome is unknown.
            PermissionDenied: the centre refused the span.
            Overloaded: nothing was stored; send it again after `retry_after_s`.
        """
        return await self._request(Channel(lane), "span", payload, timeout_s)

    async def _request(self, channel: Channel, question: str, payload: bytes, timeout_s: float) -> bytes:
        request = envelope.encode(LinkRequest(self._version, self.term, question, payload))
        async with self._credit[channel]:
            with api.translate_client_errors(f"the centre did not answer '{question}'"):
                message = await self.connection.request(
                    request_subject(self._slot, channel), request, timeout=timeout_s
                )
        answer = envelope.decode_answer(message.data)
        if channel is not Channel.CONTROL:
            if answer.term < self.term:
                raise Unavailable(f"an answer of term {answer.term} was dropped: a centre of term {self.term} is known")
            self._seen_term = max(self._seen_term, answer.term)
        if answer.retry_after_s:
            raise Overloaded(answer.unavailable or "the centre asks for a pause", retry_after_s=answer.retry_after_s)
        if answer.unavailable:
            raise Unavailable(f"the centre cannot answer '{question}' now: {answer.unavailable}")
        if answer.refusal:
            raise PermissionDenied(answer.refusal)
        return answer.value
