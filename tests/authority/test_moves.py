"""The book of moves: what is over leaves nothing behind in the store."""

from __future__ import annotations

import msgspec
import pytest

from sensegate.authority import moves as module
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Stored
from sensegate.authority.divisions import Divisions
from sensegate.authority.moves import Moves, Part, Stage, Told
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.model import Device

ADMIN = Principal("admin", Role.ADMIN, scope("44"))
PLACES = ["4401", "4403"]


async def find(division: str, device: str) -> Stored | None:
    return Stored(Device(device, division="440106", profile="acme/meter")) if division == "4401" else None


def pack(record: object) -> bytes:
    return msgspec.msgpack.encode(record)


async def keys(bucket: MemoryBucket) -> list[str]:
    return [row.key for row in (await bucket.load_all())[0]]


async def test_what_a_source_gave_before_it_gave_up_goes(clock: FakeClock) -> None:
    """Parts came, then the move was refused: they are not there for ever."""
    moves = Moves(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), find)
    move = await moves.ask("d1", "4403", "440305", by=ADMIN, gateways=PLACES)
    for number in range(3):
        await moves.part("4401", pack(Part(move.id, number, b"x")))
    assert len(await keys(bucket)) == 4, "negative control"
    await moves.told("4401", pack(Told(move.id, refused="no")))
    assert moves.get(move.id, ADMIN).stage is Stage.REFUSED
    assert await keys(bucket) == [move.id]


async def test_moves_over_long_ago_go_from_the_store_too(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept; one that goes on is, however old it is."""
    monkeypatch.setattr(module, "KEPT_MAX", 2)
    moves = Moves(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), find)
    first = await moves.ask("d0", "4403", "440305", by=ADMIN, gateways=PLACES)
    over = []
    for number in range(1, 5):
        await clock.advance(1)
        move = await moves.ask(f"d{number}", "4403", "440305", by=ADMIN, gateways=PLACES)
        over.append(move.id)
        await moves.told("4401", pack(Told(move.id, refused="no")))
    assert sorted(await keys(bucket)) == sorted([first.id, *over[-2:]])
    assert {one.id for one in moves.all(ADMIN)} == {first.id, *over[-2:]}
    again = Moves(bucket, MemoryTrail(), clock, Divisions.load(), find)
    await again.load()
    assert {one.id for one in again.all(ADMIN)} == {first.id, *over[-2:]}
