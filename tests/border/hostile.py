"""A node that lies: hand-made requests over a raw connection with the credential of a node."""

from __future__ import annotations

import itertools
import secrets
from typing import Protocol

import msgspec
import numpy as np

from sensegate.bus import columns
from sensegate.bus.batch import Batch
from sensegate.bus.commit_records import LaneRecord, Writer
from sensegate.bus.slots import inbox_prefix, request_subject
from sensegate.errors import Overloaded, PermissionDenied
from sensegate.tiers import envelope, protocol
from sensegate.tiers.envelope import PROTOCOL_VERSIONS, LinkAnswer, LinkRequest
from sensegate.tiers.link import Channel
from sensegate.tiers.protocol import (
    ClaimRequest,
    Lane,
    LaneUpdate,
    PartKind,
    SpanAnswer,
    SpanOutcome,
    SpanPart,
    SpanRequest,
    SpanSelection,
)
from sensegate.tiers.receiver import Receiver
from tests.border.wire import Frame, Received, WireClient
from tests.conftest import eventually
from tests.share.made import Place, make_batch

ANSWER_S = 10.0
LOOK_S = 0.002
STEP = 10
"""Sequences that each span goes on by."""


class Silent(AssertionError):
    """The centre gave no answer."""


class Lie(msgspec.Struct, frozen=True):
    """What a span brings, and what the centre is to say of it."""

    name: str
    parts: tuple[SpanPart, ...]
    reasons: frozenset[str]
    """Of the refused parts."""


class Transport(Protocol):
    """How bytes of a member reach the centre."""

    async def raw(
        self, channel: str, payload: bytes, *, reply: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> bytes:
        """Send bytes as a request; return the answer."""
        ...


class WireTransport:
    """Over a raw connection in the member's slot."""

    def __init__(self, wire: WireClient, slot: str, *, answer_s: float = ANSWER_S) -> None:
        self.wire = wire
        self._slot = slot
        self._answer_s = answer_s
        # A late answer to a request of an earlier connection must not be taken for one of this connection.
        self._inbox = f"{inbox_prefix(slot)}.{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)

    async def raw(
        self, channel: str, payload: bytes, *, reply: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> bytes:
        """Send bytes as a request; return the answer.

        Raises:
            Silent: there was none in time.
        """
        inbox = f"{self._inbox}.{next(self._numbers)}"
        frame = Frame(request_subject(self._slot, channel), payload, reply or inbox, headers)

        def answer() -> Received | None:
            return next((message for message in self.wire.received if message.subject == inbox), None)

        async def send() -> Received | None:
            await self.wire.send([frame])
            await eventually(answer, self._answer_s, every_s=LOOK_S)
            message = answer()
            if message is None or message.is_answer:
                return message
            # Nobody was subscribed just then: its credit is made anew after each answer.
            self.wire.received.remove(message)
            return None

        try:
            message: Received = await eventually(send, self._answer_s, every_s=LOOK_S)
        except AssertionError as why:
            raise Silent(f"no answer on {channel}") from why
        return message.payload


class MemoryTransport:
    """Straight to what answers a member, without a server."""

    def __init__(self, receiver: Receiver, member: str) -> None:
        self.receiver = receiver
        self._member = member

    async def raw(
        self, channel: str, payload: bytes, *, reply: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> bytes:
        """Return the answer to a request; `channel`, `reply` and `headers` are of a server."""
        del channel, reply, headers
        request = envelope.decode_request(payload)
        receiver = self.receiver
        handlers = {"span": receiver.span, "position": receiver.position, "claim": receiver.claim}
        form = PROTOCOL_VERSIONS[-1]
        try:
            answer = LinkAnswer(form, 0, await handlers[request.question](self._member, request.body))
        except Overloaded as why:
            answer = LinkAnswer(form, 0, retry_after_s=why.retry_after_s)
        except PermissionDenied as why:
            answer = LinkAnswer(form, 0, refusal=str(why))
        return envelope.encode(answer)


class HostileNode:
    """Requests of one member, built by hand."""

    def __init__(self, transport: Transport, *, started: int = 1) -> None:
        """`started`: the first sequence of its log."""
        self.transport = transport
        self.writer = Writer("store-of-the-raider", 1, "process-of-the-raider")
        self.epoch = "life-of-the-raider"
        self.lanes: dict[Lane, LaneRecord] = {}
        self._started = started

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────

    async def ask(
        self, question: str, body: bytes = b"", *, channel: str = "", form: int = PROTOCOL_VERSIONS[-1], term: int = 0
    ) -> LinkAnswer:
        """Ask a question; return the answer's envelope."""
        request = envelope.encode(LinkRequest(form, term, question, body))
        chosen = channel or (Channel.CONTROL if question in {"hello", "lease"} else Channel.QUESTIONS)
        return envelope.decode_answer(await self.transport.raw(chosen, request))

    async def claim(self, **changes: object) -> protocol.ClaimAnswer:
        """Ask to be the writer of the member's lanes."""
        request = ClaimRequest(self.writer.id, 0, self.writer.token, self.epoch, self._started, self._started - 1)
        answer = await self.ask("claim", protocol.encode(msgspec.structs.replace(request, **changes)))
        granted = protocol.decode_claim_answer(answer.value)
        if granted.granted:
            self.writer, self.lanes = granted.writer, dict(granted.lanes)
        return granted

    def request(self, *parts: SpanPart) -> SpanRequest:
        """Return the span that would go on rightly with some parts."""
        live = self.lanes[Lane.LIVE]
        until = live.position + STEP
        move = LaneUpdate(Lane.LIVE, live.number, until)
        span_id = secrets.token_hex(8)
        return SpanRequest(self.writer, self.epoch, span_id, 0, (move,), parts, SpanSelection(live.position, until))

    async def span(
        self,
        request: SpanRequest | bytes,
        *,
        channel: Channel = Channel.LIVE,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> SpanAnswer | LinkAnswer:
        """Send a span; return the answer, or its envelope where the span was not answered as one."""
        body = request if isinstance(request, bytes) else protocol.encode(request)
        payload = envelope.encode(LinkRequest(PROTOCOL_VERSIONS[-1], 0, "span", body))
        answer = envelope.decode_answer(await self.transport.raw(channel, payload, headers=headers))
        if not answer.value:
            return answer
        span_answer = protocol.decode_span_answer(answer.value)
        if span_answer.outcome is SpanOutcome.ACCEPTED:
            self.lanes.update(span_answer.lanes)
        return span_answer


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────


def rows(
    node: str, device: str, division: str, *, start: int, count: int = 1, name: str = "air_temperature", **more: object
) -> Batch:
    """Return readings of one device, numbered as a node does."""
    places = [Place(device, division)]
    batch = make_batch([(0, name, 20.0 + number) for number in range(count)], places=places, node=node, start=start)
    return msgspec.structs.replace(batch, **({"seq": np.full(count, start // 1_000, np.int64)} | more))


def part(batch: Batch, *, grade: int = 1, kind: PartKind = PartKind.READINGS) -> SpanPart:
    """Return a batch as a part of a span."""
    return SpanPart(kind, columns.encode(batch), grade, len(batch))


def is_refused(answer: SpanAnswer | LinkAnswer) -> bool:
    """Return whether a span was refused as a whole."""
    return isinstance(answer, LinkAnswer) and bool(answer.refusal)


def outcome(answer: SpanAnswer | LinkAnswer) -> str:
    """Return what became of a span, in a word."""
    if isinstance(answer, SpanAnswer):
        return answer.outcome
    return "refused" if answer.refusal else "lost" if answer.unavailable else "wait" if answer.retry_after_s else "?"
