"""A client of the Simple Network Time Protocol (RFC 4330): asks one server once by how much our clock is off."""

from __future__ import annotations

import asyncio
import secrets
import struct
from typing import Final

from sensegate.clock import SECOND_US, Clock
from sensegate.errors import Unavailable

PORT: Final = 123
TIMEOUT_S: Final = 2.0
_SINCE_1900_S: Final = 2_208_988_800
_PACKET = struct.Struct("!BBBb11I")
_CLIENT_V4: Final = 0b00_100_011
_SERVER: Final = 4
_UNSYNCHRONISED: Final = 3
_STRATUM_MAX: Final = 15
_ERA_S: Final = 1 << 32


class _Answer(asyncio.DatagramProtocol):
    """Receives the answer that repeats a nonce."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:  # noqa: ARG002 - the protocol's
        # The originate timestamp repeats our transmit timestamp, which nobody off the path can guess.
        if data[24:32] == self._request[40:48] and not self.received.done():
            self.received.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.received.done():
            self.received.set_exception(exc)


async def offset_s(server: str, clock: Clock) -> float:
    """Return by how many seconds a server (``host`` or ``host:port``) is ahead of our clock.

    Raises:
        Unavailable: it does not answer, or is not synchronised itself.
    """
    host, _, port = server.rpartition(":") if server.count(":") == 1 else (server, "", "")
    request = _PACKET.pack(_CLIENT_V4, 0, 0, 0, *(0,) * 9, *struct.unpack("!II", secrets.token_bytes(8)))
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            sent = clock.now()
            transport, answer = await loop.create_datagram_endpoint(
                lambda: _Answer(request), remote_addr=(host, int(port or PORT))
            )
            try:
                transport.sendto(request)
                data = await answer.received
            finally:
                transport.close()
    except (OSError, TimeoutError, ValueError) as why:
        raise Unavailable(f"NTP server {server} does not answer: {why or 'no answer'}") from why
    return _offset_s(server, data, sent, clock.now())


def _offset_s(server: str, data: bytes, sent: int, received: int) -> float:
    """Return the offset by an answer, for our times (µs UTC) of request and answer. Raises `Unavailable`."""
    if len(data) < _PACKET.size:
        raise Unavailable(f"NTP server {server}: the answer is too short")
    first, stratum, _, _, *words = _PACKET.unpack(data[: _PACKET.size])
    if first & 7 != _SERVER or first >> 6 == _UNSYNCHRONISED or not 1 <= stratum <= _STRATUM_MAX:
        raise Unavailable(f"NTP server {server} is not synchronised")
    arrived, left = _time(words[7], words[8], sent), _time(words[9], words[10], sent)
    return ((arrived - sent) + (left - received)) / 2 / SECOND_US


def _time(seconds: int, fraction: int, near: int) -> int:
    """Return an NTP timestamp as µs UTC, in the era (of 136 years) that is nearest to a time."""
    unix_s = seconds - _SINCE_1900_S
    eras = round((near / SECOND_US - unix_s) / _ERA_S)
    return (unix_s + eras * _ERA_S) * SECOND_US + fraction * SECOND_US // _ERA_S
