"""A broker of MQTT 3.1.1 behind a front: as nats-server, it closes the older connection of a client id."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

from sensegate.collect.front import codec
from sensegate.collect.front.packets import ConnAck, ConnectPacket, Disconnect, PacketType, SubAck, Subscribe, Version
from sensegate.collect.front.upstream import BrokerAddress

_V = Version.MQTT_3_1_1


class StandInBroker:
    """Admits everybody, and keeps sessions that are not clean."""

    def __init__(self) -> None:
        self.connects: list[ConnectPacket] = []
        self.connections: dict[str, _Connection] = {}
        """Client id -> its open connection."""
        self.sessions: set[str] = set()
        """Client ids with a session that is kept."""
        self.closes = 0
        """How many of the next CONNECTs are answered by closing the connection."""
        self._unanswered: list[_Connection] | None = None

    def hold(self) -> None:
        """Answer no CONNECT until `release`."""
        self._unanswered = []

    def release(self) -> None:
        """Answer each CONNECT."""
        unanswered, self._unanswered = self._unanswered or [], None
        for connection in unanswered:
            connection.accept()

    def drop(self, client_id: str) -> None:
        """Close the connection of a client."""
        self.connections[client_id].transport.close()

    def connect(self, connection: _Connection) -> None:
        """Take a CONNECT."""
        client_id = connection.connect.client_id
        self.connects.append(connection.connect)
        if self.closes:
            self.closes -= 1
            connection.transport.close()
            return
        if older := self.connections.pop(client_id, None):
            older.transport.close()
        self.connections[client_id] = connection
        if self._unanswered is None:
            connection.accept()
        else:
            self._unanswered.append(connection)


class _Connection(asyncio.Protocol):
    """A connection of a front."""

    def __init__(self, broker: StandInBroker) -> None:
        self._broker = broker
        self._packets = codec.PacketReader(1024**2)
        self.connect = ConnectPacket(_V, "")
        self.transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._broker.connections.get(self.connect.client_id) is self:
            del self._broker.connections[self.connect.client_id]

    def data_received(self, data: bytes) -> None:
        for head, body in self._packets.feed(data):
            match codec.decode(head, body, _V):
                case ConnectPacket() as packet:
                    self.connect = packet
                    self._broker.connect(self)
                case Subscribe() as packet:
                    codes = tuple(wanted.qos for wanted in packet.subscriptions)
                    self.transport.write(codec.encode(SubAck(PacketType.SUBACK, packet.packet_id, codes), _V))
                case Disconnect():
                    self.transport.close()
                case _:
                    pass

    def accept(self) -> None:
        """Answer the CONNECT."""
        sessions, client_id = self._broker.sessions, self.connect.client_id
        is_present = not self.connect.clean_start and client_id in sessions
        (sessions.discard if self.connect.clean_start else sessions.add)(client_id)
        self.transport.write(codec.encode(ConnAck(0, is_present), _V))


@contextlib.asynccontextmanager
async def stand_in_broker() -> AsyncIterator[tuple[StandInBroker, BrokerAddress]]:
    """Run a broker on a free port."""
    broker = StandInBroker()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(broker), "127.0.0.1", 0)
    try:
        yield broker, BrokerAddress("127.0.0.1", int(server.sockets[0].getsockname()[1]), b"key")
    finally:
        server.close()
        for connection in list(broker.connections.values()):
            connection.transport.abort()
