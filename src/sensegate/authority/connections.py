"""The open connections of devices, from the server's events, and the closing of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api, server_conf
from sensegate.bus.engine import Connection
from sensegate.clock import Clock, wait_or_sleep
from sensegate.errors import Unavailable

_log = structlog.get_logger("authority")

_BATCH_S = 0.02
"""Requests to close within this time are handled together: an import changes one gateway's permissions many times."""
_SECOND_PASS_S = 0.5
"""Delay of the second pass, which closes connections that were being accepted during the first one."""
_RETRY_S = 0.2
"""Interval of the attempts for a user whose connections the server could not be asked about."""


class _ClientInfo(msgspec.Struct, frozen=True):
    id: int = 0
    acc: str = ""
    user: str = ""
    client_type: str = ""
    client_id: str = ""


class _Event(msgspec.Struct, frozen=True):
    client: _ClientInfo


class _Open(msgspec.Struct, frozen=True, gc=False):
    cid: int
    user: str
    client_id: str


class _Pass(msgspec.Struct, frozen=True):
    """The next closing of a user's connections."""

    due: float
    """Monotonic time, seconds."""
    up_to: int | None
    """Greatest connection id to close; None: all, since the user will not be accepted again."""
    is_second: bool = False


class ConnectionServer(Protocol):
    """The part of `bus.engine.Engine` that is used here."""

    async def connect(self, user: server_conf.User) -> Client: ...

    async def connections(self, account: str, **selection: object) -> list[Connection]: ...

    async def close_connection(self, cid: int) -> None: ...


_decode = msgspec.json.Decoder(_Event).decode


class DeviceConnections:
    """The open MQTT connections of an account."""

    def __init__(self, server: ConnectionServer, account: str, clock: Clock) -> None:
        self._server = server
        self._account = account
        self._clock = clock
        self._by_user: dict[str, _Open] = {}
        self._by_client: dict[str, _Open] = {}
        self._by_cid: dict[int, _Open] = {}
        self._last_cid = 0
        self._closing: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self.closed = 0
        """Number of connections closed by this process."""

    def __len__(self) -> int:
        return len(self._by_cid)

    async def start(self) -> None:
        """Subscribe to connect and disconnect events. Raises `Unavailable`."""
        self._client = await self._server.connect(server_conf.User.SYSTEM)
        with api.translate_client_errors("subscribe to connects"):
            await self._client.subscribe(f"$SYS.ACCOUNT.{self._account}.CONNECT", cb=self._on_connect)
            await self._client.subscribe(f"$SYS.ACCOUNT.{self._account}.DISCONNECT", cb=self._on_disconnect)
            await self._client.flush()
        self._task = asyncio.create_task(self._close_all(), name="authority closing")

    async def stop(self) -> None:
        """Unsubscribe and stop closing connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def sweep(self, allowed: Callable[[str], bool]) -> None:
        """Load the open connections, and close those that are no longer allowed. Raises `Unavailable`."""
        self._by_user.clear()
        self._by_client.clear()
        self._by_cid.clear()
        for connection in await self._server.connections(self._account):
            if not connection.mqtt_client:
                continue
            if allowed(connection.authorized_user):
                self.opened(connection.cid, connection.authorized_user, connection.mqtt_client)
            else:
                await self._close_connection(connection.cid)

    def opened(self, cid: int, user: str, client_id: str) -> None:
        """Note that a connection was let in."""
        new = _Open(cid, user, client_id)
        if self._by_cid.get(cid) == new:
            return
        self._forget(cid)  # a server that was restarted, which tells of no end, counts from 1 again
        self._by_user[user] = self._by_client[client_id] = self._by_cid[cid] = new
        self._last_cid = max(self._last_cid, cid)

    def rival(self, user: str, client_id: str) -> int | None:
        """Return the id of an open connection that conflicts with a new one: same user or client id, but not both."""
        of_user = self._by_user.get(user)
        if of_user and of_user.client_id != client_id:
            return of_user.cid
        of_client = self._by_client.get(client_id)
        if of_client and of_client.user != user:
            return of_client.cid
        return None

    async def is_open(self, cid: int) -> bool:
        """Ask the server whether a connection is open; a closed one is removed. False if the server does not answer."""
        try:
            connections = await self._server.connections(self._account, cid=cid)
        except Unavailable:
            connections = []
        if not connections:
            self._forget(cid)
        return bool(connections)

    def close(self, user: str, *, for_good: bool = False) -> None:
        """Close the connections of a user soon; with `for_good` the user will not be accepted again."""
        self._closing[user] = self._closing.get(user, False) or for_good
        self._wake.set()

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────

    async def _on_connect(self, message: Msg) -> None:
        client = _decode(message.data).client
        if client.client_type == "mqtt":
            self.opened(client.id, client.user, client.client_id)

    async def _on_disconnect(self, message: Msg) -> None:
        self._forget(_decode(message.data).client.id)

    def _forget(self, cid: int) -> None:
        gone = self._by_cid.pop(cid, None)
        if gone is None:
            return
        if self._by_user.get(gone.user) is gone:
            del self._by_user[gone.user]
        if self._by_client.get(gone.client_id) is gone:
            del self._by_client[gone.client_id]

    async def _close_all(self) -> None:
        passes: dict[str, _Pass] = {}
        while True:
            if passes:
                due_s = min(planned.due for planned in passes.values()) - self._clock.monotonic()
                # Not less: after a wait that was rounded down, waits of next to no time would follow one another.
                await wait_or_sleep(self._wake, self._clock, max(0.001, due_s))
            else:
                await self._wake.wait()
            if self._wake.is_set():
                await self._clock.sleep(_BATCH_S)
            self._wake.clear()
            closing, self._closing = self._closing, {}
            now = self._clock.monotonic()
            for user, for_good in closing.items():
                # A user that may reconnect is closed a second time only if it was accepted before the change.
                earlier = passes.get(user)
                is_all = for_good or (earlier is not None and earlier.up_to is None)
                passes[user] = _Pass(now, None if is_all else self._last_cid)
            for user in [user for user, planned in passes.items() if planned.due <= now]:
                present = passes.pop(user)
                if not await self._close_user(user, present.up_to):
                    # Others are not held up meanwhile; it is closed as soon as the server answers.
                    passes[user] = msgspec.structs.replace(present, due=self._clock.monotonic() + _RETRY_S)
                elif not present.is_second:
                    passes[user] = _Pass(self._clock.monotonic() + _SECOND_PASS_S, present.up_to, is_second=True)

    async def _close_user(self, user: str, up_to: int | None) -> bool:
        """Close the connections of a user, up to a connection id; False: the server does not answer."""
        try:
            for connection in await self._server.connections(self._account, user=user):
                if connection.mqtt_client and (up_to is None or connection.cid <= up_to):
                    await self._close_connection(connection.cid)
        except Unavailable as why:
            _log.warning("connection not closed; retrying", device=user, reason=str(why))
            return False
        return True

    async def _close_connection(self, cid: int) -> None:
        await self._server.close_connection(cid)
        self._forget(cid)
        self.closed += 1
