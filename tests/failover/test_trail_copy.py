"""The trail of a standby: one chain through a promotion; what one centre alone had is refused and can be told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sensegate.authority.audit import Audit
from sensegate.authority.chain import digest
from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus import streams
from sensegate.bus.engine import Engine, User
from sensegate.clock import SystemClock
from sensegate.config import EngineConfig, StoreConfig
from sensegate.errors import Fenced
from sensegate.failover import trail_copy
from sensegate.failover.trail_copy import TrailCopy

pytestmark = pytest.mark.live

BY = Principal("admin", Role.ADMIN, scope("44"))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nothing new, the answer does not wait long."""
    monkeypatch.setattr(trail_copy, "WAIT_S", 0.01)
    monkeypatch.setattr(trail_copy, "ROWS_MAX", 4)


@contextlib.asynccontextmanager
async def trail(directory: Path, store: StoreConfig) -> AsyncIterator[Audit]:
    """Run an engine with a trail of 44."""
    engine = Engine(EngineConfig(), store, directory, name="44")
    await engine.start()
    try:
        nc = await engine.connect(User.GATEWAY)
        await streams.ensure_ledger_and_audit(nc, store)
        made = Audit(nc, SystemClock(), gateway="44")
        yield made
        await made.close()
        await nc.close()
    finally:
        await engine.stop()


async def write(audit: Audit, count: int, name: str) -> None:
    """Append records."""
    for number in range(count):
        await audit.record(BY, "device.add", f"{name}-{number}")


def asks(audit: Audit) -> Callable[[str, bytes], Awaitable[bytes]]:
    """Return the way to a trail."""

    async def ask(subject: str, payload: bytes) -> bytes:
        assert subject == "trail"
        return await trail_copy.answer_trail(audit, payload)

    return ask


async def copied(own: Audit, source: Audit) -> None:
    """Copy until nothing comes."""
    copy = TrailCopy(own)
    while await copy.copy_next(asks(source)):
        pass


async def test_one_chain_through_a_promotion(tmp_path: Path, store_config: StoreConfig) -> None:
    """Copied and gone on with, then copied back; a tail that only one of them had is no copy, and is told."""
    async with trail(tmp_path / "a", store_config) as first, trail(tmp_path / "b", store_config) as second:
        await copied(second, first)  # nothing yet
        await write(first, 11, "before")
        await copied(second, first)
        assert await second.end() == await first.end()
        await write(first, 2, "later")
        await copied(second, first)
        assert [raw async for raw in second.stored()] == [raw async for raw in first.stored()]
        head = await first.head()
        await write(second, 3, "promoted")
        assert await second.check(head) is None  # the head noted at the old centre is found at the new one
        assert await trail_copy.divergent_tail(first, asks(second)) == (13, [])
        await copied(first, second)
        assert (await first.head()).number == 16
        assert await first.check() is None
        # Both write: whoever is not active any more has a tail.
        await write(second, 6, "active")
        await write(first, 2, "cut off")
        with pytest.raises(Fenced, match="record 18"):
            await copied(first, second)
        number, records = await trail_copy.divergent_tail(first, asks(second))
        assert number == 16
        assert digest(records[-1]) == digest((await first.end())[1])
        assert [b"cut off" in raw for raw in records] == [True, True]
        with pytest.raises(Fenced):
            await first.take(await second.after(17, limit=9))  # nor could it be written
        # A trail longer than that of the active one.
        await write(first, 9, "cut off")
        with pytest.raises(Fenced, match="ends with number 27"):
            await copied(first, second)
        assert (await trail_copy.divergent_tail(first, asks(second)))[0] == 16


async def test_only_what_goes_on_is_taken(tmp_path: Path, store_config: StoreConfig) -> None:
    """A changed record in between is found before it is written."""
    async with trail(tmp_path / "a", store_config) as first, trail(tmp_path / "b", store_config) as second:
        await write(first, 4, "before")
        raws = await first.after(0, limit=10)
        assert await first.after(2, limit=10) == raws[2:]
        assert await first.after(4, limit=10) == []
        forged = [raws[0], raws[1].replace(b"before-1", b"forged-1"), *raws[2:]]
        with pytest.raises(Fenced, match="record 3 does not follow record 2"):
            await second.take(forged)
        assert (await second.end())[0] == 2
