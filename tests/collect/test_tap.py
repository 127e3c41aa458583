"""The tap: messages of one subscription from a connection's bytes, however they are cut."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import nats.aio.client
from hypothesis import given
from hypothesis import strategies as st

from sensegate.collect.tap import SubscriptionTap
from sensegate.model import Message

SID = 7


class Parser:
    """Stands for nats-py's parser: keeps what it is handed."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def parse(self, piece: bytes) -> None:
        self.seen.append(piece)

    def reset(self) -> None:
        self.seen.clear()


class Connection:
    """What the tap touches of a connection."""

    def __init__(self) -> None:
        self._ps: Any = Parser()


class Heard:
    """A tap and what it told."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.parser: Parser = self.connection._ps
        self.messages: list[Message] = []
        self.numbers: list[int] = []
        self.control: list[tuple[dict[str, str], str]] = []
        self.broken: list[str] = []
        self.late = 0
        self.tap = SubscriptionTap(self.connection, self._take, self._hear, self._missed, self.broken.append)  # type: ignore[arg-type]
        self.tap.attach(SID, "$MQTT_msgs", "ingest-0", "$MQTT.msgs.")
        self.tap.expect_first()

    def _take(self, chunk: list[Message], number: int) -> None:
        self.messages += chunk
        self.numbers.append(number)

    async def _hear(self, headers: dict[str, str], reply: str) -> None:
        self.control.append((headers, reply))

    def _missed(self) -> None:
        self.late += 1

    def feed(self, data: bytes, cuts: list[int] | None = None) -> None:
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]

        async def run() -> None:
            for start, end in pairwise(places):
                await self.tap.parse(data[start:end])

        asyncio.run(run())


def delivery(
    number: int,
    payload: bytes = b"x",
    *,
    sequence: int = 0,
    delivered: int = 1,
    sid: int = SID,
    headers: bool = True,
    subject: str = "$MQTT.msgs.sg.d1.up",
) -> bytes:
    """One message as the server sends it."""
    head = b"NATS/1.0\r\nNmqtt-Pub:1\r\n\r\n" if headers else b""
    reply = f"$JS.ACK.$MQTT_msgs.ingest-0.{delivered}.{sequence or number + 100}.{number}.1767225600123456789.0"
    sizes = f"{len(head)} {len(head) + len(payload)}" if headers else f"{len(payload)}"
    return f"{'H' if headers else ''}MSG {subject} {sid} {reply} {sizes}\r\n".encode() + head + payload + b"\r\n"


OTHERS = [
    b"PING\r\n",
    b"PONG\r\n",
    b"+OK\r\n",
    b'INFO {"a":1}\r\n',
    b"-ERR 'x'\r\n",
    b"MSG _INBOX.1 3 5\r\nhello\r\n",
    b"MSG _INBOX.1 3 reply.to 7\r\nHMSG a \r\n",
    b"HMSG _INBOX.1 3 12 17\r\nNATS/1.0\r\n\r\nhello\r\n",
    delivery(1, b"of another subscription", sid=3),
]


@given(
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(OTHERS).map(lambda other: (other,))), max_size=12),
    st.booleans(),
    st.lists(st.integers(0, 4_000), max_size=10),
)
def test_any_cut_gives_the_same(parts: list[Any], headers: bool, cuts: list[int]) -> None:  # noqa: FBT001
    """However the bytes are cut, each payload comes once and in order, and others' operations reach nats-py whole."""
    heard = Heard()
    data, payloads, others = b"", [], []
    for part in parts:
        if isinstance(part, tuple):
            data += part[0]
            others.append(part[0])
        else:
            payloads.append(part)
            data += delivery(len(payloads), part, headers=headers or len(payloads) % 2 == 0)
    heard.feed(data, cuts)
    assert [message.payload for message in heard.messages] == payloads
    assert [message.sequence for message in heard.messages] == [101 + i for i in range(len(payloads))]
    assert {message.topic for message in heard.messages} <= {"sg/d1/up"}
    assert {message.received for message in heard.messages} <= {1_767_225_600_123_456}
    assert heard.parser.seen == others
    assert not heard.broken
    if payloads:
        assert heard.numbers[-1] == len(payloads)


def test_everything_before_consumer_sequence_1_is_discarded() -> None:
    """What was on the way when the consumer was reset is not given."""
    heard = Heard()
    heard.feed(delivery(41) + delivery(42) + delivery(1, b"first") + delivery(2, b"second"))
    assert [message.payload for message in heard.messages] == [b"first", b"second"]
    assert not heard.broken
    assert heard.late == 2  # the owner resets the consumer once more


def test_a_gap_is_a_break_and_ends_the_giving() -> None:
    """After a hole in the consumer sequence nothing is given until a new start; what came before it is."""
    heard = Heard()
    heard.feed(delivery(1, b"a") + delivery(3, b"c") + delivery(4, b"d"))
    assert [message.payload for message in heard.messages] == [b"a"]
    assert heard.numbers == [1]
    assert heard.broken == ["consumer sequence 3 arrived instead of 2"]


def test_a_redelivery_is_a_break() -> None:
    """`num_delivered` above 1 means that the order is gone."""
    heard = Heard()
    heard.feed(delivery(1) + delivery(2, delivered=2))
    assert len(heard.broken) == 1
    assert len(heard.messages) == 1


def test_a_first_redelivery_before_sequence_1_is_only_discarded() -> None:
    """Redeliveries on the way at the reset belong to the old series."""
    heard = Heard()
    heard.feed(delivery(17, delivered=3) + delivery(1, b"first"))
    assert [message.payload for message in heard.messages] == [b"first"]
    assert not heard.broken


def test_sequence_1_again_is_a_break() -> None:
    """Somebody else reset the consumer: all unacknowledged come again, so this reading of them is over."""
    heard = Heard()
    heard.feed(delivery(1, b"a") + delivery(2, b"b") + delivery(1, b"a"))
    assert [message.payload for message in heard.messages] == [b"a", b"b"]
    assert len(heard.broken) == 1


def test_a_reconnection_is_a_break() -> None:
    """nats-py resets its parser when it connects again; half an operation is forgotten."""
    heard = Heard()
    heard.feed(delivery(1) + delivery(2)[:20])
    heard.tap.reset()
    assert heard.broken == ["the connection was re-established"]
    heard.feed(b"PING\r\n")
    assert heard.parser.seen == [b"PING\r\n"]


def test_heartbeats_and_flow_control_are_told() -> None:
    """Control messages arrive with their headers and the subject to answer to, and do not reach nats-py's queues."""
    head = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 5\r\nNats-Consumer-Stalled: $JS.FC.x\r\n\r\n"
    flow = b"NATS/1.0 100 FlowControl Request\r\n\r\n"
    heard = Heard()
    heard.feed(
        b"HMSG _SG.deliver %d %d %d\r\n%s\r\n" % (SID, len(head), len(head), head)
        + b"HMSG _SG.deliver %d $JS.FC.y %d %d\r\n%s\r\n" % (SID, len(flow), len(flow), flow),
        [30, 60],
    )
    assert heard.control == [({"Nats-Last-Consumer": "5", "Nats-Consumer-Stalled": "$JS.FC.x"}, ""), ({}, "$JS.FC.y")]
    assert heard.parser.seen == []


def test_a_detached_tap_passes_everything_on() -> None:
    """After `detach` the connection works as nats-py made it."""
    heard = Heard()
    heard.tap.detach()
    heard.feed(delivery(1))
    assert heard.parser.seen == [delivery(1)]


def test_nats_py_still_has_what_the_tap_replaces() -> None:
    """A release of nats-py without these needs another tap."""
    client = nats.aio.client.Client()
    assert hasattr(client._ps, "parse")
    assert hasattr(client._ps, "reset")
    assert asyncio.iscoroutinefunction(client._ps.parse)
