"""Who is connected, as the server's system account tells it; closing connections; who was refused what."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from nats.aio.client import Client

from sensegate import metrics
from sensegate.bus import api
from sensegate.bus.process import dumps
from sensegate.bus.server_log import Violation
from sensegate.errors import Unavailable

_VIOLATIONS_MAX = 10_000
_KNOWN_MAX = 20_000
_PAGE = 1024
_OPEN_AND_CLOSED = 2
OWN_ACCOUNT = "SYS"
"""In which we are connected to ask."""


class Connection(msgspec.Struct, frozen=True):
    """A client connection as the server sees it."""

    cid: int
    account: str = ""
    authorized_user: str = ""
    """User name that the client gave and that was accepted."""
    mqtt_client: str = ""
    name: str = ""
    ip: str = ""
    port: int = 0


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


class Connections:
    """Asks the server over a connection of `User.SYSTEM`, made when first needed."""

    def __init__(self, connect: Callable[[], Awaitable[Client]]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._violations: deque[Violation] = deque(maxlen=_VIOLATIONS_MAX)
        self._violated = asyncio.Event()
        self._known: OrderedDict[int, Connection] = OrderedDict()

    async def present(self, account: str, **selection: Any) -> list[Connection]:
        """Return the open connections of an account."""
        found: list[Connection] = []
        while True:
            asked = {"acc": account, "auth": True, "limit": _PAGE, "offset": len(found), **selection}
            page = msgspec.json.decode(await self.ask("CONNZ", asked), type=_Connz).data
            found += page.connections
            if not page.connections or len(found) >= page.total:
                return found

    async def counts(self, accounts: Sequence[str]) -> dict[str, int]:
        """Return how many connections are open in each of some accounts; of a cluster, at the server that answers."""
        client = await self._connected()
        with api.lost("the server did not answer STATZ"):
            subject = "$SYS.REQ.ACCOUNT.PING.STATZ"
            # Where nothing is connected in any of them the server does not answer: it is asked for our own, too.
            asked = {"accounts": [*accounts, OWN_ACCOUNT]}
            answer = await client.request(subject, dumps(asked), timeout=api.TIMEOUT_S)
        rows = msgspec.json.decode(answer.data, type=_Statz).data.account_statz
        return {row.acc: row.conns for row in rows if row.acc in accounts}

    async def kick(self, account: str, client_id: str, user: str) -> int:
        """Close the connections with this MQTT client id, or of this user; return how many."""
        if not (client_id or user):
            return 0
        closing = await self.present(account, **({"mqtt_client": client_id} if client_id else {"user": user}))
        for one in closing:
            await self.close_one(one.cid)
        return len(closing)

    async def close_one(self, cid: int) -> None:
        """Close one connection."""
        await self.ask("KICK", {"cid": cid})

    def note(self, seen: Violation) -> None:
        """Take a refusal from the server's log."""
        if len(self._violations) == _VIOLATIONS_MAX:
            metrics.LIMIT_HITS.labels("violations").inc()
        self._violations.append(seen)
        self._violated.set()

    async def violations(self) -> list[Violation]:
        """Wait for refusals; return those noted since the last call, with account and user."""
        while not self._violations:
            self._violated.clear()
            await self._violated.wait()
        taken = list(self._violations)
        self._violations.clear()
        return [await self._named(one) for one in taken]

    def forget(self) -> None:
        """Another server process: its numbers of connections begin anew."""
        self._known.clear()

    async def close(self) -> None:
        """Close our own connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def ask(self, what: str, body: dict[str, Any]) -> bytes:
        """Ask the server over its system account. Raises `Unavailable`."""
        client = await self._connected()
        with api.lost(f"the server did not answer {what}"):
            # A server, ours or another's, has a new id with each start.
            server_id = client._server_info["server_id"]  # noqa: SLF001 - nats-py has no other way to it
            subject = f"$SYS.REQ.SERVER.{server_id}.{what}"
            return (await client.request(subject, dumps(body), timeout=api.TIMEOUT_S)).data

    async def _named(self, seen: Violation) -> Violation:
        """Fill in the account and the user, which the line of an MQTT connection does not tell."""
        if seen.account:
            return seen
        known = self._known.get(seen.connection)
        if known is None:
            # Closed ones too: the server remembers the last 10,000.
            asked = {"cid": seen.connection, "auth": True, "state": _OPEN_AND_CLOSED}
            try:
                page = msgspec.json.decode(await self.ask("CONNZ", asked), type=_Connz).data
            except Unavailable:
                return seen
            if not page.connections:
                return seen
            known = self._known[seen.connection] = page.connections[0]
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return msgspec.structs.replace(seen, account=known.account, user=known.authorized_user)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
            return self._client
