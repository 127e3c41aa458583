"""The copy of a node's registries at its centre, and the time until which it is complete."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import KvBucket
from sensegate.clock import SystemClock
from sensegate.tiers.registry_copies import CopyPosition, RegistryCopies, RegistryRows, RegistryUploader, decode_at
from tests.conftest import eventually

pytestmark = pytest.mark.live
NODE = "4401"
MIB = 1024**2


class Pair:
    """A node with two buckets, and its centre, on one server."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.before_storing: Callable[[], Awaitable[None]] | None = None
        """Called before the centre stores a part of the rows."""
        self.restart_centre()

    def restart_centre(self) -> None:
        """Replace the centre by one that has the buckets, but nothing in memory."""
        self.copies = RegistryCopies(self._open)

    async def _open(self, name: str) -> KvBucket:
        return await KvBucket.open(self.client, name, bytes_max=MIB)

    async def ask(self, question: str, payload: bytes) -> bytes:
        """Answer as the centre."""
        if question == "copied":
            return await self.copies.answer_position(NODE, payload)
        if self.before_storing:
            await self.before_storing()
        return await self.copies.store_rows(NODE, payload)

    @contextlib.asynccontextmanager
    async def uploading(self) -> AsyncIterator[None]:
        """Run the node's uploads."""
        self.client = await self.engine.connect(User.GATEWAY)
        self.devices, self.tokens = await self._open("devices"), await self._open("tokens")
        buckets = {"devices": self.devices, "tokens": self.tokens}
        uploader = RegistryUploader(self.client, buckets, self.ask, SystemClock(), log_epoch="a")
        task = asyncio.create_task(uploader.run(), name="upload registries")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.client.close()

    async def complete_since(self, changed: int) -> None:
        """Wait until the centre states that its copy has all changes before some moment after `changed` (µs UTC)."""
        await eventually(lambda: self.copies.complete_until.get(NODE, 0) > changed)


async def test_a_change_during_a_round_is_confirmed_by_the_next(engine: Engine) -> None:
    """A round sends a change that came after the round began; the next round has no rows, but confirms its time."""
    pair, changed = Pair(engine), 0

    async def change() -> None:
        nonlocal changed
        if not changed:
            await pair.tokens.put("t", b"later")
            changed = time.time_ns() // 1_000

    pair.before_storing = change
    async with pair.uploading():
        await pair.devices.put("d", b"first")
        await eventually(lambda: changed)
        await pair.complete_since(changed)
        assert await pair.copies.find(NODE, "tokens", "t") == b"later"


async def test_a_centre_that_was_restarted_learns_the_time_without_a_change(engine: Engine) -> None:
    """The centre has stored all rows, but keeps the time in memory only."""
    pair = Pair(engine)
    async with pair.uploading():
        await pair.devices.put("d", b"first")
        await pair.tokens.put("t", b"first")
    for _ in range(2):  # the first round after the restart has the rows, the second has none
        pair.restart_centre()
        restarted = time.time_ns() // 1_000
        async with pair.uploading():
            await pair.complete_since(restarted)


async def test_a_position_that_cannot_be_read_begins_anew(engine: Engine) -> None:
    """The node sends everything again; else no change would reach the copy any more."""
    pair = Pair(engine)
    pair.client = await engine.connect(User.GATEWAY)
    await (await pair.copies._of(NODE)).put("at", b"damaged")
    assert decode_at(await pair.copies.answer_position(NODE, b"")) == CopyPosition()
    rows = RegistryRows("a", "devices", [("d", b"first")], 7)
    await pair.copies.store_rows(NODE, msgspec.msgpack.encode(rows))
    assert decode_at(await pair.copies.answer_position(NODE, b"")) == CopyPosition("a", {"devices": 7})
    assert await pair.copies.find(NODE, "devices", "d") == b"first"
    await pair.client.close()
