"""Turns of reading: a burst on many connections does not keep a front from sending batches, and order is kept."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from sensegate.collect.front import codec
from sensegate.collect.front.packets import Disconnect, Publish, Version, Will
from sensegate.collect.front.turns import ReadTurns
from tests.collect.front.front_rig import PacketClient, running_front

BURST = 40
"""Messages of each client, in one write."""
CLIENTS = 8


class Reader:
    """A connection that notes in which turn its bytes are taken."""

    def __init__(self, name: str, size: int, taken: list[str]) -> None:
        self.name = name
        self.deferred_bytes = size
        self._taken = taken

    def take_deferred(self) -> None:
        self._taken.append(self.name)


async def test_what_exceeds_a_turn_waits_for_the_next_ones() -> None:
    """A turn ends with the chunk that exceeds it; those that wait are taken in order, and nobody passes them."""
    taken: list[str] = []
    turns = ReadTurns(100)
    assert turns.admits(60)
    assert turns.admits(60)
    assert not turns.admits(1)
    for name in "abc":
        turns.wait(Reader(name, 60, taken))
    await asyncio.sleep(0)
    assert taken == ["a", "b"]
    assert not turns.admits(1)
    await asyncio.sleep(0)
    assert taken == ["a", "b", "c"]
    assert turns.admits(1)


async def test_a_closed_connection_is_forgotten() -> None:
    taken: list[str] = []
    turns = ReadTurns(1)
    first, second = Reader("a", 1, taken), Reader("b", 1, taken)
    turns.wait(first)
    turns.wait(second)
    turns.forget(first)
    turns.forget(first)
    await asyncio.sleep(0)
    assert taken == ["b"]


def _burst(client: PacketClient) -> bytes:
    topic = f"up/{client.connect.username}"
    packets = (Publish(topic, b"%d " % number * 50, 1, packet_id=number) for number in range(1, BURST + 1))
    return b"".join(codec.encode(packet, client.version) for packet in packets)


async def _connections_of_the_first_batch(turn_bytes: int) -> int:
    """Return of how many connections the first batch has messages, where all have a burst to be read."""
    async with running_front() as rig, contextlib.AsyncExitStack() as stack:
        rig.front.turns = ReadTurns(turn_bytes)
        names = [f"d{number}" for number in range(CLIENTS)]
        clients = [await stack.enter_async_context(rig.client(name, Version.MQTT_3_1_1)) for name in names]
        for client in clients:  # the loop does not turn meanwhile: all of them can be read at once
            client.write(_burst(client))
        for client in clients:
            assert await client.acknowledged(BURST) == list(range(1, BURST + 1))
        numbers: dict[str, list[int]] = {}
        for topic, payload in rig.store.messages:
            numbers.setdefault(topic, []).append(int(payload.split()[0]))
        assert numbers == {f"up/{name}": list(range(1, BURST + 1)) for name in names}
        return len(set(next(iter(rig.store.stored.values())).topics))


async def test_batches_are_sent_between_the_chunks_of_a_burst() -> None:
    """Every message is stored once, in the order of its connection, and the first batch does not wait for all."""
    assert await _connections_of_the_first_batch(10_000) < CLIENTS


async def test_without_turns_the_first_batch_waits_for_all() -> None:
    """Control: where a turn has no end, all connections are read before the first batch is sent."""
    assert await _connections_of_the_first_batch(1 << 30) == CLIENTS


async def test_messages_before_a_reset_are_taken() -> None:
    """Bytes that wait for a turn are taken before the end of the connection: after a DISCONNECT there is no will."""
    will = Will("up/d1", b"gone", 1)
    async with running_front() as rig:
        rig.front.turns = ReadTurns(1)
        async with rig.client("d1", Version.MQTT_3_1_1, will=will) as client, rig.client("d2") as other:
            other.write(codec.encode(Publish("up/d2", b"first", 1, packet_id=1), other.version))
            client.write(_burst(client) + codec.encode(Disconnect(), client.version))
            raw = client._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client._writer.transport.abort()
            assert await other.acknowledged(1) == [1]
            async with asyncio.timeout(30):
                while len(rig.store.messages) < BURST + 1:
                    await asyncio.sleep(0.005)
        assert b"gone" not in [payload for _, payload in rig.store.messages]
