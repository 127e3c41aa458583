"""A Mosquitto of our own on a free loopback port, for tests of foreign brokers."""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from sensegate.bus.free_ports import free_port

BINARY = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class Mosquitto:
    """Writes its sessions to disk at every change, unless not `persistent`; `kill` and `start` it as you like."""

    def __init__(
        self,
        directory: Path,
        *,
        inflight_max: int = 0,
        persistent: bool = True,
        queued_max: int = 100_000,
        anonymous: bool = True,
        acl: str = "",
    ) -> None:
        """`acl`: content of the file of rights; empty: everybody may everything."""
        self.port = free_port()
        kept = (
            f"persistence true\npersistence_location {directory}/\nautosave_interval 1\nautosave_on_changes true\n"
            if persistent
            else "persistence false\n"
        )
        self._conf = directory / "mosquitto.conf"
        self._conf.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous {str(anonymous).lower()}\n{kept}"
            f"max_inflight_messages {inflight_max}\nmax_queued_messages {queued_max}\nset_tcp_nodelay true\n"
        )
        if acl:
            (directory / "acl").write_text(acl)
            with self._conf.open("a") as file:
                file.write(f"acl_file {directory}/acl\n")
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it and wait until it listens."""
        assert BINARY, "mosquitto is missing: make setup"
        self._process = await asyncio.create_subprocess_exec(
            BINARY, "-c", str(self._conf), stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)  # it has no other way to say that it listens
                    continue
                writer.close()
                return

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        assert self._process
        return self._process.pid

    async def kill(self) -> None:
        """End it; SIGTERM, so that it writes its sessions: what a kill loses is its own promise, not ours."""
        if self._process:
            self._process.terminate()
            await self._process.wait()
            self._process = None

    async def publish(self, messages: Sequence[tuple[str, bytes]], *, qos: int = 1) -> None:
        """Publish each and wait for its PUBACK."""
        process = await asyncio.create_subprocess_exec(
            "mosquitto_pub",
            "-p",
            str(self.port),
            "-q",
            str(qos),
            "-t",
            messages[0][0],
            "-l",
            stdin=asyncio.subprocess.PIPE,
        )
        assert len({topic for topic, _ in messages}) == 1, "one topic at a time"
        await process.communicate(b"".join(payload + b"\n" for _, payload in messages))
        assert process.returncode == 0
