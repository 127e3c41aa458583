"""Whether the server's store takes writes: asked of the server and tried, not read from its log.

After a failed write nats-server keeps a stream refused, without an answer, until it is started again. Its log tells so
once; a full disk swallows that line with the rest. So two things are looked at, every `PERIOD_S`:

- the server's own account of its health, which names each stream that refuses writes;
- a small write of ours into each account (stream PROBE), which must be acknowledged.
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
"""A store that refuses for so long, though the disk has room, does so until the server is started again."""
SILENCE_S = 30.0
"""The same for one that does not answer: it may only be slow."""
PROBE_S = 5.0
SUBJECT = "_SG.probe"


class _Trouble(msgspec.Struct, frozen=True):
    type: str = ""
    account: str = ""
    stream: str = ""
    error: str = ""


class _Health(msgspec.Struct, frozen=True):
    status: str = ""
    errors: tuple[_Trouble, ...] = ()


class _Healthz(msgspec.Struct, frozen=True):
    data: _Health = _Health()


class StoreWatch:
    """Of one engine; `run` until cancelled."""

    def __init__(
        self,
        clock: Clock,
        ask: Callable[[str, dict[str, Any]], Awaitable[bytes]],
        connect: Mapping[str, Callable[[], Awaitable[Client]]],
        has_room: Callable[[], bool],
        on_stuck: Callable[[str], None],
    ) -> None:
        """Take what it looks at.

        Args:
            clock: the time.
            ask: asks the server over its system account (`Connections.ask`).
            connect: account -> makes a connection to it.
            has_room: whether the disk has its reserve free; a full one is no fault of the server.
            on_stuck: told once a store refuses for good.
        """
        self._clock = clock
        self._ask = ask
        self._connect = connect
        self._has_room = has_room
        self._on_stuck = on_stuck
        self._clients: dict[str, Client] = {}
        self._since: dict[str, float] = {}
        """When the store began to refuse, or to be silent, by the kind of trouble."""
        self.trouble = ""
        """Why the store takes no writes now; empty: it does."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        try:
            while True:
                await self._clock.sleep(PERIOD_S)
                await self.look()
        finally:
            for client in self._clients.values():
                with contextlib.suppress(
                    Unavailable, nats.errors.Error, OSError, TimeoutError
                ):  # the server may be gone
                    await client.close()

    async def look(self) -> None:
        """Look once."""
        refused, silent = await self._refused(), ""
        for account in self._connect:
            try:
                await self._probe(account)
            except Unavailable as why:
                silent = silent or f"account {account}: {why}"
            except (StoreFull, EngineError, NotFound, Fenced, PermissionDenied) as why:
                refused = refused or f"account {account}: {why}"
        self.trouble = refused or silent
        now = self._clock.monotonic()
        stuck = self._lasts("refused", refused, PATIENCE_S, now) or self._lasts("silent", silent, SILENCE_S, now)
        if stuck:
            self._since.clear()
            self._on_stuck(stuck)

    def forget(self) -> None:
        """Another server process begins: what was seen of the last one says nothing of it."""
        self._since.clear()
        self.trouble = ""

    def _lasts(self, kind: str, why: str, patience_s: float, now: float) -> str:
        """Return the trouble once it has lasted longer than it may, counted while there is room."""
        if not why or not self._has_room():
            self._since.pop(kind, None)
            return ""
        return why if now - self._since.setdefault(kind, now) >= patience_s else ""

    async def _refused(self) -> str:
        """Return which streams refuse writes, as the server says; empty where it says nothing."""
        try:
            health = msgspec.json.decode(await self._ask("HEALTHZ", {"details": True}), type=_Healthz).data
        except (Unavailable, PermissionDenied, msgspec.DecodeError):
            return ""  # the probes tell whether it lives
        troubles = [trouble for trouble in health.errors if "write error" in trouble.error]
        return f"{len(troubles)} refuse writes, first: {troubles[0].error}" if troubles else ""

    async def _probe(self, account: str) -> None:
        """Write into an account. Raises `Unavailable`, `StoreFull`, `EngineError`."""
        client = self._clients.get(account)
        if client is None or client.is_closed:
            client = self._clients[account] = await self._connect[account]()
        try:
            await api.call(client, SUBJECT, b"probe", timeout_s=PROBE_S)
        except Unavailable as why:
            if not isinstance(why.__cause__, nats.errors.NoRespondersError):
                raise
            # No stream takes the subject: that is so once, or after its directory was lost.
            await self._create(client)
            await api.call(client, SUBJECT, b"probe", timeout_s=PROBE_S)

    async def _create(self, client: Client) -> None:
        try:
            await api.call(client, f"$JS.API.STREAM.INFO.{PROBE}")
        except NotFound:
            wanted = {
                "name": PROBE,
                "subjects": [SUBJECT],
                "storage": "file",
                "max_msgs": 1,
                "max_bytes": 65_536,
                "discard": "old",
                "num_replicas": 1,
            }
            await api.call(client, f"$JS.API.STREAM.CREATE.{PROBE}", wanted)
