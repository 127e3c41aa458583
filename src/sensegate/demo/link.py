"""TCP proxy that injects faults on command: cut, stall, delay, reset. Placed between a node and its centre."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

CHUNK_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with zero timeout: close() sends RST."""


class FaultyLink:
    """Forwards `host:port` to a target and counts the bytes of each direction.

    `cut()` resets all connections and refuses new ones until `restore()`. `stall()` keeps them open and forwards
    nothing (a peer that vanished) until `restore()`. `delay_s` delays each chunk.
    """

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.target = (target_host, target_port)
        self.host = host
        self.port = port
        self.delay_s = 0.0
        self.bytes_up = 0
        """Bytes from the connecting side."""
        self.bytes_down = 0
        self.cuts = 0
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._whole = True
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def is_up(self) -> bool:
        """Return whether it is neither cut nor stalled."""
        return self._whole and self._forwarding.is_set()

    async def start(self) -> None:
        """Start listening."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server:
            self._server.close()
        await self._close_connections()

    async def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self.cuts += 1
        self._whole = False
        await self._close_connections()

    def stall(self) -> None:
        """Stop forwarding without closing connections."""
        self._forwarding.clear()

    def restore(self) -> None:
        """Resume normal forwarding."""
        self._whole = True
        self._forwarding.set()

    async def _close_connections(self) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server runs each connection in a task
        if not self._whole:
            _reset(writer)
            return
        self._open.add(task)
        try:
            await self._connect(reader, writer)
        except asyncio.CancelledError:
            _reset(writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
        except OSError:
            _reset(writer)
            return
        try:
            up = asyncio.create_task(self._pump(reader, far_writer, up=True))
            down = asyncio.create_task(self._pump(far_reader, writer, up=False))
            try:
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for half in (up, down):
                    half.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        finally:
            _reset(far_writer)
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._forwarding.wait()
                if up:
                    self.bytes_up += len(chunk)
                else:
                    self.bytes_down += len(chunk)
                writer.write(chunk)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer receives RST instead of an orderly end."""
    peer = writer.get_extra_info("socket")
    if peer is not None:
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
