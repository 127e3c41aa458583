"""Who owns a device: the first that sends it, then whoever the book of moves or the province says."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.tiers.centre_side import WriterEvents
from sensegate.tiers.move_records import MoveRecord, MoveStage
from sensegate.tiers.ownership import ROW_DEVICES, DeviceOwners

PROVINCE = Principal("province", Role.PROVINCE_OPERATOR, scope("44"))
CITY = Principal("city", Role.CITY_OPERATOR, scope("4401"))


class Book:
    """Owners at a centre that has the device `mine` itself."""

    def __init__(self, bucket: MemoryBucket | None = None, *, devices_max: int = 1_000_000) -> None:
        self.bucket = bucket or MemoryBucket()
        self.trail, self.clock = MemoryTrail(), FakeClock()
        self.owners = DeviceOwners(
            self.bucket, self.trail, self.clock, home="44", is_own="mine".__eq__, devices_max=devices_max
        )

    async def read_again(self) -> DeviceOwners:
        """Return what another process knows."""
        other = Book(self.bucket)
        await other.owners.load()
        return other.owners


def move(
    stage: MoveStage, *, number: int = 1, source: str = "4401", target: str = "4403", taken: int = 0
) -> MoveRecord:
    """Return a move of the device `a`."""
    return MoveRecord(f"m{number}", "a", source, target, target, stage, "admin", 1, max(1, taken), taken)


async def test_the_first_member_owns_a_device_durably() -> None:
    """Nobody's at first; then it is the first one's, in every process; the centre's own are nobody else's."""
    book = Book()
    assert book.owners.owner("a") == ""
    await book.owners.claim("4401", ["a", "b"])
    await book.owners.claim("4401", ["a", "c"])
    for owners in (book.owners, await book.read_again()):
        assert [owners.owner(device) for device in ("a", "b", "c", "d", "mine")] == ["4401", "4401", "4401", "", "44"]
        assert owners.may_send("4401", "a")
        assert not owners.may_send("4403", "a")
        assert not owners.may_send("4403", "mine")
        assert owners.room("4401") == 1_000_000 - 3


async def test_of_two_that_claim_at_once_one_owns_it() -> None:
    """Whoever is later judges its rows again, and finds another's device."""
    book = Book()
    outcomes = await asyncio.gather(
        book.owners.claim("4401", ["a", "x"]), book.owners.claim("4403", ["a", "y"]), return_exceptions=True
    )
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 1
    assert book.owners.owner("a") == "4401"
    assert book.owners.owner("y") == ""


async def test_two_processes_that_claim_for_a_member_lose_nothing() -> None:
    """A row that another process has changed is read again; the claim is asked for once more."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    other = await book.read_again()
    await book.owners.claim("4401", ["b"])
    with pytest.raises(Overloaded):
        await other.claim("4401", ["c"])
    await other.claim("4401", ["c"])
    assert {(await book.read_again()).owner(device) for device in "abc"} == {"4401"}


async def test_a_claim_stands_behind_the_deletion_of_its_row() -> None:
    """A standby deletes the rows that its centre lacks: after its take-over devices are claimed again."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    await book.bucket.delete("claims/4401/0")
    other = await book.read_again()
    assert other.owner("a") == ""
    await other.claim("4401", ["a", "b"])
    assert {(await book.read_again()).owner(device) for device in "ab"} == {"4401"}


async def test_many_devices_stand_in_few_rows() -> None:
    """A province has millions: claims are written many to a row, and counted against the member's room."""
    book = Book(devices_max=3 * ROW_DEVICES)
    devices = [f"device-{number}" for number in range(2 * ROW_DEVICES + 10)]
    await book.owners.claim("4401", devices[:10])
    await book.owners.claim("4401", devices)
    rows, _ = await book.bucket.load_all()
    assert len(rows) == 3
    assert book.owners.room("4401") == ROW_DEVICES - 10
    assert (await book.read_again()).owner(devices[-1]) == "4401"


@pytest.mark.parametrize(
    ("stage", "source", "target", "owner"),
    [
        (MoveStage.ASKED, True, False, "4401"),
        (MoveStage.CARRIED, True, True, "4401"),
        (MoveStage.TAKEN, True, True, "4403"),
        (MoveStage.DONE, True, True, "4403"),
        (MoveStage.REFUSED, True, False, "4401"),
        (MoveStage.CANCELLED, True, False, "4401"),
    ],
)
async def test_a_move_of_the_book_hands_a_device_over(
    stage: MoveStage, *, source: bool, target: bool, owner: str
) -> None:
    """While it is on its way both may send; afterwards the target owns it, and the source's backlog still comes up."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    for known in (MoveStage.ASKED, stage):
        book.owners.on_move(move(known))
    for owners in (book.owners, await settled(book)):
        assert owners.owner("a") == owner
        assert (owners.may_send("4401", "a"), owners.may_send("4403", "a")) == (source, target or owner == "4403")
        assert not owners.may_send("4405", "a")


async def settled(book: Book) -> DeviceOwners:
    """Return what another process knows once transfers are written, and the book of moves."""
    await book.owners.write_due()
    owners = await book.read_again()
    for known in book.owners._moving.values():
        owners.on_move(known)
    return owners


async def test_a_device_that_moves_on_and_back() -> None:
    """Each owner of the past may bring up what it still has; the last one owns it, whatever the book says once more."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    there = move(MoveStage.DONE, taken=book.clock.now())
    book.owners.on_move(there)
    await book.owners.write_due()
    await book.clock.advance(10)
    back = move(MoveStage.DONE, number=2, source="4403", target="4401", taken=book.clock.now())
    book.owners.on_move(back)
    await book.owners.write_due()
    book.owners.on_move(there)
    assert book.owners.owner("a") == "4401"
    assert book.owners.may_send("4403", "a")


async def test_an_order_that_was_owed_takes_no_device_back() -> None:
    """The first move's source is back and retires the device: its record changes, long after the second move."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    first = move(MoveStage.DONE, taken=book.clock.now())
    book.owners.on_move(first)
    await book.owners.write_due()
    await book.clock.advance(10)

    async def settle() -> None:
        await book.clock.advance(10)
        book.owners.on_move(msgspec.structs.replace(first, changed_at=book.clock.now()))
        await book.owners.write_due()

    second = move(MoveStage.CARRIED, number=2, source="4403", target="4405")
    book.owners.on_move(second)
    await settle()
    assert book.owners.may_send("4405", "a"), "the second move is in progress"
    book.owners.on_move(msgspec.structs.replace(second, stage=MoveStage.DONE, taken_at=book.clock.now()))
    await settle()
    assert book.owners.owner("a") == "4405"
    for owners in (book.owners, await book.read_again()):
        assert owners.may_send("4405", "a")


async def test_a_decision_stands_against_a_move_that_ended_before() -> None:
    """The store was away when the move ended: its transfer is not written behind the operator's decision."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    book.owners.on_move(move(MoveStage.DONE, taken=book.clock.now()))
    await book.clock.advance(10)
    await book.owners.assign("a", "4405", by=PROVINCE)
    await book.owners.write_due()
    assert book.owners.owner("a") == "4405"


async def test_a_transfer_stands_behind_the_deletion_of_its_row() -> None:
    """A standby deletes the rows that its centre lacks: after its take-over a device is handed over all the same."""
    book = Book()
    await book.bucket.put("transfers/a", b"x")
    await book.bucket.delete("transfers/a")
    await book.owners.claim("4401", ["a"])
    book.owners.on_move(move(MoveStage.DONE, taken=book.clock.now()))
    await book.owners.write_due()
    assert (await book.read_again()).owner("a") == "4403"


async def test_a_transfer_of_another_process_is_read_and_not_overwritten() -> None:
    """Another process has written a later decision: the due transfer is checked against it and given up."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    await (await book.read_again()).assign("a", "4405", by=PROVINCE)
    await book.clock.advance(-10)
    book.owners.on_move(move(MoveStage.DONE, taken=book.clock.now() - 1))
    with pytest.raises(Overloaded):
        await book.owners.write_due()
    await book.owners.write_due()
    assert book.owners.owner("a") == "4405"


async def test_transfers_that_could_not_be_written_are_when_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task ends and is started again: it does not wait for another move."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    put = book.bucket.put

    async def away(*_: object, **__: object) -> int:
        raise Unavailable("the store is away")

    monkeypatch.setattr(book.bucket, "put", away)
    book.owners.on_move(move(MoveStage.DONE, taken=book.clock.now()))
    with pytest.raises(Unavailable):
        await book.owners.run()
    monkeypatch.setattr(book.bucket, "put", put)
    async with asyncio.timeout(5):
        task = asyncio.create_task(book.owners.run())
        while await book.bucket.get("transfers/a") is None:
            await asyncio.sleep(0)
    task.cancel()
    assert (await book.read_again()).owner("a") == "4403"


async def test_the_province_decides_where_the_wrong_one_was_first() -> None:
    """Audited; the wrong owner may send it no more; not while it is on its way, and nothing that nobody sent."""
    book = Book()
    await book.owners.claim("4401", ["a"])
    await book.owners.note_conflicts("4403", ["a"])
    with pytest.raises(PermissionDenied):
        await book.owners.assign("a", "4403", by=CITY)
    with pytest.raises(NotFound):
        await book.owners.assign("never", "4403", by=PROVINCE)
    await book.owners.assign("a", "4403", by=PROVINCE)
    for owners in (book.owners, await book.read_again()):
        assert owners.owner("a") == "4403"
        assert not owners.may_send("4401", "a")
    assert [record[1] for record in book.trail.records] == ["device.conflict", "device.assign"]
    assert book.owners.conflicts() == []
    book.owners.on_move(msgspec.structs.replace(move(MoveStage.CARRIED, source="4403", target="4405")))
    with pytest.raises(Conflict):
        await book.owners.assign("a", "4401", by=PROVINCE)


async def test_a_conflict_is_told_once() -> None:
    """Each device is counted once, the trail has a record an hour, the page names sender and owner."""
    book = Book()
    await book.owners.claim("4401", ["a", "b"])
    for _ in range(3):
        await book.owners.note_conflicts("4403", ["a", "b"])
    assert [record[1] for record in book.trail.records] == ["device.conflict"]
    conflicts = book.owners.conflicts("4401")
    assert {(known.device, known.owner, known.sent_by) for known in conflicts} == {
        ("a", "4401", "4403"),
        ("b", "4401", "4403"),
    }
    assert book.owners.conflicts("4405") == []


async def test_a_conflict_that_was_not_recorded_does_not_keep_the_next_from_the_trail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trail was away: the hour in which it has one record has not begun."""
    book = Book()
    await book.owners.claim("4401", ["a", "b"])

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("no trail")

    with monkeypatch.context() as patch:
        patch.setattr(book.trail, "record", away)
        with pytest.raises(Unavailable):
            await book.owners.note_conflicts("4403", ["a"])
    await book.owners.note_conflicts("4403", ["b"])
    assert [record[1] for record in book.trail.records] == ["device.conflict"]


async def test_a_copy_of_a_store_is_recorded_as_soon_as_the_trail_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trail gets one record an hour; a record that failed does not count."""
    trail = MemoryTrail()
    events = WriterEvents(trail, FakeClock(), home="44")
    record, failures = trail.record, [StoreFull("no room")]

    async def failing(*args: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        await record(*args, **more)

    monkeypatch.setattr(trail, "record", failing)
    for _ in range(3):
        await events.denied("4401", "two copies")
    assert [record[1] for record in trail.records] == ["node.copy"]
