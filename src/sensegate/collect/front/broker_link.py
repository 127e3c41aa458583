"""The link of one client to the broker behind its front: its subscriptions, and the connection that they need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest

from sensegate.collect.front import codec
from sensegate.collect.front.clients import BrokerClient, SubscribingClient
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.packets import (
    Acknowledgement,
    ConnAck,
    ConnectPacket,
    MqttViolation,
    PacketType,
    ReasonCode,
    SubAck,
    Subscribe,
    Unsubscribe,
    Version,
)
from sensegate.collect.front.subscriptions import ClientSubscriptions
from sensegate.collect.front.upstream import UNAVAILABLE, ShownMessage, Upstream, is_broker_filter, unchanged

OpenUpstream = Callable[[BrokerClient, ClientSubscriptions, ShownMessage], Upstream]
"""Returns a new connection to the broker behind. Raises `MqttViolation`: there is no broker."""
BrokerConnect = Callable[[Upstream, bool], Awaitable[ConnAck]]
"""Opens a connection to the broker behind; the flag asks for a clean session."""


class BrokerLink:
    """The link of one client to the broker behind: subscribes, unsubscribes and passes packets on for the client.

    The connection to the broker is opened when it is needed: for a device at its first SUBSCRIBE, or when its session
    with subscriptions continues; for a client that is no device at its CONNECT. What the broker has kept of a session
    that begins anew is discarded first. Without a connection, what would be passed on is dropped.
    """

    __slots__ = ("_client", "_hit", "_limits", "_new_upstream", "_shown", "_subscriptions", "_upstream")

    def __init__(
        self,
        client: SubscribingClient,
        limits: FrontLimits,
        hit: Callable[[str], None],
        new_upstream: OpenUpstream,
        shown: ShownMessage = unchanged,
    ) -> None:
        """Prepare a link without a connection.

        Args:
            client: the client, on its connection to us.
            limits: limits of subscriptions.
            hit: counts a limit that was reached.
            new_upstream: prepares a connection to the broker.
            shown: returns a message of the broker with the topic that the client knows.
        """
        self._client = client
        self._limits = limits
        self._hit = hit
        self._new_upstream = new_upstream
        self._shown = shown
        self._upstream: Upstream | None = None
        self._subscriptions: ClientSubscriptions | None = None

    @property
    def is_open(self) -> bool:
        """Return whether the client has a connection to the broker."""
        return self._upstream is not None

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────────

    def limit(self, packet: Subscribe, decided: Sequence[int | None] = ()) -> list[int | None]:
        """Return the code of each filter of a SUBSCRIBE; None: the broker decides. Raises `MqttViolation`.

        Args:
            packet: what the client sent.
            decided: codes that others have decided, None where they grant it; empty: none.
        """
        codes = [
            self._refusal_of(wanted.topic_filter) if code is None else code
            for wanted, code in zip_longest(packet.subscriptions, decided)
        ]
        limited = self._session_subscriptions().limit(packet, codes)
        if limited != codes:
            self._hit("mqtt_subscriptions")
        return limited

    def _refusal_of(self, topic_filter: str) -> int | None:
        """Return the code for a filter that is refused; None: it is not."""
        client = self._client
        if topic_filter.startswith("$share/"):
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if not codec.is_valid_filter(topic_filter):
            if client.version != Version.MQTT_5:
                raise MqttViolation(ReasonCode.TOPIC_FILTER_INVALID, "a topic filter is not valid")
            return ReasonCode.TOPIC_FILTER_INVALID
        if client.rights and not client.rights.subscribe.covers(topic_filter):
            client.note_refusal(client.device, "subscribe", topic_filter)
            return ReasonCode.NOT_AUTHORIZED
        return None if is_broker_filter(topic_filter) else ReasonCode.TOPIC_FILTER_INVALID

    def _session_subscriptions(self) -> ClientSubscriptions:
        """Return the subscriptions of the client's session, on this connection."""
        if self._subscriptions is None:
            held, limits = self._client.session.subscriptions, self._limits
            self._subscriptions = ClientSubscriptions(held, limits.subscriptions_max, limits.topic_bytes_max)
        return self._subscriptions

    def subscribe(self, packet: Subscribe, codes: list[int | None]) -> None:
        """Answer a SUBSCRIBE of which nothing is granted; otherwise subscribe while the client waits."""
        if None in codes:
            self._client.wait_for(self.subscribe_now(packet, codes))
        else:
            self._answer(packet, codes)

    async def subscribe_now(self, packet: Subscribe, codes: list[int | None], mount: str = "") -> None:
        """Subscribe at the broker, and note it in the session. Raises `MqttViolation`.

        Args:
            packet: what the client sent.
            codes: the answers that the front gives itself; None: the broker decides.
            mount: what stands before the client's topics at the broker.
        """
        if None not in codes:
            self._answer(packet, codes)
            return
        if self._upstream is None:
            await self.open_device(goes_on=False)
            self.begin()
        if self._upstream is None:
            return
        self._client.session.subscribed = True
        self._upstream.subscribe(packet, codes, mount)
        await self._client.remember_session()

    def _answer(self, packet: Subscribe, codes: list[int | None]) -> None:
        self._client.answer_subscribe(packet.packet_id, tuple(code for code in codes if code is not None))

    def unsubscribe(self, packet: Unsubscribe, mount: str = "") -> None:
        """Handle an UNSUBSCRIBE; `mount` stands before the client's topics at the broker. Raises `MqttViolation`."""
        five = self._client.version == Version.MQTT_5
        if not five and not all(map(codec.is_valid_filter, packet.topic_filters)):
            raise MqttViolation(ReasonCode.TOPIC_FILTER_INVALID, "a topic filter is not valid")
        if self._upstream:
            self._upstream.unsubscribe(packet, mount)
            return
        codes = (ReasonCode.NO_SUBSCRIPTION_EXISTED,) * len(packet.topic_filters) if five else ()
        self._client.send(SubAck(PacketType.UNSUBACK, packet.packet_id, codes))

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────

    async def open_device(self, *, goes_on: bool) -> bool:
        """Connect a device to the broker; return whether its session goes on. Raises `MqttViolation`."""
        keeps = self._client.session.expiry_s > 0
        answer = await self._reach(self._connect_device, goes_on=goes_on, keeps=keeps)
        if answer.code:
            raise MqttViolation(ReasonCode.SERVER_UNAVAILABLE, "the broker refuses the connection for subscriptions")
        return self._continue(answer)

    async def open_guest(self, connect: ConnectPacket, *, goes_on: bool, keeps: bool) -> bool:
        """Connect a client that the broker authenticates; return whether its session goes on. Raises `MqttViolation`.

        Args:
            connect: the client's CONNECT.
            goes_on: whether the session may go on.
            keeps: whether it is kept after this connection.
        """
        answer = await self._reach(
            lambda upstream, clean: upstream.open_guest(connect, clean=clean), goes_on=goes_on, keeps=keeps
        )
        if answer.code:
            reason = ReasonCode.SERVER_UNAVAILABLE if answer.code <= UNAVAILABLE else ReasonCode.NOT_AUTHORIZED
            raise MqttViolation(reason, "the broker refuses the client")
        return self._continue(answer)

    def _continue(self, answer: ConnAck) -> bool:
        """Forget what the session knows where the broker has none of it; return whether the session goes on."""
        if not answer.session_present:
            self._client.session.subscriptions.clear()
            self._client.session.unacknowledged.clear()
        return answer.session_present

    async def discard_session(self) -> None:
        """Discard what the broker has kept of a device's session that begins anew. Raises `MqttViolation`."""
        answer = await self._connect(self._connect_device, clean=True)
        if answer.code:
            raise MqttViolation(ReasonCode.SERVER_UNAVAILABLE, "the broker refuses the connection for subscriptions")
        if self._client.session.expiry_s:
            await self._end_session()

    async def _reach(self, connect: BrokerConnect, *, goes_on: bool, keeps: bool) -> ConnAck:
        """Connect to the broker; what it has kept of a session that does not go on is discarded before.

        Args:
            connect: opens a connection, with a clean session or not.
            goes_on: whether the session goes on.
            keeps: whether it is kept after this connection.
        """
        answer = await self._connect(connect, clean=not (goes_on or keeps))
        if answer.code or goes_on or not answer.session_present:
            return answer
        await self._end_session()
        answer = await self._connect(connect, clean=True)
        if answer.code:
            return answer
        await self._end_session()
        return await self._connect(connect, clean=False)

    async def _connect(self, connect: BrokerConnect, *, clean: bool) -> ConnAck:
        self._upstream = self._new_upstream(self._client, self._session_subscriptions(), self._shown)
        answer = await connect(self._upstream, clean)
        if answer.code == UNAVAILABLE:
            # nats-server holds the second of two that take over within a second, closes it, and takes the next one.
            self._upstream = self._new_upstream(self._client, self._session_subscriptions(), self._shown)
            answer = await connect(self._upstream, clean)
        return answer

    async def _connect_device(self, upstream: Upstream, clean: bool) -> ConnAck:  # noqa: FBT001 - as for guests
        return await upstream.open_device(self._client.device, clean=clean)

    async def _end_session(self) -> None:
        """Disconnect from the broker, which discards the session if it is a clean one."""
        ended, self._upstream = self._upstream, None
        if ended:
            await ended.end_session()

    # ── the open connection ──────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Forward the broker's packets: the client has its CONNACK."""
        if self._upstream:
            self._upstream.begin()

    def forward(self, packet: Acknowledgement) -> None:
        """Pass an acknowledgement of the client on."""
        if self._upstream:
            self._upstream.forward(packet)

    def hold(self, reason: str) -> None:
        """Stop reading from the broker: the client is slow."""
        if self._upstream:
            self._upstream.hold(reason)

    def release(self, reason: str) -> None:
        """Read from the broker again."""
        if self._upstream:
            self._upstream.release(reason)

    def close(self) -> None:
        """Close the connection to the broker."""
        if self._upstream:
            self._upstream.close()
