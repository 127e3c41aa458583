"""Return flow by file and by question: a centre exports the rows that go back to a node, and the node imports them."""

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
    """A centre's side; implements `rest_returns.ReturnTransfer`."""

    def __init__(self, returns: ReturnFlow, key: Ed25519PrivateKey, clock: Clock, *, division: str) -> None:
        """`key` signs files; `division`: of the centre."""
        self._returns = returns
        self._key = key
        self._clock = clock
        self._division = division

    async def answer(self, member: str, payload: bytes) -> bytes:
        """Answer a node that asks for the next part. Raises `Gone`, `Unavailable`."""
        request = msgspec.msgpack.decode(payload, type=ReturnRequest)
        return msgspec.msgpack.encode(await self._returns.part(city_of(member), request))

    async def export(self, division: str, log_epoch: str, after: int) -> tuple[bytes, str]:
        """Return a signed file of the rows that go back to a node after an offset, and the offset at which it ends."""
        body, content = await return_files.export_file(
            self._returns,
            division,
            ReturnRequest(log_epoch, after),
            self._key,
            centre=self._division,
            made_at=self._clock.now(),
        )
        return body, f"{content.log_epoch}:{content.until}"

    async def place(self) -> str:
        """Refuse: nothing is returned to a centre."""
        raise NotFound("nothing is returned to a centre; ask at the node")

    async def take(self, _file: bytes) -> tuple[int, str]:
        """Refuse: nothing is returned to a centre."""
        raise NotFound("nothing is returned to a centre; import at the node")


class NodeReturns:
    """A node's side; implements `rest_returns.ReturnTransfer`."""

    def __init__(self, receiver: ReturnReceiver, *, key_file: str) -> None:
        """`key_file`: public key of the centre whose files are accepted; empty: none are."""
        self._receiver = receiver
        self._key_file = key_file

    async def export(self, _division: str, _log_epoch: str, _after: int) -> tuple[bytes, str]:
        """Refuse: a node returns nothing."""
        raise NotFound("only a centre returns readings; ask there")

    async def place(self) -> str:
        """Return the offset of this node in its centre's return flow."""
        position = await self._receiver.position()
        return f"{position.log_epoch}:{position.position}"

    async def take(self, file: bytes) -> tuple[int, str]:
        """Take a signed file of the centre; return (rows, offset). Raises `ConfigError`, `Conflict`, `Unavailable`."""
        if not self._key_file:
            remedy = "name the centre's statements.pub there"
            raise ConfigError("no key is believed", key="returns.key_file", remedy=remedy)
        key = await asyncio.to_thread(public_key, Path(self._key_file))
        content = await asyncio.to_thread(return_files.read_file, file, key)
        rows = 0
        for part in content.parts:
            rows += await self._receiver.take(part, by_file=True)
        return rows, await self.place()
