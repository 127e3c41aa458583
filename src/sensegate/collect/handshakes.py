"""Paced acceptance of TLS connections: so many handshakes at a time as a core finishes within a moment.

Thousands of devices that come back at once would all begin a handshake; each would take as long as all of them, and end
in a time-out whose work was for nothing. Here those that wait do so in the kernel's queue, where they cost nothing. A
connection takes its place once its first bytes have come, so that silent ones keep nobody waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

import structlog

HANDSHAKES_MAX = 64
"""Handshakes at a time: some 0.1 s of work."""
SILENT_MAX = 4_096
"""Most accepted connections that have not begun their handshake; beyond it none is accepted."""
SILENT_S = 5.0
"""A connection that has not begun its handshake by then is closed."""
HANDSHAKE_S = 10.0

_log = structlog.get_logger("collect")


class PacedListener:
    """Accepts connections of a listening socket, and hands them to protocols after their handshake."""

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext,
        protocol: Callable[[], asyncio.BaseProtocol],
        admits: Callable[[str], bool] = lambda _address: True,
    ) -> None:
        """Accept until `close`; a connection from an address that `admits` refuses is closed before its handshake."""
        self._listener = listener
        self._tls = tls
        self._protocol = protocol
        self._admits = admits
        self._handshakes = asyncio.Semaphore(HANDSHAKES_MAX)
        self._accepted = asyncio.Semaphore(SILENT_MAX)
        self._pending: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept_all(), name="tls accept")

    def close(self) -> None:
        """Accept no more; open connections stay."""
        self._accepting.cancel()
        for task in tuple(self._pending):
            task.cancel()
        self._listener.close()

    async def _accept_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._accepted.acquire()
            try:
                accepted, peer = await loop.sock_accept(self._listener)
            except OSError as why:  # no descriptor is free, or the client has gone
                self._accepted.release()
                _log.warning("connection not accepted", reason=str(why))
                await asyncio.sleep(0.1)
                continue
            if not self._admits(str(peer[0])):
                self._accepted.release()
                accepted.close()
                continue
            task = loop.create_task(self._begin(accepted), name="tls handshake")
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        """Wait for the first bytes, then for a place, and finish the handshake."""
        taken = False
        try:
            if not _has_bytes(accepted):
                async with asyncio.timeout(SILENT_S):
                    await _readable(accepted)
            async with self._handshakes:
                # From here on the transport owns the socket, also when the handshake fails.
                taken = True
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._protocol, accepted, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_S
                )
        except (OSError, TimeoutError) as why:
            _log.debug("no handshake", reason=str(why) or type(why).__name__)
        finally:
            self._accepted.release()
            if not taken:
                accepted.close()


def _has_bytes(accepted: socket.socket) -> bool:
    """Return whether a connection has bytes now; one that has ended has none."""
    try:
        return bool(accepted.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


async def _readable(accepted: socket.socket) -> None:
    """Wait until a connection has bytes, or has ended."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(accepted, note)
    try:
        await readable
    finally:
        with contextlib.suppress(OSError, ValueError):
            loop.remove_reader(accepted)


def listening_socket(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens, beside those of other front processes at the same port."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
