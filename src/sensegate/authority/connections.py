"""Which devices are connected, as far as the server told, and the closing of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api, server_conf
from sensegate.bus.engine import Connection
from sensegate.clock import Clock
from sensegate.errors import Unavailable

_log = structlog.get_logger("authority")

_GATHER_S = 0.02
"""Closings of this time are done together: an import changes the rights of one gateway a thousand times."""
_AGAIN_S = 0.5
"""After this time what was being let in at the moment of the closing has appeared, and is closed too."""


class _Told(msgspec.Struct, frozen=True):
    id: int = 0
    acc: str = ""
    user: str = ""
    client_type: str = ""
    client_id: str = ""


class _Event(msgspec.Struct, frozen=True):
    client: _Told


class _Open(msgspec.Struct, frozen=True, gc=False):
    cid: int
    user: str
    client_id: str


class Server(Protocol):
    """What is needed of `bus.engine.Engine`."""

    async def connect(self, user: server_conf.User) -> Client: ...

    async def connections(self, account: str, **selection: object) -> list[Connection]: ...

    async def close_connection(self, cid: int) -> None: ...


_decode = msgspec.json.Decoder(_Event).decode


class Connections:
    """The open MQTT connections of an account."""

    def __init__(self, server: Server, account: str, clock: Clock) -> None:
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
        """Connections closed by us since the process began."""

    def __len__(self) -> int:
        return len(self._by_cid)

    async def start(self) -> None:
        """Listen to connects and disconnects, and learn what is open already. Raises `Unavailable`."""
        self._client = await self._server.connect(server_conf.User.SYSTEM)
        with api.translate_client_errors("subscribe to connects"):
            await self._client.subscribe(f"$SYS.ACCOUNT.{self._account}.CONNECT", cb=self._on_connect)
            await self._client.subscribe(f"$SYS.ACCOUNT.{self._account}.DISCONNECT", cb=self._on_disconnect)
            await self._client.flush()
        self._task = asyncio.create_task(self._close_all(), name="authority closing")

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def sweep(self, allowed: Callable[[str], bool]) -> None:
        """Learn what is open, and close what is not allowed any more. Raises `Unavailable`."""
        self._by_user.clear()
        self._by_client.clear()
        self._by_cid.clear()
        for one in await self._server.connections(self._account):
            if not one.mqtt_client:
                continue
            if allowed(one.authorized_user):
                self.opened(one.cid, one.authorized_user, one.mqtt_client)
            else:
                await self._close_one(one.cid)

    def opened(self, cid: int, user: str, client_id: str) -> None:
        """Note that a connection was let in."""
        if cid in self._by_cid:
            return
        new = _Open(cid, user, client_id)
        self._by_user[user] = self._by_client[client_id] = self._by_cid[cid] = new
        self._last_cid = max(self._last_cid, cid)

    def rival(self, user: str, client_id: str) -> int | None:
        """Return the number of a connection that forbids this one: same user or same client id, but not both."""
        of_user = self._by_user.get(user)
        if of_user and of_user.client_id != client_id:
            return of_user.cid
        of_client = self._by_client.get(client_id)
        if of_client and of_client.user != user:
            return of_client.cid
        return None

    async def is_open(self, cid: int) -> bool:
        """Return whether a connection is really open; a closed one is forgotten. False where the server is away."""
        try:
            found = await self._server.connections(self._account, cid=cid)
        except Unavailable:
            found = []
        if not found:
            self._forget(cid)
        return bool(found)

    def close(self, user: str, *, for_good: bool = False) -> None:
        """Close the connections of a user soon; `for_good`: it will not be let in again."""
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
        again: dict[str, int | None] = {}
        while True:
            with suppress(TimeoutError):
                # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(_AGAIN_S if again else None):
                    await self._wake.wait()
            if self._wake.is_set():
                await self._clock.sleep(_GATHER_S)
            self._wake.clear()
            closing, self._closing = self._closing, {}
            mark = self._last_cid
            for user, up_to in again.items():
                await self._close_user(user, up_to)
            again = {}
            for user, for_good in closing.items():
                await self._close_user(user, None if for_good else mark)
                # Who may come again is closed a second time only if it was let in before the change.
                again[user] = None if for_good else mark

    async def _close_user(self, user: str, up_to: int | None) -> None:
        """Close the connections of a user, those up to a number."""
        while True:
            try:
                for one in await self._server.connections(self._account, user=user):
                    if one.mqtt_client and (up_to is None or one.cid <= up_to):
                        await self._close_one(one.cid)
            except Unavailable as why:
                _log.warning("a connection is not closed yet; tried again", device=user, error=str(why))
                await self._clock.sleep(0.2)
                continue
            return

    async def _close_one(self, cid: int) -> None:
        await self._server.close_connection(cid)
        self._forget(cid)
        self.closed += 1
