"""Ports are chosen where no burst of connections can have taken them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sensegate.bus import free_ports
from sensegate.errors import EngineError


def test_a_free_port_lies_below_the_ephemeral_range_and_binds() -> None:
    """Rule 10: below 32768, and it can be bound now."""
    for _ in range(20):
        port = free_ports.free_port()
        assert 10_240 <= port < 32_768
        assert free_ports.is_free(port)


def test_no_port_is_offered_twice() -> None:
    """Two listeners that start together get two ports, however many were offered before."""
    ports = [free_ports.free_port() for _ in range(2_000)]
    assert len(set(ports)) == len(ports)


def test_a_taken_port_is_not_free() -> None:
    """Negative control: a listener is noticed."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as `free_port`: one in TIME_WAIT counts as free
        taken.bind(("127.0.0.1", free_ports.free_port()))
        taken.listen()
        assert not free_ports.is_free(taken.getsockname()[1])


def test_an_address_of_another_machine_is_said_so() -> None:
    """No endless search where nothing can bind."""
    with pytest.raises(EngineError, match=r"203\.0\.113\.1"):
        free_ports.free_port("203.0.113.1")


async def listener(port: int) -> asyncio.Server:
    """Listen and say nothing."""
    return await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)


async def test_a_free_one_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that is faster costs one try; a port that was asked for is not replaced by another one."""
    taken, held = await free_ports.listen(listener, 0)
    try:
        free = free_ports.free_port()
        offers = iter([held, free])
        monkeypatch.setattr(free_ports, "free_port", lambda _host: next(offers))
        second, port = await free_ports.listen(listener, 0)
        second.close()
        assert port == free
        with pytest.raises(OSError, match="in use"):
            await free_ports.listen(listener, held)
    finally:
        taken.close()
