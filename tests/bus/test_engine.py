"""The engine's life: started, adopted, restarted, ended; reachable only where the configuration says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from sensegate.bus import process, streams
from sensegate.bus.engine import Engine, EngineInfo, User
from sensegate.bus.free_ports import free_port
from sensegate.bus.inventory import KnownStream
from sensegate.bus.log import JetStreamLog
from sensegate.clock import SystemClock
from sensegate.config import EngineConfig, StoreConfig
from sensegate.errors import ConfigError, EngineError, StreamLost, Unavailable
from sensegate.model import LogMessage
from tests.bus.devices import MqttDevice, alive, engine_in, until, written
from tests.conftest import eventually

GATEWAY = """
import asyncio, sys
from pathlib import Path
import msgspec
from sensegate.bus.engine import Engine
from sensegate.clock import SystemClock
from sensegate.config import EngineConfig, StoreConfig

async def main():
    engine = Engine(EngineConfig(durability="process"), StoreConfig(), Path(sys.argv[1]), name="4401")
    print(msgspec.json.encode(await engine.start()).decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Gateway:
    """A gateway in a process of its own, to be killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._child = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    async def started(self) -> EngineInfo:
        """Return what it says of its engine."""
        import msgspec

        assert self._child.stdout is not None
        line = await asyncio.to_thread(self._child.stdout.readline)
        return msgspec.json.decode(line, type=EngineInfo)

    def kill(self) -> None:
        """`kill -9`."""
        self._child.kill()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()


@pytest.fixture
async def killed(tmp_path: Path) -> AsyncIterator[EngineInfo]:
    """The engine of a gateway that was killed; its server is ended after the test, whatever became of it."""
    gateway = Gateway(tmp_path)
    info = await gateway.started()
    gateway.kill()
    yield info
    match = process.find(tmp_path / "engine")
    if match is not None:
        await match.terminate()
        match.release()


def listening(pid: int) -> set[tuple[str, int]]:
    """What a process listens on, as `ss` sees it."""
    tool = shutil.which("ss")
    if not tool:
        pytest.skip("ss is not installed")
    lines = subprocess.run([tool, "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    places = [line.split()[3].rsplit(":", 1) for line in lines if f"pid={pid}," in line]
    return {(host, int(port)) for host, port in places}


# ── start and stop ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.live
async def test_an_orderly_stop_leaves_nothing(tmp_path: Path) -> None:
    """No process, no listener, no lock; only the store and what the next start needs."""
    engine = engine_in(tmp_path)
    info = await engine.start()
    assert alive(info.pid)
    await engine.stop()
    assert not alive(info.pid)
    assert process.find(tmp_path / "engine") is None
    for port in (info.port, info.mqtt_port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    os.close(process.lock(tmp_path / "engine" / "store.lock", "still locked"))
    os.close(process.lock(tmp_path / "engine" / "gateway.lock", "still locked"))


@pytest.mark.live
@pytest.mark.parametrize("which", ["port", "mqtt_port"])
async def test_a_port_taken_meanwhile_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """A chosen port that another program takes before the server listens costs one start; the gateway still starts."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as `free_port`: one in TIME_WAIT counts as free
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        taken = other.getsockname()[1]
        free = [free_port() for _ in range(3)]
        offers = iter([taken, *free] if which == "port" else [free[0], taken, *free[1:]])
        monkeypatch.setattr("sensegate.bus.engine.free_port", lambda _host: next(offers))
        engine = engine_in(tmp_path)
        info = await engine.start()
        try:
            assert taken not in {info.port, info.mqtt_port}
            assert listening(info.pid) == {("127.0.0.1", info.port), ("127.0.0.1", info.mqtt_port)}
        finally:
            await engine.stop()


@pytest.mark.live
async def test_a_configured_port_is_not_replaced(tmp_path: Path) -> None:
    """Clients know it: the gateway ends and says which port is taken."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as `free_port`: one in TIME_WAIT counts as free
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        taken = other.getsockname()[1]
        config = EngineConfig(port=taken, mqtt_port=free_port(), durability="process")
        with pytest.raises(EngineError, match=f"{taken}.*address already in use"):
            await Engine(config, StoreConfig(), tmp_path, name="4401").start()


async def test_nothing_listens_beyond_the_configuration(engine: Engine) -> None:
    """Client and MQTT port on the configured addresses; no monitoring, route, leaf or WebSocket port."""
    assert listening(engine.info.pid) == {("127.0.0.1", engine.info.port), ("127.0.0.1", engine.info.mqtt_port)}
    assert engine.info.port < 32_768
    assert engine.info.mqtt_port < 32_768


async def test_files_with_secrets_are_ours_alone(engine: Engine, tmp_path: Path) -> None:
    """Configuration and kept secrets are 0600, the directory 0700; the log shows no password."""
    directory = tmp_path / "engine"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in (directory / "engine.json", *directory.glob("nats-*.conf")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for role in User:
        assert engine.credential(role).password not in (directory / "nats.log").read_text()


@pytest.mark.live
async def test_ports_and_secrets_are_kept(tmp_path: Path) -> None:
    """The next start listens where the last did and knows the same users, so that devices and nodes find it again."""
    first = engine_in(tmp_path)
    before = await first.start()
    issuer = first.issuer
    await first.stop()
    second = engine_in(tmp_path)
    after = await second.start()
    assert (after.port, after.mqtt_port, second.issuer) == (before.port, before.mqtt_port, issuer)
    assert second.credential(User.GATEWAY) == first.credential(User.GATEWAY)
    await second.stop()


@pytest.mark.live
async def test_a_chosen_port_that_was_taken_meanwhile_is_chosen_anew(tmp_path: Path) -> None:
    """A port of ours is a choice, not a promise; a configured one is a promise and fails."""
    first = engine_in(tmp_path)
    before = await first.start()
    await first.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", before.mqtt_port))
        taken.listen()
        async with engine_in(tmp_path) as second:
            assert second.info.mqtt_port != before.mqtt_port
            assert second.info.port == before.port
        fixed = engine_in(tmp_path, EngineConfig(mqtt_port=before.mqtt_port))
        with pytest.raises(EngineError, match="address already in use"):
            await fixed.start()
        assert process.find(tmp_path / "engine") is None


@pytest.mark.live
async def test_damaged_kept_secrets_are_said_and_not_made_anew(tmp_path: Path) -> None:
    """New secrets would lock out every node; a person has to look."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "engine.json").write_text("{")
    with pytest.raises(EngineError, match=r"engine\.json"):
        await engine_in(tmp_path).start()


@pytest.mark.parametrize("version", ["2.14.4", "2.10.27", "2.9.0-beta", "unknown"])
def test_an_old_server_is_refused(version: str) -> None:
    """Before 2.14.5 atomic batches or MQTT fixes are missing."""
    with pytest.raises(EngineError, match=r"2\.14\.5"):
        process.check_version(version)


@pytest.mark.parametrize("version", ["2.14.5", "2.15.1", "3.0.0", "2.16.0-RC.1"])
def test_a_new_server_is_taken(version: str) -> None:
    """Negative control of the version check."""
    process.check_version(version)


# ── never two on one store ───────────────────────────────────────────────────────────────────────────


async def test_a_second_gateway_is_refused(engine: Engine, tmp_path: Path) -> None:
    """While one gateway has the directory, another start fails and disturbs nothing."""
    second = Engine(EngineConfig(), StoreConfig(), tmp_path, name="4401")
    with pytest.raises(EngineError, match="another gateway"):
        await second.start()
    assert alive(engine.info.pid)
    await (await engine.connect(User.GATEWAY)).close()


@pytest.mark.live
async def test_a_second_server_is_refused_even_when_the_first_is_not_found(
    killed: EngineInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself holds the lock of its store, so no confusion of process ids starts a second one."""
    monkeypatch.setattr(process, "find", lambda _: None)
    with pytest.raises(EngineError, match="another nats-server uses this store"):
        await engine_in(tmp_path).start()
    assert alive(killed.pid)
    monkeypatch.undo()


# ── a killed gateway ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.live
async def test_a_killed_gateway_leaves_its_server_and_devices_and_the_next_adopts_them(tmp_path: Path) -> None:
    """`kill -9` of the gateway: devices stay connected and are PUBACKed; the next start takes the same process."""
    gateway = Gateway(tmp_path)
    before = await gateway.started()
    probe = engine_in(tmp_path)
    probe._info = before
    async with MqttDevice(probe) as device:
        gateway.kill()
        assert await device.published("a/b", b"1")
        async with engine_in(tmp_path) as engine:
            assert engine.info.adopted
            assert engine.info.pid == before.pid
            assert await device.published("a/b", b"2")
            assert device.disconnects == 0
            assert [connection.mqtt_client for connection in await engine.connections("SUB")] == ["device-1"]
    assert not alive(before.pid)


@pytest.mark.live
async def test_an_adopted_server_is_watched_too(killed: EngineInfo, tmp_path: Path) -> None:
    """It is no child of ours, and is started again all the same when it dies."""
    async with engine_in(tmp_path) as engine:
        assert engine.info.adopted
        os.kill(killed.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await engine.restarted.wait()
        assert engine.info.pid != killed.pid
        assert not engine.info.adopted


@pytest.mark.live
async def test_a_changed_configuration_means_an_orderly_restart(killed: EngineInfo, tmp_path: Path) -> None:
    """The server left behind runs with other settings: it is ended in order, the new one keeps ports and store."""
    async with engine_in(tmp_path, EngineConfig(max_payload_bytes=2 * 1024**2)) as engine:
        assert not engine.info.adopted
        assert engine.info.pid != killed.pid
        assert engine.info.max_payload == 2 * 1024**2
        assert engine.info.port == killed.port
        assert not alive(killed.pid)
    assert "Server Exiting" in (tmp_path / "engine" / "nats.log").read_text()


@pytest.mark.live
async def test_the_server_inherits_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets in the environment of the gateway are not in that of the server; what an operator tunes is."""
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("GOMEMLIMIT", "1GiB")
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    async with engine_in(tmp_path) as engine:
        raw = Path(f"/proc/{engine.info.pid}/environ").read_bytes().decode()
        names = {variable.partition("=")[0] for variable in raw.split("\0") if variable}
        assert {"GOMEMLIMIT", "TZ"} <= names <= {"GOMAXPROCS", "GOMEMLIMIT", "GOGC", "TZ"}


@pytest.mark.live
async def test_connections_beyond_the_cap_are_refused(tmp_path: Path) -> None:
    """The server says so and closes; those within the cap stay open."""
    refusal = b"maximum connections exceeded"
    async with engine_in(tmp_path, EngineConfig(max_connections=16)) as engine, contextlib.AsyncExitStack() as stack:

        async def first_lines() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", engine.info.port)
            stack.callback(writer.close)
            lines = await reader.readline()
            while refusal not in lines and (line := await reader.readline()):
                lines += line
            return lines

        tasks = [asyncio.create_task(first_lines()) for _ in range(20)]

        def refused() -> int:
            return sum(task.done() and refusal in task.result() for task in tasks)

        await eventually(lambda: refused() >= 4)
        assert refused() < 20
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.live
async def test_a_hung_server_is_replaced(killed: EngineInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was stopped does not answer: it is ended and another one started."""
    monkeypatch.setattr("sensegate.bus.engine._ADOPT_S", 0.3)
    os.kill(killed.pid, signal.SIGSTOP)
    async with engine_in(tmp_path) as engine:
        assert not engine.info.adopted
        assert not alive(killed.pid)


# ── a killed server ──────────────────────────────────────────────────────────────────────────────────


async def test_a_killed_server_is_started_again_with_everything_it_had(engine: Engine, log: JetStreamLog) -> None:
    """Same ports, same store; connections come back by themselves; what was written is there."""
    before = engine.info
    assert await log.write([LogMessage("raw.a", b"1"), LogMessage("commit.a", b"c", rollup=True)]) == 2
    for _ in range(2):
        engine.restarted.clear()
        os.kill(engine.info.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await engine.restarted.wait()
    assert engine.info.pid != before.pid
    assert (engine.info.port, engine.info.mqtt_port) == (before.port, before.mqtt_port)
    assert await written(log, LogMessage("commit.a", b"d", rollup=True, expect=2)) == 3
    assert [entry.payload for entry in await log.fetch(0)] == [b"1", b"d"]


async def test_a_server_that_cannot_start_is_tried_again_with_growing_pauses(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back-off doubles up to the configured most, and the server comes back when it can."""
    pauses: list[float] = []
    real = engine._clock.sleep

    async def sleep(seconds: float) -> None:
        task = asyncio.current_task()
        if seconds >= 0.1 and task is not None and task.get_name() == "engine watch":
            pauses.append(seconds)
            await asyncio.sleep(0)
        else:
            await real(seconds)

    failures: list[Exception] = [ConfigError("a certificate that is being replaced"), OSError(28, "No space left")]
    conf = engine._server_config

    def failing(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return conf(*given)

    monkeypatch.setattr(engine._clock, "sleep", sleep)
    monkeypatch.setattr(engine, "_server_config", failing)
    monkeypatch.setattr(process, "binary", lambda: "/nowhere/nats-server")
    os.kill(engine.info.pid, signal.SIGKILL)
    await until(lambda: len(pauses) > 9)
    assert pauses[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]
    monkeypatch.undo()
    async with asyncio.timeout(60):
        await engine.restarted.wait()
    await (await engine.connect(User.GATEWAY)).close()


# ── a server that needs long to come back ────────────────────────────────────────────────────────────


class JumpingClock(SystemClock):
    """The machine's clock, with a monotonic time that also passes by `ticks` and while the store is monitored."""

    ticks = 0.0
    polls = 0
    """Number of times that the watch of the server has looked whether it listens."""

    def monotonic(self) -> float:
        return super().monotonic() + self.ticks

    async def sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        name = task.get_name() if task else ""
        if name == "engine watch" and seconds < 0.1:
            self.polls += 1
        if name == "engine store":
            self.ticks += seconds
        await super().sleep(min(seconds, 0.02))


class SlowServer:
    """An engine whose server is killed and listens again only once it is released."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = JumpingClock()
        self.engine = Engine(
            EngineConfig(durability="process"), StoreConfig(), directory, name="4401", clock=self.clock
        )
        self._gate, self._script = directory / "gate", directory / "nats-server"
        os.mkfifo(self._gate)
        self._script.write_text(f'#!/bin/sh\nread _ < "{self._gate}"\nexec "{process.binary()}" "$@"\n')
        self._script.chmod(0o700)
        self._monkeypatch = monkeypatch

    async def kill(self) -> int:
        """Kill the server; return the process id of the next one, which does not listen yet."""
        before = self.engine.info.pid
        self._monkeypatch.setattr(process, "binary", lambda: str(self._script))
        os.kill(before, signal.SIGKILL)
        await until(lambda: self.pid not in {0, before})
        return self.pid

    @property
    def pid(self) -> int:
        """Process id of the running server; 0: none runs."""
        running = self.engine._process
        return running.pid if running is not None and running.is_alive else 0

    async def release(self) -> None:
        """Let it listen."""
        await asyncio.to_thread(self._gate.write_text, "\n")


@pytest.fixture
async def slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowServer]:
    """Start such a server; stop it after the test."""
    slow = SlowServer(tmp_path, monkeypatch)
    async with slow.engine:
        yield slow


@pytest.mark.live
async def test_a_recovery_of_many_minutes_is_waited_for_and_its_streams_are_verified(slow_server: SlowServer) -> None:
    """The restart is complete only when each known stream was found, however long the server recovers its store."""
    engine, clock = slow_server.engine, slow_server.clock
    await slow_server.kill()
    engine.inventory._streams["SG", "KV_gone"] = KnownStream("SG", "KV_gone", "2026-12-01T00:00:00Z")
    clock.ticks += 1_000
    polls = clock.polls
    await until(lambda: clock.polls > polls + 5, 10)
    assert engine.warnings() == ["engine: the server is restarted; it recovers its store"]
    await slow_server.release()
    with pytest.raises(StreamLost, match="SG/KV_gone"):
        async with asyncio.timeout(60):
            await engine.wait_failed()
    assert not engine.restarted.is_set()


@pytest.mark.live
async def test_a_server_that_recovers_its_store_is_not_taken_for_stuck(slow_server: SlowServer) -> None:
    """A recovering server does not respond to probes; if the gateway restarted it, the recovery would never finish."""
    engine, clock = slow_server.engine, slow_server.clock
    await until(lambda: len(engine._store_monitor._clients) == 3)
    pid = await slow_server.kill()
    began = clock.ticks
    await until(lambda: clock.ticks > began + 300)
    assert slow_server.pid == pid
    await slow_server.release()
    async with asyncio.timeout(60):
        await engine.restarted.wait()
    assert engine.info.pid == pid


@pytest.mark.live
async def test_a_server_that_never_listens_is_replaced(slow_server: SlowServer) -> None:
    """Even a recovery has an end: after an hour of monotonic time the server is ended and another one started."""
    pid = await slow_server.kill()
    slow_server.clock.ticks += 4_000
    await until(lambda: slow_server.pid not in {0, pid})
    await slow_server.release()
    async with asyncio.timeout(60):
        await slow_server.engine.restarted.wait()
    assert slow_server.engine.info.pid == slow_server.pid != pid


async def test_streams_that_could_not_be_verified_are_asked_for_once_more(
    engine: Engine, gateway: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is slow after its restart does not pass for one that has everything."""
    real, warned = streams.verify, list[list[str]]()

    async def verify(link: Any, name: str) -> None:
        warned.append(engine.warnings())
        if len(warned) == 1:
            raise Unavailable("no response")
        if len(warned) == 2:
            raise EngineError("an error without a name")
        if len(warned) == 3:
            engine.inventory._streams["SG", name] = KnownStream("SG", name, "2026-12-01T00:00:00Z")
        await real(link, name)

    monkeypatch.setattr("sensegate.bus.streams.verify", verify)
    os.kill(engine.info.pid, signal.SIGKILL)
    with pytest.raises(StreamLost, match="it was created again"):
        async with asyncio.timeout(60):
            await engine.wait_failed()
    assert not engine.restarted.is_set()
    assert {text for texts in warned for text in texts} == {
        "engine: the server was restarted; its streams are not compared with the inventory yet"
    }
