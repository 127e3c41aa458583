"""Subscription options of MQTT 5.0 over a broker that speaks 3.1.1: one copy for each filter, each with its options."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.clock import FakeClock
from sensegate.collect.front import codec
from sensegate.collect.front.codec import PacketReader
from sensegate.collect.front.packets import (
    Acknowledgement,
    ConnAck,
    MqttViolation,
    Packet,
    PacketProperties,
    PacketType,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
)
from sensegate.collect.front.rights import TopicMatcher
from sensegate.collect.front.sessions import UNACKNOWLEDGED_BYTES_MAX, UNACKNOWLEDGED_MAX, UnacknowledgedMessages
from sensegate.collect.front.subscriptions import RETAINED_TOPICS, ClientSubscriptions, HeldSubscription
from sensegate.collect.front.upstream import QUEUE_BYTES_MAX, REPEAT_S, BrokerAddress, Upstream
from sensegate.home_assistant.discovery import GrantedSeries, availability_topic, config_topic
from tests.collect.front.fake_client import FakeClient

_V = Version.MQTT_3_1_1
_HA = "sg/grants/G/homeassistant/availability"


class FakeBroker(asyncio.Transport):
    """A broker of 3.1.1: a copy for each filter, retained messages behind each SUBACK."""

    def __init__(
        self, client: FakeClient, held: dict[str, HeldSubscription] | None = None, clock: FakeClock | None = None
    ) -> None:
        super().__init__()
        self.retained: dict[str, bytes] = {}
        self.filters: dict[str, int] = {}
        self.received: list[Packet] = []
        self.is_silent = False
        self.is_paused = False
        self._number = 0
        self._unanswered: list[Subscribe] = []
        self.upstream = Upstream(
            BrokerAddress("127.0.0.1", 1, b""),
            client,
            clock or FakeClock(),
            ClientSubscriptions({} if held is None else held, 8, 100),
        )
        self.upstream.connection_made(self)
        self._say(ConnAck(0))
        self.upstream.begin()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        for head, body in PacketReader(10_000).feed(bytes(data)):
            packet = codec.decode(head, body, _V)
            self.received.append(packet)
            match packet:
                case Subscribe():
                    self._unanswered.append(packet)
                    if not self.is_silent:
                        self.answer()
                case Unsubscribe(packet_id, topic_filters):
                    for name in topic_filters:
                        self.filters.pop(name, None)
                    self._say(SubAck(PacketType.UNSUBACK, packet_id))
                case _:
                    pass

    def answer(self, *, code: int | None = None) -> None:
        """Answer each SUBSCRIBE, and send what is retained."""
        unanswered, self._unanswered = self._unanswered, []
        for packet in unanswered:
            codes = [wanted.qos if code is None else code for wanted in packet.subscriptions]
            if code is None:
                self.filters |= {wanted.topic_filter: wanted.qos for wanted in packet.subscriptions}
            self._say(SubAck(PacketType.SUBACK, packet.packet_id, tuple(codes)))
            for wanted in packet.subscriptions if code is None else ():
                for topic, payload in self.retained.items():
                    if TopicMatcher((wanted.topic_filter,)).matches(topic):
                        self._send(topic, payload, wanted.qos, retain=True)

    def publish(self, topic: str, payload: bytes = b"x") -> None:
        """Send a message once for each filter."""
        for name, qos in self.filters.items():
            if TopicMatcher((name,)).matches(topic):
                self._send(topic, payload, qos, retain=False)

    def _send(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> None:
        self._number += 1
        self._say(Publish(topic, payload, qos, retain, packet_id=self._number if qos else 0))

    def _say(self, packet: Packet) -> None:
        self.upstream.data_received(codec.encode(packet, _V))


def _ask(broker: FakeBroker, packet_id: int, *wanted: Subscription, identifier: int = 0) -> None:
    properties = PacketProperties(subscription_ids=(identifier,) if identifier else ())
    broker.upstream.subscribe(Subscribe(packet_id, wanted, properties), [None] * len(wanted))


# ── retained messages ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("handling", "expected"), [(0, 2), (1, 1), (2, 0)])
async def test_retain_handling(handling: int, expected: int) -> None:
    """MQTT-3.3.1-9 to -11: sent at each SUBSCRIBE, at the first one, or never; what is left out is acknowledged."""
    client = FakeClient()
    broker = FakeBroker(client)
    broker.retained = {"a/b": b"kept"}
    for number in (1, 2):
        _ask(broker, number, Subscription("a/#", 1, retain_handling=handling))
    assert client.messages == [("a/b", True, ())] * expected
    dropped = [packet for packet in broker.received if isinstance(packet, Acknowledgement)]
    assert len(dropped) == 2 - expected
    broker.publish("a/b")
    assert client.messages[expected:] == [("a/b", False, ())], "what is published afterwards comes in any case"


async def test_a_subscription_that_ended_is_new_again() -> None:
    """MQTT-3.3.1-10, 3.10.4-1: Retain Handling 1 asks what exists now; filters are compared exactly."""
    client = FakeClient()
    broker = FakeBroker(client, held={"a": HeldSubscription()})
    broker.retained = {"a": b"kept"}
    _ask(broker, 1, Subscription("a", retain_handling=1))
    assert client.messages == []
    broker.upstream.unsubscribe(Unsubscribe(2, ("A", "+", "a")))
    assert client.sent[-1] == SubAck(PacketType.UNSUBACK, 2, (0x11, 0x11, 0))
    _ask(broker, 3, Subscription("a", retain_handling=1))
    assert client.messages == [("a", True, ())]


async def test_a_subscription_that_the_broker_refuses_does_not_exist() -> None:
    """Its filter is free again, and it is new when it is asked for once more."""
    client = FakeClient()
    broker = FakeBroker(client)
    broker.retained, broker.is_silent = {"a": b"kept"}, True
    _ask(broker, 1, Subscription("a", retain_handling=1))
    broker.answer(code=0x80)
    assert client.sent == [SubAck(PacketType.SUBACK, 1, (0x80,))]
    broker.is_silent = False
    _ask(broker, 2, Subscription("a", retain_handling=1))
    assert client.messages == [("a", True, ())]


async def test_filters_of_one_subscribe_have_their_own_handling() -> None:
    """Of two filters that match, one that wants retained messages gets them, once; so with SUBSCRIBEs in a row."""
    client = FakeClient()
    broker = FakeBroker(client)
    broker.retained = {"a/b": b"kept"}
    _ask(broker, 1, Subscription("a/#", retain_handling=2), Subscription("a/+"), identifier=7)
    assert client.messages == [("a/b", True, (7,))]
    broker.is_silent = True
    _ask(broker, 2, Subscription("a/#"))
    _ask(broker, 3, Subscription("a/b", retain_handling=2))
    broker.answer()
    assert client.messages == [("a/b", True, (7,)), ("a/b", True, ())]


async def test_retain_as_published() -> None:
    """MQTT-3.3.1-12, -13: RETAIN of a live message is 0, or as it was published, which the topic tells."""
    for wanted in (False, True):
        client = FakeClient()
        broker = FakeBroker(client)
        _ask(broker, 1, Subscription("sg/grants/G/#", 1, retain_as_published=wanted))
        broker.publish(_HA)
        broker.publish("sg/grants/G/records")
        assert client.messages == [(_HA, wanted, ()), ("sg/grants/G/records", False, ())]


def test_topics_that_are_retained_are_those_of_home_assistant() -> None:
    """`RETAINED_TOPICS` covers the topics that the gateway publishes with RETAIN, and no others."""
    series = GrantedSeries("d", "p", "c", "")
    assert RETAINED_TOPICS.matches(availability_topic("G"))
    assert RETAINED_TOPICS.matches(config_topic("G", series))
    assert not RETAINED_TOPICS.matches("sg/grants/G/records")


# ── identifiers ───────────────────────────────────────────────────────────────────────────────────────

_FILTERS = ("a/b", "a/+", "a/#", "#", "+/b", "c")


@given(
    st.dictionaries(st.sampled_from(_FILTERS), st.integers(0, 4), max_size=5),
    st.lists(st.tuples(st.sampled_from(["a/b", "a", "c", "a/b/c"]), st.sampled_from([b"x", b"y"])), max_size=12),
)
def test_each_copy_has_the_identifier_of_its_filter(wanted: dict[str, int], published: list[tuple[str, bytes]]) -> None:
    """MQTT-3.3.4-3 to -5, 3.3.2-3, 3.1.2-26, -27: each copy has one identifier, each filter one copy."""

    async def scenario() -> tuple[FakeClient, Counter[tuple[str, tuple[int, ...]]]]:
        client, expected = FakeClient(), Counter[tuple[str, tuple[int, ...]]]()
        broker = FakeBroker(client)
        for number, (name, identifier) in enumerate(wanted.items(), 1):
            _ask(broker, number, Subscription(name, 1), identifier=identifier)
        for topic, payload in published:
            broker.publish(topic, payload)
            for name, identifier in wanted.items():
                if TopicMatcher((name,)).matches(topic):
                    expected[topic, (identifier,) if identifier else ()] += 1
        return client, expected

    client, expected = asyncio.run(scenario())
    assert all(packet.properties.topic_alias is None for packet in client.sent if isinstance(packet, Publish))
    assert Counter((topic, identifiers) for topic, _, identifiers in client.messages) == expected


async def test_copies_of_two_messages_may_be_mixed() -> None:
    """The broker delivers by filters, not by messages: each message has each identifier all the same."""
    client = FakeClient()
    broker = FakeBroker(client)
    _ask(broker, 1, Subscription("a", 1), identifier=1)
    _ask(broker, 2, Subscription("+", 1), identifier=2)
    for payload in (b"x", b"y", b"x", b"y"):
        broker._send("a", payload, 1, retain=False)
    pairs = [
        (packet.payload, packet.properties.subscription_ids) for packet in client.sent if isinstance(packet, Publish)
    ]
    assert sorted(pairs) == [(b"x", (1,)), (b"x", (2,)), (b"y", (1,)), (b"y", (2,))]


async def test_an_identifier_is_replaced_and_outlives_the_connection() -> None:
    """MQTT-3.8.4-3: a SUBSCRIBE for the same filter replaces the one before, with its options; a session keeps them."""
    held: dict[str, HeldSubscription] = {}
    client = FakeClient()
    broker = FakeBroker(client, held)
    _ask(broker, 1, Subscription("a", 1), identifier=1)
    _ask(broker, 2, Subscription("a", 1), identifier=2)
    broker.publish("a")
    later = FakeClient()
    reopened = FakeBroker(later, held)
    reopened.filters = {"a": 1}
    reopened.publish("a")
    assert client.messages == later.messages == [("a", False, (2,))]


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_device_that_takes_few_messages_gets_no_more_at_a_time() -> None:
    """MQTT-3.3.4-9, -10, 4.9.0-2, -3: at most Receive Maximum unacknowledged; all other packets come meanwhile."""
    client = FakeClient(receive_maximum=2)
    broker = FakeBroker(client)
    _ask(broker, 1, Subscription("a", 1), Subscription("b", 0))
    for _ in range(5):
        broker.publish("a")
    broker.publish("b")
    assert len(client.messages) == 3
    broker.upstream.unsubscribe(Unsubscribe(9, ("b",)))
    assert client.sent[-1] == SubAck(PacketType.UNSUBACK, 9, (0,))
    for number in range(1, 6):
        broker.upstream.forward(Acknowledgement(PacketType.PUBACK, number))
    assert len(client.messages) == 6


async def test_what_waits_for_a_client_is_bounded_by_bytes() -> None:
    """Beyond it the broker is not read, until the client has acknowledged."""
    client = FakeClient(receive_maximum=1)
    broker = FakeBroker(client)
    _ask(broker, 1, Subscription("a", 1))
    for _ in range(3):
        assert not broker.is_paused
        broker.publish("a", bytes(QUEUE_BYTES_MAX // 2 + 1))
    assert broker.is_paused
    broker.upstream.forward(Acknowledgement(PacketType.PUBACK, 1))
    assert not broker.is_paused


async def test_messages_come_again_after_a_reconnect_and_at_no_other_time() -> None:
    """MQTT-4.4.0-1: with DUP, in their order, before others; what the broker repeats by its clock is left out."""
    client = FakeClient(receive_maximum=2)
    broker = FakeBroker(client)
    _ask(broker, 1, Subscription("a", 1), identifier=3)
    for number in range(4):
        broker.publish("a", str(number).encode())
    broker.upstream.forward(Acknowledgement(PacketType.PUBACK, 1))
    broker._say(Publish("a", b"1", 1, duplicate=True, packet_id=2))
    assert [packet.payload for packet in client.sent if isinstance(packet, Publish)] == [b"0", b"1", b"2"]
    later = FakeClient()
    later.unacknowledged = client.unacknowledged
    broker = FakeBroker(later, {"a": HeldSubscription(3)})
    broker._say(Publish("a", b"1", 1, duplicate=True, packet_id=2))
    broker._say(Publish("a", b"new", 1, packet_id=5))
    repeated = [packet for packet in later.sent if isinstance(packet, Publish)]
    assert [(packet.payload, packet.packet_id, packet.duplicate) for packet in repeated] == [
        (b"1", 2, True), (b"2", 3, True), (b"3", 4, True), (b"new", 5, False),
    ]  # fmt: skip
    assert {packet.properties.subscription_ids for packet in repeated} == {(3,)}
    clock = FakeClock()
    await clock.advance(REPEAT_S + 1)
    last = FakeClient()
    last.unacknowledged = later.unacknowledged
    FakeBroker(last, {"a": HeldSubscription(3)}, clock)
    assert last.sent == [], "the broker repeats what is older than its `ack_wait`, unless it is not valid any more"


def test_few_messages_are_kept_for_a_client() -> None:
    """Messages beyond the limit are not kept: the broker sends them again after its `ack_wait`."""
    kept = UnacknowledgedMessages()
    for number in range(1, UNACKNOWLEDGED_MAX + 10):
        kept.add(Publish("a", b"x", 1, packet_id=number), 0.0)
    assert len(kept) == UNACKNOWLEDGED_MAX
    kept.clear()
    for number in range(1, 4):
        kept.add(Publish("a", bytes(UNACKNOWLEDGED_BYTES_MAX // 2), 1, packet_id=number), 0.0)
    assert len(kept) == 2


async def test_filters_of_a_client_are_limited() -> None:
    """Each is a consumer at the broker: beyond the limit, or too long, 0x97; one that exists may be asked for again."""
    subscriptions = ClientSubscriptions({}, 2, 10)
    packet = Subscribe(1, tuple(Subscription(name) for name in ("a", "x" * 11, "b", "c")))
    codes = subscriptions.limit(packet, [None] * 4)
    assert codes == [None, ReasonCode.QUOTA_EXCEEDED, None, ReasonCode.QUOTA_EXCEEDED]
    subscriptions.ask(packet, codes)
    assert len(subscriptions) == 2
    reopened = Subscribe(2, (Subscription("a"), Subscription("c")))
    assert subscriptions.limit(reopened, [None, None]) == [None, ReasonCode.QUOTA_EXCEEDED]


async def test_a_packet_id_in_use_is_an_error() -> None:
    """MQTT-2.2.1-3: until the SUBACK has come; afterwards it is free."""
    broker = FakeBroker(FakeClient())
    broker.is_silent = True
    _ask(broker, 1, Subscription("a"))
    with pytest.raises(MqttViolation):
        _ask(broker, 1, Subscription("b"))
    with pytest.raises(MqttViolation):
        broker.upstream.unsubscribe(Unsubscribe(1, ("a",)))
    broker.answer()
    _ask(broker, 1, Subscription("b"))


async def test_filters_that_the_broker_would_close_on_are_kept_from_it() -> None:
    """White space and misplaced wildcards: UNSUBSCRIBE is answered, the broker hears the rest."""
    client = FakeClient()
    broker = FakeBroker(client)
    broker.upstream.unsubscribe(Unsubscribe(1, ("a b", "a#")))
    assert client.sent == [SubAck(PacketType.UNSUBACK, 1, (0x11, 0x11))]
    assert broker.received == []
    broker.upstream.unsubscribe(Unsubscribe(2, ("a b", "c")))
    assert broker.received == [Unsubscribe(2, ("c",))]
    assert client.sent[1:] == [SubAck(PacketType.UNSUBACK, 2, (0x11, 0x11))]


async def test_a_client_waits_for_a_slow_broker() -> None:
    """While the broker accepts nothing, the front reads nothing from the client."""
    client = FakeClient()
    broker = FakeBroker(client)
    broker.upstream.pause_writing()
    assert client.is_held
    broker.upstream.resume_writing()
    assert not client.is_held
