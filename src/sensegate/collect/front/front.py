"""Front process: its listener, its connections, and their shared parts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
import structlog

from sensegate.clock import Clock
from sensegate.collect.front.batcher import BatchStore, BatchWriter
from sensegate.collect.front.clients import BrokerClient
from sensegate.collect.front.connection import MqttConnection
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.packets import ConnectPacket, MqttViolation, ReasonCode
from sensegate.collect.front.rights import Admitted, PassThroughClient
from sensegate.collect.front.services import ServiceConversation, ServiceGateway, guest_user
from sensegate.collect.front.sessions import (
    SESSIONS_PER_CREDENTIAL,
    MqttSession,
    SessionHolder,
    SessionKey,
    SessionRegistry,
)
from sensegate.collect.front.subscriptions import ClientSubscriptions
from sensegate.collect.front.turns import ReadTurns
from sensegate.collect.front.upstream import OPEN_S, BrokerAddress, ShownMessage, Upstream
from sensegate.collect.front.wills import DelayedWills, GuestWills
from sensegate.collect.handshakes import PacedListener, listening_socket
from sensegate.errors import CancellableTaskGroup

TICK_S = 0.25
"""Resolution of time-outs."""
TAKE_OVER_NOTICE_S = 0.5
"""The broker behind closes the connection of a client that is taken over; who has done so is heard within this time."""
_BACKLOG = 4_096

_log = structlog.get_logger("collect")


class ClientAdmission(Protocol):
    """Decides who may connect."""

    async def admit(self, connect: ConnectPacket, address: str, common_name: str) -> Admitted | PassThroughClient:
        """Return the rights of a client, or that it is no device. Raises `MqttViolation` with the reason."""
        ...


class SessionMemory(Protocol):
    """Sessions of all fronts, so that a client finds its session after the end of the front that had it."""

    def find(self, key: SessionKey) -> MqttSession | None:
        """Return the stored state of a session that has not expired."""
        ...

    async def put(self, key: SessionKey, session: MqttSession) -> bool:
        """Remember a session, or that it ends with its connection.

        Returns:
            Whether it is certain that no other front has held the session since this one did.
        """
        ...

    def end(self, key: SessionKey, session: MqttSession) -> None:
        """Remember that the connection of a session has ended; its expiry begins."""
        ...


class FrontNeighbours(Protocol):
    """The other fronts."""

    async def announce(self, key: SessionKey) -> None:
        """Tell them that a client that is no device connects, before the broker behind closes its older connection."""
        ...

    async def take_over(self, key: SessionKey, born: int, *, clean: bool) -> None:
        """Close older connections of a client; return when their messages are stored, within a time limit."""
        ...


class Observer(Protocol):
    """Counter of a front's events."""

    def refused(self, device: str, operation: str, detail: str, address: str) -> None:
        """Count a refused operation."""
        ...

    def hit(self, limit: str) -> None:
        """Count a limit that was reached."""
        ...


class Alone:
    """Neither other fronts nor a memory of sessions."""

    def find(self, key: SessionKey) -> MqttSession | None:  # noqa: ARG002 - of the contract
        return None

    async def put(self, key: SessionKey, session: MqttSession) -> bool:  # noqa: ARG002 - of the contract
        """Remember nothing; return True: there is no other front."""
        return True

    def end(self, key: SessionKey, session: MqttSession) -> None:
        """Remember nothing."""

    async def announce(self, key: SessionKey) -> None:
        """Tell nobody: there is no other front."""

    async def take_over(self, key: SessionKey, born: int, *, clean: bool) -> None:
        """Return: there is no other front."""


class FrontPeers(msgspec.Struct, frozen=True, eq=False):
    """Parts that a front works with: the broker, the shared sessions, the other fronts, the services of the gateway."""

    broker: BrokerAddress | None = None
    """The broker behind, for clients that subscribe; None: there is none."""
    memory: SessionMemory | None = None
    """Sessions known to all fronts."""
    neighbours: FrontNeighbours | None = None
    """The other fronts."""
    services: ServiceGateway | None = None
    """Answers clients that are no devices; None: there are none."""


class Front:
    """The connections of a process."""

    def __init__(
        self,
        store: BatchStore,
        instance: bytes,
        admission: ClientAdmission,
        observer: Observer,
        *,
        clock: Clock,
        limits: FrontLimits,
        beside: FrontPeers | None = None,
    ) -> None:
        """Prepare a front; `listen` begins, `run` has to run.

        Args:
            store: stores batches.
            instance: id under which the batches are numbered.
            admission: decides who may connect.
            observer: counts refusals and limits.
            clock: the clock.
            limits: limits of connections, packets and queues.
            beside: what stands beside this front; None: it is alone.
        """
        alone, beside = Alone(), beside or FrontPeers()
        self.limits = limits
        self.clock = clock
        self.admission = admission
        self.sessions = SessionRegistry()
        self.writer = BatchWriter(store, instance, clock, queue_bytes_max=limits.queue_bytes_max)
        self.turns = ReadTurns()
        self.seconds = clock.monotonic()
        """Monotonic time, a tick old at most: reading the clock for each packet would cost as much as the packet."""
        self._observer = observer
        self._broker = beside.broker
        self._memory = beside.memory or alone
        self._neighbours = beside.neighbours or alone
        self._services = beside.services
        self._connections: set[MqttConnection] = set()
        self._by_device: dict[str, MqttConnection] = {}
        self._by_address: Counter[str] = Counter()
        self._closing: set[MqttConnection] = set()
        self._guests: dict[SessionKey, MqttConnection] = {}
        """Connections of clients that are no devices."""
        self._arriving: Counter[SessionKey] = Counter()
        """Such clients whose CONNECT the broker behind has not answered."""
        self._announced: dict[SessionKey, float] = {}
        """Such clients that connect to another front -> until when they may do so."""
        self._cut_off: dict[MqttConnection, float] = {}
        """Such clients that have lost their connection to the broker -> when they are disconnected for that."""
        self.delayed_wills = DelayedWills()
        self.guest_wills = GuestWills(self.hit)
        self._server: asyncio.Server | None = None
        self._paced: PacedListener | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    # ── listening ────────────────────────────────────────────────────────────────────────────────────

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Accept connections; return the port."""
        if tls:
            listener = listening_socket(host, port, _BACKLOG)
            self._paced = PacedListener(listener, tls, lambda: MqttConnection(self))
            return int(listener.getsockname()[1])
        self._server = await asyncio.get_running_loop().create_server(
            lambda: MqttConnection(self), host, port, reuse_port=True, backlog=_BACKLOG
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def run(self) -> None:
        """Store batches and watch time-outs until cancelled."""
        async with CancellableTaskGroup() as group:
            group.create_task(self.writer.run(), name="mqtt batches")
            group.create_task(self._watch(), name="mqtt time-outs")
            group.create_task(self.guest_wills.run(), name="mqtt wills")

    async def close(self, timeout_s: float = 5.0) -> None:
        """Accept no more, store what was taken (`run` still has to run), acknowledge it, and disconnect all."""
        if self._server:
            self._server.close()
        if self._paced:
            self._paced.close()
        for connection in tuple(self._connections):
            connection.stop_reading()
        await self.writer.drain(timeout_s)
        for connection in tuple(self._connections):
            connection.close(ReasonCode.SERVER_SHUTTING_DOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.close_timeout_s):
                await self._empty.wait()
        for connection in tuple(self._connections):
            connection.abort()

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._connections)

    # ── connections ──────────────────────────────────────────────────────────────────────────────────

    def accepted(self, connection: MqttConnection) -> bool:
        """Count a connection; return whether it is within the limits."""
        self._connections.add(connection)
        self._empty.clear()
        self._by_address[connection.address] += 1
        if len(self._connections) > self.limits.connections_max:
            self.hit("mqtt_connections")
            return False
        if self._by_address[connection.address] > self.limits.connections_per_address_max:
            self.hit("mqtt_connections_per_address")
            return False
        return True

    def ended(self, connection: MqttConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        self._closing.discard(connection)
        self._by_address[connection.address] -= 1
        if not self._by_address[connection.address]:
            del self._by_address[connection.address]
        if self._by_device.get(connection.device) is connection:
            del self._by_device[connection.device]
        if connection.key and self._guests.get(connection.key) is connection:
            del self._guests[connection.key]
        self._cut_off.pop(connection, None)

    def closing(self, connection: MqttConnection) -> None:
        """Abort a connection whose client does not close it in time."""
        self._closing.add(connection)

    async def take_over(self, connection: MqttConnection, key: SessionKey, *, clean: bool) -> None:
        """Close older connections of a device, here and at other fronts, before a new one is answered.

        A device has one connection: the newest, whatever its client id, since one that lost its network comes back
        before the old connection has timed out. Messages of the older one are ahead in the batches.

        Args:
            connection: the new one.
            key: its session.
            clean: whether the session begins anew.
        """
        older = self._by_device.get(key.credential)
        # From here on it is the device's connection: others that connect meanwhile find it, here and at other fronts.
        self._by_device[key.credential] = connection
        if older is not None and older is not connection:
            if older.client_id != connection.client_id:
                self.refused(key.credential, "connect", "another client id took over", connection.address)
            else:
                older.will.settle(session_ends=clean)
            older.close(ReasonCode.SESSION_TAKEN_OVER)
        self.delayed_wills.settle(key, session_ends=clean)
        await self._neighbours.take_over(key, connection.born, clean=clean)

    @contextlib.asynccontextmanager
    async def arriving(self, key: SessionKey) -> AsyncIterator[None]:
        """Note, here and at other fronts, that a client that is no device waits for the answer of the broker behind."""
        self._arriving[key] += 1
        try:
            await self._neighbours.announce(key)
            yield
        finally:
            self._arriving[key] -= 1
            if not self._arriving[key]:
                del self._arriving[key]

    async def take_over_guest(self, connection: MqttConnection, key: SessionKey, *, clean: bool) -> None:
        """Close the older connection of a client that is no device, here or at another front.

        The broker behind has admitted the new one, and closed its connection of the older one. Unlike a device, such a
        client may have several connections under different client ids.
        """
        older = self._guests.get(key)
        self._guests[key] = connection
        if older is not None:
            older.will.settle(session_ends=clean)
            older.close(ReasonCode.SESSION_TAKEN_OVER)
        self.delayed_wills.settle(key, session_ends=clean)
        await self._neighbours.take_over(key, connection.born, clean=clean)

    def announced(self, key: SessionKey) -> None:
        """Note that a client that is no device connects to another front."""
        if key in self._guests:
            self._announced[key] = self.seconds + OPEN_S

    def cut_off(self, connection: MqttConnection) -> None:
        """Disconnect a client whose connection to the broker is lost, unless it turns out to be taken over."""
        self._cut_off[connection] = self.seconds + TAKE_OVER_NOTICE_S

    def taken_over(self, key: SessionKey, born: int, *, clean: bool = False) -> bool:
        """Close the connection of a client that is older than one at another front; return whether there was one."""
        self.delayed_wills.settle(key, session_ends=clean)
        held = self._by_device.get(key.credential) or self._guests.get(key)
        if held is None or held.born >= born:
            return False
        if held.client_id == key.client_id:
            held.will.settle(session_ends=clean)
        held.close(ReasonCode.SESSION_TAKEN_OVER)
        return True

    def disconnect(self, device: str, reason: ReasonCode) -> None:
        """Disconnect a device."""
        if connection := self._by_device.get(device):
            connection.close(reason)

    def change_rights(self, admitted: Admitted, *, subscriptions_differ: bool) -> None:
        """Apply changed rights to an open connection."""
        if connection := self._by_device.get(admitted.device):
            connection.change_rights(admitted, subscriptions_differ=subscriptions_differ)

    def devices(self) -> list[str]:
        """Return the devices that are connected."""
        return list(self._by_device)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────────

    def remembered(self, key: SessionKey) -> MqttSession | None:
        """Return what all fronts know of a session."""
        return self._memory.find(key)

    async def remember(self, key: SessionKey, session: MqttSession) -> bool:
        """Announce a session to all fronts; return whether no other front has held it since this one did."""
        return await self._memory.put(key, session)

    def end_session(self, key: SessionKey, session: MqttSession, holder: SessionHolder) -> None:
        """Let the connection of a session end, unless a newer one holds it.

        Of a session with too many packet ids that wait for their PUBREL none is kept: a message that its client sends
        again is stored once more, and found to be a duplicate by its content.
        """
        if self.sessions.end(key, holder, self.seconds):
            if len(session.received) > self.limits.inflight_max:
                session.received.clear()
            self._memory.end(key, session)

    def delay_will(self, connection: MqttConnection, key: SessionKey, delay_s: float) -> None:
        """Publish the will of a connection later, unless its client comes back before.

        A device has one will that waits: that of another session of the device is published at once.
        """
        most = 1 if connection.device else SESSIONS_PER_CREDENTIAL
        self.delayed_wills.add(key, connection.will, self.seconds + delay_s, most=most)

    def upstream(self, client: BrokerClient, subscriptions: ClientSubscriptions, shown: ShownMessage) -> Upstream:
        """Return a connection to the broker behind. Raises `MqttViolation`: there is none."""
        if self._broker is None:
            raise MqttViolation(ReasonCode.NOT_AUTHORIZED, "this listener takes devices only")
        return Upstream(self._broker, client, self.clock, subscriptions, shown)

    def conversation(self, user: str) -> ServiceConversation:
        """Return what speaks with the gateway for a client that is no device. Raises `MqttViolation`: nothing does."""
        if self._services is None:
            raise MqttViolation(ReasonCode.NOT_AUTHORIZED, "this listener takes devices only")
        return ServiceConversation(guest_user(user), self._services)

    # ── observation ──────────────────────────────────────────────────────────────────────────────────

    def refused(self, device: str, operation: str, detail: str, address: str) -> None:
        """Count a refused operation."""
        self._observer.refused(device, operation, detail, address)

    def hit(self, limit: str) -> None:
        """Count a limit that was reached."""
        self._observer.hit(limit)

    def violated(self, connection: MqttConnection, why: MqttViolation) -> None:
        """Note a connection that is closed because of its client."""
        self._observer.hit(f"mqtt_{why.reason.name.lower()}")
        _log.debug(
            "connection closed",
            device=connection.device,
            client_id=connection.client_id,
            address=connection.address,
            code=why.reason.name,
            reason=str(why),
        )

    # ── time-outs ────────────────────────────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        ticks = 0
        while True:
            await self.clock.sleep(TICK_S)
            self.seconds = self.clock.monotonic()
            for connection in [held for held in self._closing if self.seconds >= held.closing_at]:
                connection.abort()
            self._disconnect_cut_off()
            self.delayed_wills.publish_due(self.seconds)
            ticks += 1
            if ticks % 4 == 0:
                self._check_silence()

    def _disconnect_cut_off(self) -> None:
        for key in [key for key, until in self._announced.items() if self.seconds >= until]:
            del self._announced[key]
        for connection in [connection for connection, due in self._cut_off.items() if self.seconds >= due]:
            if connection.key in self._arriving or connection.key in self._announced:
                continue  # who arrives may be the one that has taken it over
            del self._cut_off[connection]
            connection.close_cut_off()

    def _check_silence(self) -> None:
        now, limits = self.clock.now(), self.limits
        for connection in tuple(self._connections):
            silent_s = self.seconds - connection.heard_at
            if connection.is_held or connection.closing_at:
                continue
            if not connection.is_connected:
                if silent_s > limits.connect_timeout_s:
                    connection.abort()
            elif connection.keep_alive_s and silent_s > 1.5 * connection.keep_alive_s:
                connection.close(ReasonCode.KEEP_ALIVE_TIMEOUT)
            elif connection.until and now > connection.until:
                connection.close(ReasonCode.NOT_AUTHORIZED)
