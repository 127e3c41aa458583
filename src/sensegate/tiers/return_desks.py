"""Return flow for people and by question: a centre exports what goes back to a node, and the node takes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sensegate.authority.heads import public_key
from sensegate.bus.names import city_of
from sensegate.clock import Clock
from sensegate.errors import ConfigError, NotFound
from sensegate.tiers import return_files
from sensegate.tiers.return_flow import ReturnFlow, ReturnRequest
from sensegate.tiers.return_receiver import ReturnReceiver


class CentreReturns:
    """A centre's side; implements `rest_returns.ReturnDesk`."""

    def __init__(self, returns: ReturnFlow, key: Ed25519PrivateKey, clock: Clock, *, division: str) -> None:
        """`key` signs files; `division`: of the centre."""
        self._returns = returns
        self._key = key
        self._clock = clock
        self._division = division

    async def answer(self, member: str, payload: bytes) -> bytes:
        """Answer a node that asks what follows. Raises `Gone`, `Unavailable`."""
        wanted = msgspec.msgpack.decode(payload, type=ReturnRequest)
        return msgspec.msgpack.encode(await self._returns.part(city_of(member), wanted))

    async def export(self, division: str, life: str, after: int) -> tuple[bytes, str]:
        """Return a signed file of what goes back to a node after an offset, and the offset at which it ends."""
        body, held = await return_files.export_file(
            self._returns,
            division,
            ReturnRequest(life, after),
            self._key,
            centre=self._division,
            made_at=self._clock.now(),
        )
        return body, f"{held.log_epoch}:{held.until}"

    async def place(self) -> str:
        """Refuse: nothing comes back to a centre."""
        raise NotFound("nothing comes back to a centre")

    async def take(self, _file: bytes) -> tuple[int, str]:
        """Refuse: nothing comes back to a centre."""
        raise NotFound("nothing comes back to a centre; import at the node")


class NodeReturns:
    """A node's side; implements `rest_returns.ReturnDesk`."""

    def __init__(self, taker: ReturnReceiver, *, key_file: str) -> None:
        """`key_file`: public key of the centre whose files are taken; empty: none are."""
        self._taker = taker
        self._key_file = key_file

    async def export(self, _division: str, _life: str, _after: int) -> tuple[bytes, str]:
        """Refuse: a node returns nothing."""
        raise NotFound("only a centre gives back; ask there")

    async def place(self) -> str:
        """Return the offset up to which this node has taken what its centre returns."""
        found = await self._taker.position()
        return f"{found.log_epoch}:{found.position}"

    async def take(self, file: bytes) -> tuple[int, str]:
        """Take a signed file of the centre; return (rows, offset). Raises `ConfigError`, `Conflict`, `Unavailable`."""
        if not self._key_file:
            remedy = "name the centre's statements.pub there"
            raise ConfigError("no key is believed", key="returns.key_file", remedy=remedy)
        key = await asyncio.to_thread(public_key, Path(self._key_file))
        held = await asyncio.to_thread(return_files.read_file, file, key)
        rows = 0
        for part in held.parts:
            rows += await self._taker.take(part, by_file=True)
        return rows, await self.place()
