"""Monitoring of whether the server's store accepts writes, by health requests and probe writes.

After a failed write nats-server rejects all writes to a stream, without a response, until it restarts. It logs that
once, and a full disk may swallow the log line. So two things are checked every `PERIOD_S`:

- the health report of the server, which names each stream that rejects writes;
- a small write to each account (stream PROBE), which must be acknowledged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client

from sensegate.bus import api
from sensegate.bus.inventory import PROBE
from sensegate.clock import Clock
from sensegate.errors import EngineError, Fenced, NotFound, PermissionDenied, StoreFull, Unavailable

PERIOD_S = 2.0
PATIENCE_S = 4.0
"""A store that rejects writes for longer than this, although the disk has space, needs a restart of the server."""
SILENCE_S = 30.0
"""The same for a store that does not respond: it may only be slow."""
PROBE_S = 5.0
SUBJECT = "_SG.probe"


class _HealthError(msgspec.Struct, frozen=True):
    type: str = ""
    account: str = ""
    stream: str = ""
    error: str = ""


class _Health(msgspec.Struct, frozen=True):
    status: str = ""
    errors: tuple[_HealthError, ...] = ()


class _Healthz(msgspec.Struct, frozen=True):
    data: _Health = _Health()


class StoreMonitor:
    """Monitors the store of an engine."""

    def __init__(
        self,
        clock: Clock,
        request: Callable[[str, dict[str, Any]], Awaitable[bytes]],
        connect: Mapping[str, Callable[[], Awaitable[Client]]],
        has_room: Callable[[], bool],
        on_stuck: Callable[[str], None],
    ) -> None:
        """Create a monitor; `run` starts it.

        Args:
            clock: the time.
            request: sends a request of the system account to the server.
            connect: account -> function that connects to it.
            has_room: returns whether the disk has its reserve free; a full disk is not a fault of the server.
            on_stuck: called with the reason when the store needs a restart of the server.
        """
        self._clock = clock
        self._request = request
        self._connect = connect
        self._has_room = has_room
        self._on_stuck = on_stuck
        self._clients: dict[str, Client] = {}
        self._since: dict[str, float] = {}
        """Kind of problem -> when it began."""
        self.problem = ""
        """Reason why the store accepts no writes now; empty: it accepts them."""

    async def run(self) -> None:
        """Check the store periodically, until cancelled."""
        try:
            while True:
                await self._clock.sleep(PERIOD_S)
                await self.check()
        finally:
            for client in self._clients.values():
                with contextlib.suppress(
                    Unavailable, nats.errors.Error, OSError, TimeoutError
                ):  # the server may be gone
                    await client.close()

    async def check(self) -> None:
        """Check the store once."""
        refused, silent = await self._refusing_streams(), ""
        for account in self._connect:
            try:
                await self._probe(account)
            except Unavailable as why:
                silent = silent or f"account {account}: {why}"
            except (StoreFull, EngineError, NotFound, Fenced, PermissionDenied) as why:
                refused = refused or f"account {account}: {why}"
        self.problem = refused or silent
        now = self._clock.monotonic()
        stuck = self._lasting_problem("refused", refused, PATIENCE_S, now) or self._lasting_problem(
            "silent", silent, SILENCE_S, now
        )
        if stuck:
            self._since.clear()
            self._on_stuck(stuck)

    def reset(self) -> None:
        """Forget problems of the previous server process."""
        self._since.clear()
        self.problem = ""

    def _lasting_problem(self, kind: str, problem: str, patience_s: float, now: float) -> str:
        """Return the problem once it has lasted for `patience_s` while the disk had space; empty otherwise."""
        if not problem or not self._has_room():
            self._since.pop(kind, None)
            return ""
        return problem if now - self._since.setdefault(kind, now) >= patience_s else ""

    async def _refusing_streams(self) -> str:
        """Return which streams reject writes according to the server's health report; empty: none, or no report."""
        try:
            health = msgspec.json.decode(await self._request("HEALTHZ", {"details": True}), type=_Healthz).data
        except (Unavailable, PermissionDenied, msgspec.DecodeError):
            return ""  # the probes tell whether the server responds
        errors = [error for error in health.errors if "write error" in error.error]
        return f"{len(errors)} streams reject writes, first: {errors[0].error}" if errors else ""

    async def _probe(self, account: str) -> None:
        """Write a probe to an account. Raises `Unavailable`, `StoreFull`, `EngineError`."""
        client = self._clients.get(account)
        if client is None or client.is_closed:
            client = self._clients[account] = await self._connect[account]()
        try:
            await api.request(client, SUBJECT, b"probe", timeout_s=PROBE_S)
        except Unavailable as why:
            if not isinstance(why.__cause__, nats.errors.NoRespondersError):
                raise
            # No stream has the subject: the probe stream does not exist yet, or its directory was lost.
            await self._create_probe_stream(client)
            await api.request(client, SUBJECT, b"probe", timeout_s=PROBE_S)

    async def _create_probe_stream(self, client: Client) -> None:
        try:
            await api.request(client, f"$JS.API.STREAM.INFO.{PROBE}")
        except NotFound:
            config = {
                "name": PROBE,
                "subjects": [SUBJECT],
                "storage": "file",
                "max_msgs": 1,
                "max_bytes": 65_536,
                "discard": "old",
                "num_replicas": 1,
            }
            await api.request(client, f"$JS.API.STREAM.CREATE.{PROBE}", config)
