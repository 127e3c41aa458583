"""The port of the MQTT fronts: reserved before they listen, kept over restarts, never shared with another program."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sensegate.bus.engine import Engine
from sensegate.bus.free_ports import free_port, is_free
from sensegate.clock import FakeClock
from sensegate.config import Config, ListenConfig, MqttConfig
from sensegate.errors import EngineError, Unavailable
from sensegate.ingest import mqtt_fronts
from sensegate.ingest.mqtt_fronts import FrontRegistry, MqttFronts
from tests.conftest import eventually


def fronts(directory: Path, clock: FakeClock, port: int = 0) -> MqttFronts:
    """Return fronts that only reserve their port."""
    config = Config(
        role="node",
        division="4401",
        directory=str(directory),
        listen=ListenConfig(mqtt=MqttConfig(port=port, processes=0)),
    )
    return MqttFronts(config, Engine.of(config, clock, slots=()), clock)


@contextlib.contextmanager
def taken(port: int) -> Iterator[None]:
    """Hold a port as another program would."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


@contextlib.asynccontextmanager
async def opened(of: MqttFronts) -> AsyncIterator[MqttFronts]:
    """Reserve the port and give it back."""
    await of.open()
    try:
        yield of
    finally:
        await of.stop()


async def begun(of: MqttFronts) -> asyncio.Task[None]:
    """Return the task that opens the fronts, after it has looked at the port once."""
    opening = asyncio.create_task(of.open())
    await asyncio.sleep(0)
    return opening


async def test_a_chosen_port_is_chosen_again(tmp_path: Path) -> None:
    """Devices find a gateway again that names no port."""
    async with opened(fronts(tmp_path, FakeClock())) as first:
        assert first.port
    async with opened(fronts(tmp_path, FakeClock())) as second:
        assert second.port == first.port


async def test_fronts_that_still_end_are_waited_for(tmp_path: Path) -> None:
    """The port that was configured is taken when those before have left it."""
    clock, port = FakeClock(), free_port()
    late = fronts(tmp_path, clock, port)
    with taken(port):
        opening = await begun(late)
        await clock.advance(1)
        assert not opening.done()
    await clock.advance(1)
    await opening
    assert late.port == port
    await late.stop()


async def test_a_configured_port_of_another_program_is_an_error(tmp_path: Path) -> None:
    """The error names the port and the setting."""
    clock, port = FakeClock(), free_port()
    with taken(port):
        opening = await begun(fronts(tmp_path, clock, port))
        await clock.advance(mqtt_fronts.PORT_WAIT_S + 1)
        with pytest.raises(EngineError, match=rf"port {port} on .* is taken; .*listen\.mqtt\.port"):
            await opening


async def test_a_chosen_port_of_another_program_is_given_up(tmp_path: Path) -> None:
    """Another one is chosen after the wait."""
    clock = FakeClock()
    async with opened(fronts(tmp_path, clock)) as first:
        pass
    with taken(first.port):
        opening = await begun(second := fronts(tmp_path, clock))
        await clock.advance(mqtt_fronts.PORT_WAIT_S + 1)
        await opening
        assert second.port != first.port
        await second.stop()


async def test_a_port_that_is_taken_meanwhile_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the bind another program may be faster: another port is chosen."""
    clock = FakeClock()
    looks: list[int] = []

    def free_at_first(port: int, host: str) -> bool:
        looks.append(port)
        return len(looks) == 1 or is_free(port, host)

    monkeypatch.setattr(mqtt_fronts, "is_free", free_at_first)
    with taken(port := free_port()):
        ports = iter([port, free_port()])
        monkeypatch.setattr(mqtt_fronts, "free_port", lambda _: next(ports))
        opening = await begun(of := fronts(tmp_path, clock))
        await clock.advance(1)
        await opening
        assert of.port == looks[1] != port
        await of.stop()


async def test_a_front_in_this_process_that_lost_the_engine_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the loss until it listens once more the gateway says that it does not."""
    lost = asyncio.Event()

    async def serve(*_: object, ready: Callable[[], None], **_more: object) -> None:
        ready()
        await lost.wait()
        raise Unavailable("the engine is gone")

    clock = FakeClock()
    monkeypatch.setattr(mqtt_fronts, "serve", serve)
    monkeypatch.setattr(MqttFronts, "_front_settings", lambda *_: None)
    async with opened(fronts(tmp_path, clock)) as front:
        await front.admit()
        assert front.not_ready() == []
        lost.set()
        await eventually(front.not_ready)
        assert front.not_ready() == ["mqtt-0 does not listen"]
        lost.clear()
        await clock.advance(mqtt_fronts.RESTART_MIN_S)
        assert front.not_ready() == []


async def test_profiles_that_change_while_fronts_are_told_are_told_again() -> None:
    """A front may have asked for its rights already, and would keep those of the profiles before."""
    clock, told = FakeClock(), []

    class Link:
        async def publish(self, subject: str, _payload: bytes) -> None:
            told.append(subject)
            if len(told) == 1:
                registry._profiles_changed(None, None)

    registry = FrontRegistry(Link(), None, None, None, clock)  # type: ignore[arg-type]
    running = asyncio.create_task(registry.run())
    for _ in range(3):
        await asyncio.sleep(0)
        await clock.advance(mqtt_fronts.CLOSE_GATHER_S)
    assert len(told) == 2
    running.cancel()
