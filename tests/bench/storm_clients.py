"""Many devices in one process: each keeps a connection, comes back when it is lost, and says when it is served again.

``python -m tests.bench.storm_clients FILE``: FILE holds host, port, TLS and (user, password) of each device. Lines on
standard output are states: devices served, answers that told a device to wait, failed attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import sys
from pathlib import Path
from typing import Any, cast

import uvloop

from sensegate.collect.front import codec
from sensegate.collect.front.packets import (
    Acknowledgement,
    ConnAck,
    ConnectPacket,
    PacketProperties,
    Publish,
    Version,
)

RETRY_S = (0.3, 1.0)
"""Pause of a device whose attempt failed."""
BUSY_S = (0.5, 2.0)
"""Pause of a device that was told that the server is busy."""
OPEN_S = 40.0
"""A device gives an attempt up after this time."""
REPORT_S = 0.05
OPENING_MAX = 4_000
_V = Version.MQTT_5


class Device(asyncio.Protocol):
    """A connection of a device."""

    def __init__(self, fleet: Fleet, user: str, password: str) -> None:
        self._fleet = fleet
        self._user = user
        self._password = password
        self._packets = codec.PacketReader(65_536)
        self._transport = cast("asyncio.Transport", None)
        self._sent = 0
        self.served = False
        self.answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        connect = ConnectPacket(
            _V, self._user, clean_start=False, username=self._user, password=self._password.encode(),
            properties=PacketProperties(session_expiry_s=3_600),
        )  # fmt: skip
        self._transport.write(codec.encode(connect, _V))

    def data_received(self, data: bytes) -> None:
        for head, body in self._packets.feed(data):
            packet = codec.decode(head, body, _V)
            if isinstance(packet, ConnAck) and not self.answered.done():
                self.answered.set_result(packet.code)
                if not packet.code:
                    self.publish()
            elif isinstance(packet, Acknowledgement):
                self.served = True
                self._fleet.served.add(self._user)

    def publish(self) -> None:
        """Send a message that waits for its PUBACK."""
        self._sent += 1
        message = Publish(f"sg/{self._user}/up", b'{"values": {"air_temperature": 21.5}}', 1, packet_id=self._sent)
        self._transport.write(codec.encode(message, _V))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.served:
            self._fleet.dropped += 1
        self._fleet.served.discard(self._user)
        if not self.answered.done():
            self.answered.set_result(-1)
        if not self.lost.done():
            self.lost.set_result(None)

    def abort(self) -> None:
        """Break the connection."""
        if self._transport:
            self._transport.abort()


class Fleet:
    """All devices, and what became of them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._host, self._port = settings["host"], settings["port"]
        self._devices: list[tuple[str, str]] = [tuple(row) for row in settings["devices"]]
        self._tls: ssl.SSLContext | None = None
        if settings["ca_file"]:
            self._tls = ssl.create_default_context(cafile=settings["ca_file"])
            self._tls.check_hostname = False
        self._opening = asyncio.Semaphore(OPENING_MAX)
        self.served: set[str] = set()
        self.open: dict[str, Device] = {}
        self.busy = self.refused = self.failed = self.dropped = 0

    async def run(self) -> None:
        """Keep all devices connected until cancelled."""
        async with asyncio.TaskGroup() as group:
            for user, password in self._devices:
                group.create_task(self._keep(user, password))
            group.create_task(self._report())

    async def ask_all(self) -> None:
        """Have each connected device publish once more; it is served when that is acknowledged."""
        self.served.clear()
        for device in self.open.values():
            device.publish()

    async def _keep(self, user: str, password: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            device = Device(self, user, password)
            code = -1
            with contextlib.suppress(OSError, TimeoutError):
                async with self._opening, asyncio.timeout(OPEN_S):
                    await loop.create_connection(
                        lambda: device,  # noqa: B023 - called at once
                        self._host,
                        self._port,
                        ssl=self._tls,
                        ssl_handshake_timeout=OPEN_S if self._tls else None,
                    )
                    code = await device.answered
            if code == 0:
                self.open[user] = device
                await device.lost
                self.open.pop(user, None)
                continue
            device.abort()
            if code in {0x89, 0x97}:
                self.busy += 1
                await asyncio.sleep(random.uniform(*BUSY_S))
            else:
                self.failed += code == -1
                self.refused += code > 0
                await asyncio.sleep(random.uniform(*RETRY_S))

    async def _report(self) -> None:
        while True:
            state = {
                "served": len(self.served), "busy": self.busy, "refused": self.refused, "failed": self.failed,
                "dropped": self.dropped,
            }  # fmt: skip
            print(json.dumps(state), flush=True)
            await asyncio.sleep(REPORT_S)


async def main(file: Path) -> None:
    """Run the devices of a file; a line on standard input has all of them publish."""
    fleet = Fleet(json.loads(await asyncio.to_thread(file.read_bytes)))
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: sys.stdin.readline() and loop.create_task(fleet.ask_all()))
    await fleet.run()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
