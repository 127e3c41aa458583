"""Monitoring of a cluster of nats-servers: which respond, whether the streams have a leader and all their copies.

A cluster without a majority stores nothing, so nothing is acknowledged to a device; it continues by itself once a
majority is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import msgspec
from nats.aio.client import Client

from sensegate.bus import api, streams
from sensegate.bus.process import read_server_info
from sensegate.clock import Clock
from sensegate.errors import EngineError, NotFound, PermissionDenied, Unavailable

PERIOD_S = 2.0
PROBE_S = 1.5
WATCHED = (streams.LOG, streams.INTAKE)
"""Streams on which every acknowledgement depends."""
SERVERS_MAX = 16
PLACE_AGAIN_S = 60.0
"""Shortest time between two attempts to have one server lead all watched streams."""


class _Replica(msgspec.Struct, frozen=True):
    name: str = ""
    current: bool = False
    offline: bool = False
    lag: int = 0


class _Group(msgspec.Struct, frozen=True):
    leader: str = ""
    replicas: tuple[_Replica, ...] = ()


class _StreamInfo(msgspec.Struct, frozen=True):
    cluster: _Group = _Group()


class ClusterMonitor:
    """Monitors the servers of an engine that is a cluster."""

    def __init__(self, clock: Clock, urls: Sequence[str], connect: Callable[[], Awaitable[Client]]) -> None:
        """Create a monitor; `run` starts it.

        Args:
            clock: the time.
            urls: addresses of all servers.
            connect: connects as `User.GATEWAY`.
        """
        self._clock = clock
        self._urls = tuple(urls)[:SERVERS_MAX]
        self._connect = connect
        self._client: Client | None = None
        self._placed_at = float("-inf")
        self.problem = ""
        """Sentence on why no write is stored now; empty: writes are stored."""
        self.warning = ""
        """Sentence on servers or copies that are missing while writes are still stored; empty: none is."""

    async def run(self) -> None:
        """Check the cluster periodically, until cancelled."""
        try:
            while True:
                await self.check()
                await self._clock.sleep(PERIOD_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close its connection."""
        if self._client is not None:
            with contextlib.suppress(Unavailable, OSError, TimeoutError):
                await self._client.close()

    async def check(self) -> None:
        """Check the cluster once."""
        responding = await asyncio.gather(*(self._responds(url) for url in self._urls))
        silent = [_address(url) for url, responds in zip(self._urls, responding, strict=True) if not responds]
        leaders, leaderless, behind = await self._groups()
        count, total = len(self._urls) - len(silent), len(self._urls)
        missing = f"; no answer from {', '.join(silent)}" if silent else ""
        if count * 2 <= total:
            self.problem = (
                f"the cluster has lost its majority: {count} of {total} servers respond{missing}; nothing is "
                "acknowledged, and it continues by itself once most of them are back"
            )
        elif leaderless:
            self.problem = f"stream {leaderless} has no leader{missing}; the servers are electing one, devices wait"
        else:
            self.problem = ""
        self.warning = ""
        if not self.problem and silent:
            self.warning = f"engine: {count} of {total} servers respond{missing}; losing another may stop the intake"
        elif not self.problem and behind:
            self.warning = f"engine: {behind}"
        if not (self.problem or self.warning):
            await self._join_leaders(leaders)

    async def _join_leaders(self, leaders: dict[str, str]) -> None:
        """Move the leaders of all watched streams to one server: the death of another interrupts nothing."""
        wanted = leaders.get(streams.LOG, "")
        now = self._clock.monotonic()
        if not wanted or len(set(leaders.values())) == 1 or now < self._placed_at + PLACE_AGAIN_S:
            return
        self._placed_at = now
        for name, leader in leaders.items():
            if leader != wanted:
                with contextlib.suppress(Unavailable, EngineError, NotFound):  # it stays where it is
                    client = await self._connected()
                    request = {"placement": {"preferred": wanted}}
                    await api.request(client, f"$JS.API.STREAM.LEADER.STEPDOWN.{name}", request)

    async def _groups(self) -> tuple[dict[str, str], str, str]:
        """Return the leaders, the stream that has none, and which copy is not complete; empty: none."""
        leaders: dict[str, str] = {}
        behind = ""
        for name in WATCHED:
            try:
                client = await self._connected()
                answer = await api.request(client, f"$JS.API.STREAM.INFO.{name}", timeout_s=PROBE_S)
            except NotFound:
                continue  # not created yet
            except (Unavailable, EngineError, PermissionDenied):
                return {}, name, ""
            group = msgspec.json.decode(answer, type=_StreamInfo).cluster
            if group.leader:
                leaders[name] = group.leader
            late = [replica for replica in group.replicas if replica.offline or not replica.current]
            if late:
                behind = behind or f"the copy of stream {name} on server {late[0].name} is not complete"
        return leaders, "", behind

    async def _connected(self) -> Client:
        if self._client is None or self._client.is_closed:
            self._client = await self._connect()
        return self._client

    @staticmethod
    async def _responds(url: str) -> bool:
        parts = urlsplit(url)
        try:
            await read_server_info(parts.hostname or "", parts.port or 4222, PROBE_S)
        except (OSError, EOFError, TimeoutError, EngineError):
            return False
        return True


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 4222}"
