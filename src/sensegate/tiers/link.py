"""The transport between tiers: requests of members in the accounts of their slots, answered by the centre.

    node: CentreLink ── up.<slot>.<channel> ─▶ slot's account ─▶ NodeLinks: handler ── answer ─▶ _INBOX_<slot>.…

Each channel of a slot has a credit: so many subscriptions of the centre, each limited to one message and made anew
before the answer is sent. What a member sends beyond it meets no subscription, and the server itself answers that
nobody is there (503): a flood costs neither the centre nor the other members more than its credit.
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
from sensegate.tiers.envelope import FORMS, HELLO, LinkAnswer, LinkRequest, MemberHello, Welcome
from sensegate.tiers.members import version_fault
from sensegate.tiers.quota import TokenBucket

MemberId = str
Handler = Callable[[MemberId, bytes], Awaitable["bytes | None"]]
"""(member, what it sent) -> the answer; None: stay silent, for the outcome is unknown or another centre is active.

Raises `SensegateError` to refuse; `Overloaded` asks for a pause.
"""
Connect = Callable[..., Awaitable[BusClient]]
"""Connects the centre's own user in a slot: `Engine.connect_slot`."""

ASK_S = 10.0
CONNECT_AGAIN_S = 0.5
CONNECT_AGAIN_MAX_S = 10.0
CONNECTING_MAX = 16
"""Most connections that are opened at once."""
HOLD_MAX_S = 5.0
"""Longest time for which a member over its quota meets no subscription."""
HELD = 0.8
"""Part of the pause that a member is asked for: who comes back in time is heard."""
ASK_AGAIN_MAX = 8
"""A question that meets the quota is asked so often."""
REPLY_BYTES_MAX = 256
PROBE = "probe"
PROBE_S = 2.0
"""A process that does not answer for so long is taken for dead."""

_log = structlog.get_logger("tiers")


class Channel(StrEnum):
    """What is asked apart from the others, so that none waits for another."""

    LIVE = "live"
    BACKLOG = "backlog"
    QUESTIONS = "ask"
    CONTROL = "control"
    """Greetings, and questions which centre is active: answered by a standby as well."""


CREDIT: Mapping[Channel, int] = {Channel.LIVE: 1, Channel.BACKLOG: 1, Channel.QUESTIONS: 4, Channel.CONTROL: 2}
"""Most requests of a channel that a centre works on for one member."""
SPANS = (Channel.LIVE, Channel.BACKLOG)
CONTROL_QUESTIONS = frozenset({HELLO, "lease"})


class Greeting(msgspec.Struct, frozen=True):
    """What a member told when it connected last."""

    hello: MemberHello
    form: int
    at: int
    """µs UTC."""


# ── the centre's side ───────────────────────────────────────────────────────────────────────────────────


class NodeLinks:
    """A restricted connection in each slot in use, and what is answered there."""

    def __init__(
        self,
        connect: Connect,
        clock: Clock,
        *,
        quota: NodeQuotaConfig | None = None,
        term: Callable[[], int | None] = lambda: 0,
        active: bool = True,
    ) -> None:
        """Connect to nothing yet.

        Args:
            connect: opens a connection in a slot.
            clock: the time.
            quota: what one member may ask.
            term: returns the term of this centre; None while it must stay silent, for another one may be active.
            active: whether this centre takes spans; a standby answers what belongs to `Channel.CONTROL` alone.
        """
        self._connect = connect
        self.clock = clock
        self.quota = quota or NodeQuotaConfig()
        self.term = term
        self.active = active
        self.handlers: dict[Channel, Handler] = {}
        self.answers: dict[str, Handler] = {HELLO: self._hello}
        """Question -> what answers it."""
        self.greetings: dict[MemberId, Greeting] = {}
        self.connecting = asyncio.Semaphore(CONNECTING_MAX)
        self._wanted: dict[str, MemberId] = {}
        self._slots: dict[str, tuple[MemberId, _SlotLink, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    def serve(self, channel: Channel, handler: Handler) -> None:
        """Have the requests of a channel answered by a handler, from when the next connection is opened."""
        self.handlers[channel] = handler

    def assign(self, slots: Mapping[str, MemberId]) -> None:
        """Say which slots are in use, and by whom: connections are opened and closed accordingly by `run`."""
        self._wanted = dict(slots)
        self._changed.set()

    @property
    def connected(self) -> dict[str, MemberId]:
        """The slots in which our own connection is open, and their members."""
        return {slot: member for slot, (member, link, _) in self._slots.items() if link.connected}

    async def run(self) -> None:
        """Keep a connection in each slot that is assigned, until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._follow()
                await self._changed.wait()
        finally:
            self._wanted = {}
            await self._follow()

    async def _follow(self) -> None:
        gone = [slot for slot, (member, _, _) in self._slots.items() if self._wanted.get(slot) != member]
        tasks = [self._slots.pop(slot)[2] for slot in gone]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for slot, member in self._wanted.items():
            if slot not in self._slots:
                link = _SlotLink(self, slot, member)
                self._slots[slot] = member, link, asyncio.create_task(link.run(self._connect), name=f"slot {slot}")

    def channels(self) -> list[Channel]:
        """Return the channels that are answered."""
        if not self.active:
            return [Channel.CONTROL]
        return [Channel.CONTROL, Channel.QUESTIONS, *self.handlers]

    async def probe(self, member: MemberId, token: str) -> bool:
        """Return whether the process of a member that claimed with a token answers now."""
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
        form = envelope.chosen_form(hello.forms)
        if fault := version_fault(__version__, hello.release):
            raise PermissionDenied(f"hello: {fault}")
        self.greetings[member] = Greeting(hello, form, self.clock.now())
        term = self.term()
        active = self.active and term is not None
        return envelope.encode(Welcome(form, __version__, term or 0, active, self.clock.now()))


class _SlotLink:
    """The centre's connection in one slot."""

    def __init__(self, links: NodeLinks, slot: str, member: MemberId) -> None:
        self._links = links
        self._slot = slot
        self._member = member
        self._clock = links.clock
        self._link: BusClient | None = None
        self._open = dict.fromkeys(Channel, 0)
        """Subscriptions of each channel, and requests that are worked on: together at most the credit."""
        self._tasks: set[asyncio.Task[None]] = set()
        quota = links.quota
        # The other centre copies all that there is: it is asked for no less than it can take.
        self._limited = not is_peer(slot)
        self._bytes = TokenBucket(quota.bytes_per_s, self._clock)
        self._spans = TokenBucket(quota.spans_per_s, self._clock)
        self._questions = TokenBucket(quota.questions_per_s, self._clock)

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.is_connected

    async def run(self, connect: Connect) -> None:
        """Keep the connection until cancelled."""
        pause_s = CONNECT_AGAIN_S
        try:
            while True:
                try:
                    async with self._links.connecting:
                        self._link = await connect(self._slot, on_reconnect=self._arm_again)
                    await self._arm_all()
                    pause_s = CONNECT_AGAIN_S
                    await self._link.credentials_refused.wait()
                    await self._close()
                except (Unavailable, PermissionDenied) as why:
                    _log.warning("no connection in a node's account", slot=self._slot, reason=str(why))
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, CONNECT_AGAIN_MAX_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._close()

    async def probe(self, token: str) -> bool:
        """Return whether a process answers; where nobody listens the server itself says so at once."""
        link = self._link
        if link is None or not link.is_connected:
            return False
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        reply = f"{request_subject(self._slot, PROBE)}.{secrets.token_hex(8)}"
        try:
            await link.subscribe(reply, future=answer, max_msgs=1)
            await link.publish(probe_subject(self._slot, token), b"", reply=reply)
            async with asyncio.timeout(PROBE_S):
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
        task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()):
            # A bug that a member's request has met ends neither its link nor the process.
            metrics.NODE_DROPPED.labels(self._member, "failed").inc()
            _log.error("a node's request failed", member=self._member, channel=name, exc_info=bug)

    def _arm_again(self) -> None:
        self._start("reconnect", self._arm_all())

    async def _arm_all(self) -> None:
        for channel in self._links.channels():
            await self._arm(channel)

    async def _arm(self, channel: Channel) -> None:
        """Subscribe as often as the credit of a channel has room; while disconnected on the next connection."""
        link = self._link
        while link is not None and link.is_connected and self._open[channel] < CREDIT[channel]:
            self._open[channel] += 1
            message: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
            message.add_done_callback(partial(self._came, channel, link))
            try:
                # Both commands leave in one write: nobody comes between them.
                subscription = await link.subscribe(
                    request_subject(self._slot, channel), queue="centre", future=message, max_msgs=1
                )
                await subscription.unsubscribe(limit=1)
            except (nats.errors.Error, OSError) as why:
                self._open[channel] -= 1
                _log.debug("not subscribed", slot=self._slot, channel=channel, reason=str(why))
                return

    def _came(self, channel: Channel, link: BusClient, message: asyncio.Future[Msg]) -> None:
        if not message.cancelled() and link is self._link:
            self._start(channel, self._work(channel, message.result()))

    async def _work(self, channel: Channel, message: Msg) -> None:
        link = self._link
        hold_s = self._charge(channel, len(message.data))
        try:
            answer = (
                _answer(self._links.term(), retry_after_s=hold_s) if hold_s else await self._handle(channel, message)
            )
            if hold_s:
                await self._respond(message, answer)
                await self._clock.sleep(min(HELD * hold_s, HOLD_MAX_S))
        finally:
            if link is self._link:
                self._open[channel] -= 1
                await self._arm(channel)
        if not hold_s:
            await self._respond(message, answer)

    def _charge(self, channel: Channel, size: int) -> float:
        """Take a request from the member's quota; return for how long it is over it."""
        if not self._limited:
            return 0.0
        count = self._spans if channel in SPANS else self._questions
        for name, bucket in (("bytes", self._bytes), (channel.value, count)):
            if wait_s := bucket.wait_s:
                metrics.NODE_LIMITED.labels(self._member, name).inc()
                return wait_s
        self._bytes.take(size)
        count.take(1)
        return 0.0

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────

    async def _handle(self, channel: Channel, message: Msg) -> LinkAnswer | None:
        """Return the answer to a request; None: there is none."""
        term = self._links.term()
        answer = None
        if term is not None or channel is Channel.CONTROL:
            answer = await self._ask(channel, message.data, term)
        # Who is active may have changed meanwhile.
        silent = channel is not Channel.CONTROL and self._links.term() != term
        return None if silent else answer

    async def _ask(self, channel: Channel, payload: bytes, term: int | None) -> LinkAnswer | None:
        try:
            request = envelope.decode_request(payload)
            value = await self._handler(channel, request)(self._member, request.body)
        except Overloaded as why:
            return _answer(term, lost=str(why), retry_after_s=max(why.retry_after_s, 0.01))
        except (Unavailable, Fenced, Superseded, StoreFull) as why:
            if channel in SPANS and not isinstance(why, StoreFull):
                return None  # whether the span stands on the log is not known
            return _answer(term, lost=str(why) or type(why).__name__)
        except (SensegateError, ValueError, RecursionError) as why:  # the last two of decoders
            return _answer(term, refused=str(why) or type(why).__name__)
        return None if value is None else _answer(term, value=value)

    def _handler(self, channel: Channel, request: LinkRequest) -> Handler:
        """Return what answers a request. Raises `PermissionDenied`."""
        if request.form not in FORMS and request.question != HELLO:
            raise PermissionDenied(envelope.form_fault([request.form]))
        if channel in SPANS:
            return self._links.handlers[channel]
        control = request.question in CONTROL_QUESTIONS
        handler = self._links.answers.get(request.question)
        if handler is None or control != (channel is Channel.CONTROL):
            raise PermissionDenied(f"this centre knows no question '{request.question[:32]}'; update it")
        return handler

    async def _respond(self, message: Msg, answer: LinkAnswer | None) -> None:
        if answer is None or self._link is None:
            return
        reply = message.reply
        if not reply.startswith(f"{inbox_prefix(self._slot)}.") or len(reply) > REPLY_BYTES_MAX:
            # The server would not let us publish there either; a member that tries is seen here.
            metrics.NODE_DROPPED.labels(self._member, "reply").inc()
            _log.warning("a node asked for an answer outside its inbox", member=self._member, reply=reply[:64])
            return
        try:
            with api.translate_client_errors("answer a node"):
                await self._link.publish(reply, envelope.encode(answer))
        except Unavailable as why:
            _log.debug("a node asks again", member=self._member, reason=str(why))


def _answer(
    term: int | None, *, value: bytes = b"", refused: str = "", lost: str = "", retry_after_s: float = 0.0
) -> LinkAnswer:
    return LinkAnswer(FORMS[-1], term or 0, value, refused, lost, retry_after_s)


def probe_subject(slot: str, token: str) -> str:
    """Return the subject on which a process hears whether it is alive."""
    return f"down.{slot}.writer.{token}"


async def _alive(message: Msg) -> None:
    try:
        await message.respond(b"")
    except nats.errors.Error as why:
        _log.debug("a probe is not answered", reason=str(why))


# ── the node's side ─────────────────────────────────────────────────────────────────────────────────────


class CentreLink:
    """A member's requests to its centre over one connection."""

    def __init__(
        self, connection: BusClient, *, slot: str, member: MemberId, term: Callable[[], int] = lambda: 0
    ) -> None:
        """`term`: returns the highest term of a centre that this member knows."""
        self.connection = connection
        self._slot = slot
        self._member = member
        self._known = term
        self._seen = 0
        self._form = FORMS[0]
        self._credit = {channel: asyncio.Semaphore(CREDIT[channel]) for channel in Channel}

    @property
    def term(self) -> int:
        """Highest term of a centre that is known here."""
        return max(self._known(), self._seen)

    @property
    def payload_bytes_max(self) -> int:
        """Largest body of a request."""
        return self.connection.max_payload - envelope.ENVELOPE_BYTES

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()

    async def hello(self, *, writer: str = "", writer_epoch: int = 0, timeout_s: float = ASK_S) -> Welcome:
        """Greet the centre and agree on a form.

        Raises:
            Unavailable: no answer.
            PermissionDenied: no common form, or releases too far apart; the text names both.
        """
        hello = MemberHello(FORMS, __version__, self._member, self.term, writer, writer_epoch)
        answer = await self.ask(HELLO, envelope.encode(hello), timeout_s)
        try:
            welcome = envelope.decode_welcome(answer)
        except (msgspec.DecodeError, RecursionError) as why:
            raise Unavailable(f"the centre's welcome cannot be read: {why}") from why
        if welcome.form not in FORMS:
            raise PermissionDenied(envelope.form_fault([welcome.form]))
        self._form = welcome.form
        return welcome

    async def answer_probes(self, token: str) -> None:
        """Answer the centre that this process, which claims with a token, is alive. Raises `Unavailable`."""
        with api.translate_client_errors("hear the centre"):
            await self.connection.subscribe(probe_subject(self._slot, token), cb=_alive)

    async def ask(self, question: str, payload: bytes = b"", timeout_s: float = ASK_S) -> bytes:
        """Return the centre's answer to a question.

        Raises:
            Unavailable: there is none; whether the question was heard is not known.
            PermissionDenied: the centre says why.
            Overloaded: this member is over its quota; nothing was taken.
        """
        channel = Channel.CONTROL if question in CONTROL_QUESTIONS else Channel.QUESTIONS
        return await self._request(channel, question, payload, timeout_s)

    async def ask_patiently(self, question: str, payload: bytes = b"", *, clock: Clock) -> bytes:
        """Return the centre's answer to a question; wait while this member is over its quota.

        Raises:
            Unavailable, PermissionDenied: as `ask`.
        """
        for _ in range(ASK_AGAIN_MAX):
            try:
                return await self.ask(question, payload)
            except Overloaded as why:
                await clock.sleep(why.retry_after_s)
        raise Unavailable(f"the centre takes no '{question}' now: this node is over its quota")

    async def send_span(self, lane: Channel | str, payload: bytes, timeout_s: float = ASK_S) -> bytes:
        """Return the centre's answer to a span of a lane (`live` or `backlog`).

        Raises:
            Unavailable: the outcome is unknown.
            PermissionDenied: the centre does not take it.
            Overloaded: nothing was taken; send it again after `retry_after_s`.
        """
        return await self._request(Channel(lane), "span", payload, timeout_s)

    async def _request(self, channel: Channel, question: str, payload: bytes, timeout_s: float) -> bytes:
        request = envelope.encode(LinkRequest(self._form, self.term, question, payload))
        async with self._credit[channel]:
            with api.translate_client_errors(f"the centre did not answer '{question}'"):
                message = await self.connection.request(
                    request_subject(self._slot, channel), request, timeout=timeout_s
                )
        answer = envelope.decode_answer(message.data)
        if channel is not Channel.CONTROL:
            if answer.term < self.term:
                raise Unavailable(
                    f"an answer of term {answer.term} came, a centre of term {self.term} is known; not believed"
                )
            self._seen = max(self._seen, answer.term)
        if answer.retry_after_s:
            raise Overloaded(answer.lost or "the centre asks for a pause", retry_after_s=answer.retry_after_s)
        if answer.lost:
            raise Unavailable(f"the centre cannot answer '{question}' now: {answer.lost}")
        if answer.refused:
            raise PermissionDenied(answer.refused)
        return answer.value
