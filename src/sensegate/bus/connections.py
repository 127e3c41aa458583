"""Client connections as the server's system account reports them: list, close, permission violations."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from nats.aio.client import Client

from sensegate import metrics
from sensegate.bus import api
from sensegate.bus.process import json_bytes
from sensegate.bus.server_log import Violation
from sensegate.errors import Unavailable

_VIOLATIONS_MAX = 10_000
_RESOLVED_MAX = 20_000
_PAGE = 1024
_OPEN_AND_CLOSED = 2
OWN_ACCOUNT = "SYS"
"""Account of the connection over which the server is asked."""


class Connection(msgspec.Struct, frozen=True):
    """A client connection as the server sees it."""

    cid: int
    account: str = ""
    authorized_user: str = ""
    """User name with which the client was authenticated."""
    mqtt_client: str = ""
    name: str = ""
    ip: str = ""
    port: int = 0
    subscriptions_list: tuple[str, ...] = ()
    """Subjects to which it subscribes, where they were asked for (``subscriptions``)."""


class _Page(msgspec.Struct, frozen=True):
    connections: list[Connection] = []
    total: int = 0


class _Connz(msgspec.Struct, frozen=True):
    data: _Page = _Page()


class _AccountStat(msgspec.Struct, frozen=True):
    acc: str
    conns: int = 0


class _AccountStats(msgspec.Struct, frozen=True):
    account_statz: list[_AccountStat] = []


class _Statz(msgspec.Struct, frozen=True):
    data: _AccountStats = _AccountStats()


class ServerConnections:
    """Monitors connections over a client of `User.SYSTEM`, which is connected when first needed."""

    def __init__(self, connect: Callable[[], Awaitable[Client]]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._violations: deque[Violation] = deque(maxlen=_VIOLATIONS_MAX)
        self._has_violations = asyncio.Event()
        self._known: OrderedDict[int, Connection] = OrderedDict()

    async def list_open(self, account: str, **selection: Any) -> list[Connection]:
        """Return the open connections of an account."""
        connections: list[Connection] = []
        while True:
            query = {"acc": account, "auth": True, "limit": _PAGE, "offset": len(connections), **selection}
            page = msgspec.json.decode(await self.request("CONNZ", query), type=_Connz).data
            connections += page.connections
            if not page.connections or len(connections) >= page.total:
                return connections

    async def counts(self, accounts: Sequence[str]) -> dict[str, int]:
        """Return the number of open connections per account; of a cluster, at the server that responds."""
        client = await self._connected()
        with api.translate_client_errors("the server did not answer STATZ"):
            subject = "$SYS.REQ.ACCOUNT.PING.STATZ"
            # The server does not respond where none of the accounts has a connection: our own account is added.
            query = {"accounts": [*accounts, OWN_ACCOUNT]}
            response = await client.request(subject, json_bytes(query), timeout=api.TIMEOUT_S)
        rows = msgspec.json.decode(response.data, type=_Statz).data.account_statz
        return {row.acc: row.conns for row in rows if row.acc in accounts}

    async def kick(self, account: str, client_id: str, user: str) -> int:
        """Close the connections with this MQTT client id, or of this user; return their number."""
        if not (client_id or user):
            return 0
        closing = await self.list_open(account, **({"mqtt_client": client_id} if client_id else {"user": user}))
        for connection in closing:
            await self.close_connection(connection.cid)
        return len(closing)

    async def close_connection(self, cid: int) -> None:
        """Close a connection by its id."""
        await self.request("KICK", {"cid": cid})

    def record_violation(self, violation: Violation) -> None:
        """Queue a permission violation found in the server's log."""
        if len(self._violations) == _VIOLATIONS_MAX:
            metrics.LIMIT_HITS.labels("violations").inc()
        self._violations.append(violation)
        self._has_violations.set()

    async def violations(self) -> list[Violation]:
        """Wait for permission violations; return those since the last call, with account and user."""
        while not self._violations:
            self._has_violations.clear()
            await self._has_violations.wait()
        queued = list(self._violations)
        self._violations.clear()
        return [await self._resolved(violation) for violation in queued]

    def reset(self) -> None:
        """Forget resolved connections: a new server process reuses connection ids."""
        self._known.clear()

    async def close(self) -> None:
        """Close our own connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def request(self, endpoint: str, body: dict[str, Any]) -> bytes:
        """Send a request of the system account to the server. Raises `Unavailable`."""
        client = await self._connected()
        with api.translate_client_errors(f"the server did not answer {endpoint}"):
            # The id of a server changes with each start.
            server_id = client._server_info["server_id"]  # noqa: SLF001 - nats-py has no public accessor
            subject = f"$SYS.REQ.SERVER.{server_id}.{endpoint}"
            return (await client.request(subject, json_bytes(body), timeout=api.TIMEOUT_S)).data

    async def _resolved(self, violation: Violation) -> Violation:
        """Return the violation with account and user, which the log line of an MQTT connection does not contain."""
        if violation.account:
            return violation
        known = self._known.get(violation.connection)
        if known is None:
            # Closed connections too: the server remembers the last 10,000.
            query = {"cid": violation.connection, "auth": True, "state": _OPEN_AND_CLOSED}
            try:
                page = msgspec.json.decode(await self.request("CONNZ", query), type=_Connz).data
            except Unavailable:
                return violation
            if not page.connections:
                return violation
            known = self._known[violation.connection] = page.connections[0]
            if len(self._known) > _RESOLVED_MAX:
                self._known.popitem(last=False)
        return msgspec.structs.replace(violation, account=known.account, user=known.authorized_user)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
            return self._client
