"""The book of moves: what is over leaves nothing behind in the store."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.credentials import issue
from sensegate.authority.device_table import StoredDevice, encode_stored
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.bus.batch import LocalColumns
from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied, StoreFull, Unavailable
from sensegate.model import Device, DeviceState, LogMessage
from sensegate.tiers import move_parts
from sensegate.tiers import move_register as module
from sensegate.tiers.centre_side import _move_own
from sensegate.tiers.device_moves import DeviceMover, LogIdentity, MoveOperations
from sensegate.tiers.move_records import (
    ENDED_STAGES,
    MoveOptions,
    MoveOrder,
    MovePart,
    MoveRecord,
    MoveReport,
    MoveStage,
    UncarriedState,
    decode_orders,
)
from sensegate.tiers.move_register import MoveRegister
from sensegate.tiers.registry_copies import RegistryCopies
from sensegate.tiers.registry_view import RegistryView
from sensegate.tiers.rest_moves import MoveRequest, _row
from tests.share.made import NOW
from tests.support.clocks import InstantClock
from tests.tiers.made import batch_of

ADMIN = Principal("admin", Role.ADMIN, scope("44"))
PLACES = ["4401", "4403", "4405"]
PASSWORD, SECRET = issue()
FORCED = MoveOptions("4401", force=True, keep_credential=True)


class Known:
    """Registries as the centre knows them: entries by (division, device), and who is gone."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], StoredDevice] = {}
        self.expelled: set[str] = set()
        self.invited: set[str] = set()
        self.since = 1_700_000_000_000_000

    async def find(self, division: str, device: str) -> StoredDevice | None:
        made = (
            StoredDevice(Device(device, division="440106", profile="acme/meter"), SECRET)
            if division == "4401"
            else None
        )
        return self.entries.get((division, device), made)

    async def amend(self, division: str, stored: StoredDevice) -> None:
        self.entries[division, stored.device.id] = stored

    def is_gone(self, division: str) -> bool:
        return division in self.expelled

    def is_new(self, division: str) -> bool:
        return division in self.invited

    async def uncarried(self, division: str) -> UncarriedState:
        return UncarriedState(self.since, 3)


def pack(record: object) -> bytes:
    return msgspec.msgpack.encode(record)


async def keys(bucket: MemoryBucket) -> list[str]:
    return [row.key for row in (await bucket.load_all())[0]]


async def test_a_node_with_a_name_prevents_no_move(clock: FakeClock) -> None:
    """A city may have several nodes; a device moves to one of them, and between others."""
    moves = MoveRegister(MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    gateways = ["4401", "4401-port", "4403", "4403-port"]
    move = await moves.request("d1", "4403", "440305", by=ADMIN, gateways=gateways)
    named = await moves.request("d2", "4403-port", "440305", by=ADMIN, gateways=gateways)
    assert (move.target, named.target) == ("4403", "4403-port")
    with pytest.raises(ConfigError, match="no gateway that serves"):
        await moves.request("d3", "4401-port", "440305", by=ADMIN, gateways=gateways)


@pytest.mark.parametrize("gateway", ["44", "4401", "4401-port", "441502-west-2a"])
def test_a_request_names_any_gateway(gateway: str) -> None:
    """A move leaves and reaches each gateway that a centre may have, those of a city with several included."""
    body = {"device": "d1", "target": gateway, "source": gateway, "division": "440305"}
    request = msgspec.convert(body, MoveRequest)
    assert (request.target, request.source) == (gateway, gateway)


@pytest.mark.parametrize("gateway", ["", "port", "4401-", "4401-Port", "4401/port", "4401-" + "a" * 28])
def test_a_request_names_nothing_but_gateways(gateway: str) -> None:
    """A text that can be the id of no member is refused as a body that is wrong."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"device": "d1", "target": gateway, "division": "440305"}, MoveRequest)


async def test_a_source_that_is_no_gateway_is_looked_up_nowhere(clock: FakeClock) -> None:
    """A registry is read only of gateways of the province: the copy of each is a bucket, made when it is first read."""
    asked: list[str] = []

    class Recorded(Known):
        async def find(self, division: str, device: str) -> StoredDevice | None:
            asked.append(division)
            return await super().find(division, device)

    moves = MoveRegister(MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Recorded())
    with pytest.raises(NotFound, match="no device d1"):
        await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES, options=MoveOptions("123456789012"))
    assert asked == []
    move = await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES, options=MoveOptions("4401"))
    assert (move.source, asked) == ("4401", ["4401"])


async def test_what_another_node_states_prevents_no_move(clock: FakeClock) -> None:
    """Neither an entry of the device with an impossible division, nor a time of its last span beyond all years."""
    known = Known()
    moves = MoveRegister(MemoryBucket(), MemoryTrail(), clock, Divisions.load(), known)
    known.entries["4405", "d1"] = StoredDevice(Device("d1", division="x", profile="acme/meter"), SECRET)
    assert (await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES)).source == "4401"
    known.expelled.add("4401")
    for since, text in ((2**62, f"{2**62} µs"), (-(2**62), f"-{2**62} µs"), (NOW, "2026-01-01T00:00:00Z")):
        known.since = since
        device = f"d{since}".replace("-", "m")
        move = await moves.request(device, "4403", "440305", by=ADMIN, gateways=PLACES, options=FORCED)
        assert text in _row(move).not_carried


async def test_what_a_source_gave_before_it_gave_up_goes(clock: FakeClock) -> None:
    """Parts came, then the move was refused: they are not there for ever."""
    moves = MoveRegister(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    move = await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES)
    for number in range(3):
        await moves.answer_part("4401", pack(MovePart(move.id, number, b"x")))
    assert len(await keys(bucket)) == 4, "negative control"
    await give_up(moves, move)
    assert moves.get(move.id, ADMIN).stage is MoveStage.REFUSED
    assert await keys(bucket) == [move.id]


async def give_up(moves: MoveRegister, move: MoveRecord) -> None:
    """Report, as the source of a move, that it refuses the order, and then that it lets the device in again."""
    for report in (MoveReport(move.id, refused="no", action="give"), MoveReport(move.id, action="back")):
        await moves.take_report(move.source, pack(report))


def exported(device: str = "d1") -> bytes:
    """Return the entry of a device as its source exports it."""
    return encode_stored(StoredDevice(Device(device, division="440106", profile="acme/meter"), SECRET))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (MoveReport("", stored=exported("pump-of-4403")), "pump-of-4403 was exported"),
        (MoveReport("", stored=b"\xc1"), "cannot be read"),
        (MoveReport("", stored=exported(), parts=2**40), "does not have the"),
        (MoveReport("", stored=exported(), parts=3), "does not have the 3 parts"),
        (MoveReport("", stored=exported(), parts=-1), "does not have the"),
    ],
)
async def test_a_source_reports_only_the_device_that_moves_and_the_parts_it_sent(
    clock: FakeClock, report: MoveReport, words: str
) -> None:
    """A node reports an entry of another's device, or parts without end: the move stays as it was."""
    moves = MoveRegister(MemoryBucket(), MemoryTrail(), clock, Divisions.load(), known := Known())
    move = await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES)
    for number in range(2):
        await moves.answer_part("4401", pack(MovePart(move.id, number, b"x")))
    with pytest.raises(PermissionDenied, match=words):
        await moves.take_report("4401", pack(msgspec.structs.replace(report, id=move.id, action="give")))
    record = moves.get(move.id, ADMIN)
    assert (record.stage, known.entries) == (MoveStage.ASKED, {})
    assert words in record.problem
    assert words in _row(record).reason, "the operator sees why it does not go on"
    assert moves.warnings() == [f"moves: {move.id} does not go on; `sensegate device moves` says why"]
    proper = MoveReport(move.id, stored=exported(), parts=2, action="give")
    await moves.take_report("4401", pack(proper))
    record = moves.get(move.id, ADMIN)
    assert (record.stage, record.problem, moves.warnings()) == (MoveStage.CARRIED, "", []), "negative control"


@pytest.mark.parametrize("action", ["settle", "back", "recall"])
async def test_the_status_of_a_move_says_which_order_was_refused(province: Province, action: str) -> None:
    """The last steps are tried again for ever: the operator sees why, in at most 500 characters, until it ends."""
    move = await province.ask()
    await province.work("4401")
    teller = "4403" if action == "recall" else "4401"
    if action == "settle":
        await province.work("4403")
    else:
        await province.moves.cancel(move.id, by=ADMIN)
    if action == "back":
        await province.work("4403")
    refused = pack(MoveReport(move.id, refused="no room " * 1_000, action=action))
    await province.moves.take_report(teller, refused)
    record = province.moves.get(move.id, ADMIN)
    assert (len(record.problem), len(province.moves.warnings())) == (500, 1)
    await province.moves.take_report(teller, refused)
    assert province.moves.get(move.id, ADMIN).revision == record.revision, "a repetition writes nothing"
    await province.work("4403", "4401")
    record = province.moves.get(move.id, ADMIN)
    assert (record.stage in ENDED_STAGES, record.problem, province.moves.warnings()) == (True, "", [])


async def test_readiness_names_few_of_many_moves_that_do_not_go_on(clock: FakeClock) -> None:
    """Five by their ids, and the number of the others; a move that is cancelled is none of them."""
    moves = MoveRegister(MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    for number in range(8):
        move = await moves.request(f"d{number}", "4403", "440305", by=ADMIN, gateways=PLACES)
        with pytest.raises(PermissionDenied):
            await moves.take_report("4401", pack(MoveReport(move.id, stored=b"x", action="give")))
    assert (len(moves.warnings()), moves.warnings()[-1]) == (6, "moves: 3 more do not go on")
    await moves.cancel(move.id, by=ADMIN)
    assert moves.warnings()[-1] == "moves: 2 more do not go on"


async def test_parts_are_bounded_and_without_gaps(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that a node sends are limited in number, in size and in sum; a part may be sent again."""
    monkeypatch.setattr(move_parts, "PARTS_MAX", 4)
    monkeypatch.setattr(move_parts, "PART_BYTES_MAX", 10)
    monkeypatch.setattr(move_parts, "PARTS_BYTES_MAX", 25)
    moves = MoveRegister(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    move = await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES)

    async def send(number: int, size: int) -> None:
        await moves.answer_part("4401", pack(MovePart(move.id, number, bytes(size))))

    for number, size in ((-1, 1), (0, 11), (1, 1), (2**40, 1)):
        with pytest.raises(PermissionDenied):
            await send(number, size)
    for number in (0, 1, 0, 1):
        await send(number, 10)
    with pytest.raises(PermissionDenied, match="at most 25 bytes of parts"):
        await send(2, 10)
    for number in (2, 3):
        await send(number, 2)
    with pytest.raises(PermissionDenied, match="4 parts"):
        await send(4, 1)
    assert len(await keys(bucket)) == 5
    restarted = MoveRegister(bucket, MemoryTrail(), clock, Divisions.load(), Known())
    await restarted.load()
    with pytest.raises(PermissionDenied, match="at most 25 bytes of parts"):
        await restarted.answer_part("4401", pack(MovePart(move.id, 3, bytes(4))))
    await give_up(moves, move)
    assert (await keys(bucket), moves._parts._bytes) == ([move.id], {})


async def test_parts_that_come_at_once_are_added_up(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node replaces several parts at the same time: none of them is left out of the sum."""
    monkeypatch.setattr(move_parts, "PARTS_BYTES_MAX", 25)
    moves = MoveRegister(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    move = await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES)
    for number in range(4):
        await moves.answer_part("4401", pack(MovePart(move.id, number, b"x")))
    put = bucket.put

    async def slowly(*args: Any, **more: Any) -> int:
        await asyncio.sleep(0)
        return await put(*args, **more)

    monkeypatch.setattr(bucket, "put", slowly)
    outcomes = await asyncio.gather(
        *(moves.answer_part("4401", pack(MovePart(move.id, number, bytes(10)))) for number in range(4)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [bytes, bytes, PermissionDenied, PermissionDenied]


async def test_a_part_that_could_not_be_stored_is_not_counted(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node repeats it while the store is full; when there is room again, so has the move."""
    monkeypatch.setattr(move_parts, "PARTS_BYTES_MAX", 25)
    moves = MoveRegister(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    move = await moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES)
    part = pack(MovePart(move.id, 0, bytes(10)))

    async def full(*_args: Any, **_more: Any) -> int:
        raise StoreFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "put", full)
        for _ in range(4):
            with pytest.raises(StoreFull):
                await moves.answer_part("4401", part)
    assert await moves.answer_part("4401", part) == b""


async def test_parts_of_a_move_that_ended_as_the_process_stopped_go_at_the_next_start(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end was written and nothing was removed yet; parts of a move that goes on stay."""
    moves = MoveRegister(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    ended, open_ = [await moves.request(device, "4403", "440305", by=ADMIN, gateways=PLACES) for device in ("d1", "d2")]
    for move in (ended, open_):
        await moves.answer_part("4401", pack(MovePart(move.id, 0, b"x")))

    async def stopped(_move: str, _count: int) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(moves._parts, "remove", stopped)
    with pytest.raises(asyncio.CancelledError):
        await give_up(moves, ended)
    assert f"{ended.id}.0" in await keys(bucket), "negative control"
    await MoveRegister(bucket, MemoryTrail(), clock, Divisions.load(), Known()).load()
    assert sorted(await keys(bucket)) == sorted([ended.id, open_.id, f"{open_.id}.0"])


async def test_moves_over_long_ago_go_from_the_store_too(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept; one that goes on is, however old it is."""
    monkeypatch.setattr(module, "ENDED_MAX", 2)
    moves = MoveRegister(bucket := MemoryBucket(), MemoryTrail(), clock, Divisions.load(), Known())
    first = await moves.request("d0", "4403", "440305", by=ADMIN, gateways=PLACES)
    over = []
    for number in range(1, 5):
        await clock.advance(1)
        move = await moves.request(f"d{number}", "4403", "440305", by=ADMIN, gateways=PLACES)
        over.append(move.id)
        await give_up(moves, move)
    assert sorted(await keys(bucket)) == sorted([first.id, *over[-2:]])
    assert {move.id for move in moves.all(ADMIN)} == {first.id, *over[-2:]}
    reopened = MoveRegister(bucket, MemoryTrail(), clock, Divisions.load(), Known())
    await reopened.load()
    assert {move.id for move in reopened.all(ADMIN)} == {first.id, *over[-2:]}


# ── called off, and forced: gateways as they are, one of them away at any step ──────────────────────────


class Province:
    """The book, and the registries of three gateways that do what it orders when they are there."""

    def __init__(self, clock: FakeClock) -> None:
        self.trail = MemoryTrail()
        self.known = Known()
        self.moves = MoveRegister(MemoryBucket(), self.trail, clock, Divisions.load(), self.known)
        self.clock = clock
        self.gateways = {name: Devices(MemoryBucket(), MemoryTrail(), clock, home=name) for name in PLACES}
        self.counted: list[tuple[str, str]] = []
        self.lost: set[str] = set()
        """What is told by these does not arrive."""
        self.denied: set[str] = set()
        """Parts of these are refused."""
        self.logs = {name: self.log(name) for name in PLACES}

    async def start(self) -> Province:
        for devices in self.gateways.values():
            await devices.load()
        await self.gateways["4401"].add(Device("d1", division="440106", profile="acme/meter"), by=ADMIN)
        await self.gateways["4401"]._write(
            StoredDevice(Device("d1", division="440106", profile="acme/meter"), SECRET), expected=1
        )
        return self

    async def ask(self, **more: Any) -> MoveRecord:
        return await self.moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES, options=MoveOptions(**more))

    def mover(self, name: str) -> DeviceMover:
        async def ask(subject: str, payload: bytes) -> bytes:
            if subject == "told" and name in self.lost:
                raise Unavailable("the link is down")
            answers = {
                "orders": self.moves.answer_orders,
                "part": self.moves.answer_part,
                "told": self.moves.take_report,
            }
            if subject == "part" and name in self.denied:
                raise PermissionDenied("no part is accepted now")
            try:
                return await answers[subject](name, payload)
            except (Conflict, NotFound) as why:  # as the link does
                raise PermissionDenied(str(why)) from why

        async def drained() -> None:
            pass

        return DeviceMover(
            self.gateways[name],
            self.logs[name],
            InstantClock(NOW),
            LogIdentity(name, 0, 3_600_000_000, 24),
            operations=MoveOperations(ask, lambda _device: None, drained, lambda _batches: None),
            by=ADMIN,
        )

    def log(self, name: str) -> MemoryLog:
        log = MemoryLog(InstantClock(NOW), epoch="e")
        write = log.write

        async def counted(messages: Sequence[LogMessage]) -> int:
            for member in messages:
                if member.subject.startswith("ledger."):
                    self.counted += [(name, row.kind) for row in Ledger.decode(member.payload).rows()]
            return await write(messages)

        log.write = counted  # type: ignore[method-assign]
        return log

    async def write_reading(self) -> None:
        """Write a reading of the device to the log of the first gateway, whose identity is a part of a move."""
        batch = batch_of(1, 1, NOW)
        local = LocalColumns(
            batch.time, np.zeros(1, np.uint16), np.zeros(1, np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.uint64)
        )
        payload = columns.encode(msgspec.structs.replace(batch, local=local))
        await self.logs["4401"].write([LogMessage("readings.4401.own.2", payload, 168)])

    async def work(self, *names: str) -> None:
        """Have gateways do what is ordered of them; one that is gone, or whose word is lost, comes no further."""
        for name in names:
            if not self.known.is_gone(name):
                with contextlib.suppress(Unavailable):
                    await self.mover(name).run_orders()
            await self.copy(name)

    async def copy(self, name: str) -> None:
        if not self.known.is_gone(name) and (stored := self.gateways[name].stored("d1")):
            await self.known.amend(name, stored)

    async def burn(self, name: str) -> None:
        """Lose a gateway's store; one in its place begins with what the centre has of its registry."""
        self.gateways[name] = Devices(MemoryBucket(), MemoryTrail(), self.clock, home=name)
        await self.gateways[name].load()
        if entry := self.known.entries.get((name, "d1")):
            await self.gateways[name]._write(entry, expected=0)

    def takers(self) -> list[str]:
        """Return the gateways that would let the device in; never two, whatever happens."""
        return [name for name, devices in self.gateways.items() if devices.verify("d1", PASSWORD)]


@pytest.fixture
async def province(clock: FakeClock) -> Province:
    """Three gateways, a device at the first."""
    return await Province(clock).start()


def orders(raw: bytes) -> list[str]:
    """Return what a gateway has to do."""
    return [decode_order.action for decode_order in decode_orders(raw)]


async def test_a_move_goes_as_before(province: Province) -> None:
    """Negative control of all that follows: nobody is away, the device ends at the target alone."""
    move = await province.ask()
    assert province.takers() == ["4401"]
    await province.work("4401")
    assert province.takers() == []
    await province.work("4403")
    assert province.takers() == ["4403"]
    await province.work("4401")
    assert province.moves.get(move.id, ADMIN).stage is MoveStage.DONE
    assert province.counted == [("4403", "moved_in.4401"), ("4401", "moved_out.4403")]


async def test_one_that_was_only_asked_is_called_off(province: Province) -> None:
    """It is over at once; a source that was away, or in the middle of it, opens what it has shut."""
    move = await province.ask()
    assert (await province.moves.cancel(move.id, by=ADMIN)).stage is MoveStage.CANCELLED
    await province.work("4401", "4403")
    assert province.takers() == ["4401"]
    # In the middle: shut out, and its word that it has given all did not arrive.
    move = await province.ask()
    province.lost.add("4401")
    await province.work("4401")
    assert province.takers() == []
    with pytest.raises(Conflict, match="--cancel"):
        await province.gateways["4401"].enable("d1", by=ADMIN)
    await province.moves.cancel(move.id, by=ADMIN)
    province.lost.clear()
    await province.work("4403", "4401")
    assert province.takers() == ["4401"]
    assert orders(await province.moves.answer_orders("4401", b"")) == []


@pytest.mark.parametrize("taken", [True, False])
async def test_only_the_target_knows_whether_it_is_too_late(province: Province, *, taken: bool) -> None:
    """Called off after the source gave all: the target's word decides, also the one that it gave before."""
    move = await province.ask()
    await province.work("4401")
    if taken:
        province.lost.add("4403")
        await province.work("4403")
        province.lost.clear()
    assert (await province.moves.cancel(move.id, by=ADMIN)).stage is MoveStage.RECALLED
    with pytest.raises(Conflict, match="asked already"):
        await province.moves.cancel(move.id, by=ADMIN, force=True)
    await province.work("4401")
    assert province.takers() == (["4403"] if taken else [])
    await province.work("4403", "4401")
    assert province.takers() == (["4403"] if taken else ["4401"])
    record = province.moves.get(move.id, ADMIN)
    assert (record.stage, record.stored) == (MoveStage.DONE if taken else MoveStage.CANCELLED, b"")


async def test_the_word_of_a_take_that_crosses_a_cancellation_counts_as_taken(province: Province) -> None:
    """The target was ordered to take it before it was called off, and says so after: it has it."""
    move = await province.ask()
    await province.work("4401")
    await province.moves.cancel(move.id, by=ADMIN)
    for action in ("take", ""):
        await province.moves.take_report("4403", pack(MoveReport(move.id, action=action)))
        assert province.moves.get(move.id, ADMIN).stage is MoveStage.TAKEN


async def test_nothing_is_given_to_who_is_gone(province: Province) -> None:
    """Expelled while the source was away: the device stays where it is, until somebody calls the move off."""
    move = await province.ask()
    province.known.expelled.add("4403")
    await province.work("4401")
    assert province.takers() == ["4401"]
    assert (await province.moves.cancel(move.id, by=ADMIN)).stage is MoveStage.CANCELLED


async def test_a_lost_centre_does_not_keep_a_device_out_for_ever(province: Province) -> None:
    """Shut out, and the book is gone: a new credential frees it, the one that went along is good there no more."""
    await province.ask()
    await province.work("4401")
    here = province.gateways["4401"]
    await here.rotate("d1", by=ADMIN)
    with pytest.raises(Conflict, match="--grace 0"):
        await here.enable("d1", by=ADMIN)
    secret = await here.rotate("d1", by=ADMIN, grace_s=0)
    await here.enable("d1", by=ADMIN)
    assert here.verify("d1", secret)
    await province.work("4403")
    assert province.takers() == ["4403"], "the two credentials are good at one gateway each"
    await province.work("4401")
    assert here.verify("d1", secret) is None


async def test_a_planted_hole_is_found(province: Province, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that asked nobody would leave the device at both: the tests would see it."""
    monkeypatch.setattr(province.known, "is_new", lambda _division: True)
    move = await province.ask()
    await province.work("4401")
    province.lost.add("4403")
    await province.work("4403")
    await province.moves.cancel(move.id, by=ADMIN)
    await province.work("4401")
    assert province.takers() == ["4401", "4403"]


async def test_a_target_that_never_came_has_taken_nothing(province: Province) -> None:
    """It was invited and never joined: nobody needs to be asked, nothing is forced."""
    province.known.invited.add("4403")
    move = await province.ask()
    await province.work("4401")
    assert (await province.moves.cancel(move.id, by=ADMIN)).stage is MoveStage.SENT_BACK
    await province.work("4401")
    assert province.takers() == ["4401"]
    record = province.moves.get(move.id, ADMIN)
    assert (record.stage, record.owed, record.forced) == (MoveStage.CANCELLED, "", None)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("taken", [True, False])
async def test_a_target_that_is_gone(province: Province, *, taken: bool, keep: bool) -> None:
    """Only by force, and with a credential that is good at one gateway alone, unless the operator knows better."""
    move = await province.ask()
    await province.work("4401")
    if taken:
        province.lost.add("4403")
        await province.work("4403")
        province.lost.clear()
    province.known.expelled.add("4403")
    with pytest.raises(Conflict, match="by force"):
        await province.moves.cancel(move.id, by=ADMIN)
    made = await province.moves.cancel(move.id, by=ADMIN, force=True, keep_credential=keep)
    assert (made.stage, made.owed_target, str(made.forced)[:9]) == (MoveStage.SENT_BACK, "drop", "the ident")
    await province.work("4401")
    gone = ["4403"] if taken else []
    assert province.takers() == (["4401", *gone] if keep else gone), "kept: the operator's word that it runs no more"
    if not keep:
        assert await province.gateways["4401"].rotate("d1", by=ADMIN), "the device is given a new one"
        assert not province.gateways["4401"].verify("d1", PASSWORD)
    assert ("4401", "moved_forced.4403") in province.counted
    facts = [after for _, action, _, _, after in province.trail.records if action == "device.move.cancel"][-1]
    assert facts is not None
    assert facts["credential"] == ("kept" if keep else "void")
    # It is back, with its store: what it took is taken from it before anything else.
    province.known.expelled.clear()
    await province.work("4403")
    assert province.takers() == (["4401"] if keep else [])
    assert province.moves.get(move.id, ADMIN).owed == ""


@pytest.mark.parametrize("keep", [True, False])
async def test_a_source_that_is_gone(province: Province, *, keep: bool) -> None:
    """By force the entry goes as it is known; what does not is said, in the trail too; the old store is told later."""
    with pytest.raises(Conflict, match="expel 4401"):
        await province.ask(force=True)
    await province.copy("4401")
    province.known.expelled.add("4401")
    with pytest.raises(Conflict, match="by force"):
        await province.ask()
    move = await province.ask(force=True, keep_credential=keep)
    assert str(move.forced) == (
        "the identities for duplicate detection; "
        "readings of its gateway since 2023-11-14T22:13:20Z, and 3 entries of its backlog"
    )
    facts = province.trail.records[-1][4]
    assert facts is not None
    assert facts["not_carried"] == str(move.forced)
    await province.work("4403")
    record = province.moves.get(move.id, ADMIN)
    assert (record.stage, record.owed) == (MoveStage.DONE, "4401 has to retire the device when it is back")
    # The old gateway goes on alone: what it takes is data of nobody; the credential is good at one of them, or kept.
    assert province.takers() == (["4401", "4403"] if keep else ["4401"])
    assert ("4403", "moved_forced.4401") in province.counted
    entry = await province.known.find("4401", "d1")
    assert entry is not None
    assert entry.device.state is DeviceState.RETIRED, "a node in its place begins without it"
    province.known.expelled.clear()
    await province.work("4401")
    assert province.takers() == (["4403"] if keep else [])
    assert province.moves.get(move.id, ADMIN).owed == ""


async def test_a_node_in_place_of_a_source_that_was_lost_in_the_middle(province: Province) -> None:
    """Its store is gone before the centre had a copy of the shut entry: the one in its place begins with it shut."""
    await province.copy("4401")
    before = await province.known.find("4401", "d1")
    assert before is not None
    assert before.device.state is DeviceState.REGISTERED, "negative control"
    await province.ask()
    await province.mover("4401").run_orders()  # and nothing is copied
    copied = await province.known.find("4401", "d1")
    assert copied is not None
    await province.burn("4401")
    await province.work("4403")
    assert province.takers() == ["4403"]
    await province.work("4401")
    assert province.takers() == ["4403"]


async def test_a_forced_move_that_is_refused_leaves_the_entry_as_it_was(province: Province) -> None:
    """The id is taken there: the copy says again what it said, and the source lets it in when it is back."""
    await province.gateways["4403"].add(Device("d1", division="440305", profile="acme/meter"), by=ADMIN)
    await province.copy("4401")
    province.known.expelled.add("4401")
    move = await province.moves.request("d1", "4403", "440305", by=ADMIN, gateways=PLACES, options=FORCED)
    await province.work("4403")
    record = province.moves.get(move.id, ADMIN)
    assert (record.stage, record.owed_source) == (MoveStage.REFUSED, "back")
    entry = await province.known.find("4401", "d1")
    assert entry is not None
    assert (entry.device.state, entry.credentials) == (DeviceState.REGISTERED, SECRET)
    # Elsewhere by force: what it owed of the first move would let it in at the source again, and is forgotten.
    repeated = await province.moves.request("d1", "4405", "440507", by=ADMIN, gateways=PLACES, options=FORCED)
    await province.work("4405")
    assert province.moves.get(repeated.id, ADMIN).stage is MoveStage.DONE
    assert province.moves.get(move.id, ADMIN).owed == ""
    province.known.expelled.clear()
    await province.work("4401")
    assert province.takers() == ["4405"]


@pytest.mark.parametrize("force", [True, False])
async def test_of_two_moves_requested_at_once_one_is_carried(
    province: Province, monkeypatch: pytest.MonkeyPatch, *, force: bool
) -> None:
    """Two operators ask for the same device: the second is told, and may ask again when the first has failed."""
    await province.copy("4401")
    if force:
        province.known.expelled.add("4401")
    options = MoveOptions("4401", force=force, keep_credential=force)
    record = province.trail.record

    async def slowly(*args: Any, **more: Any) -> None:
        await asyncio.sleep(0)
        await record(*args, **more)

    monkeypatch.setattr(province.trail, "record", slowly)
    outcomes = await asyncio.gather(
        *(
            province.moves.request("d1", name, CITIES[name], by=ADMIN, gateways=PLACES, options=options)
            for name in ("4403", "4405")
        ),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [MoveRecord, Conflict]
    [move] = province.moves.all(ADMIN)
    assert move.target == "4403"
    assert province.moves._requesting == set()


async def test_a_source_that_comes_back_and_goes_again_is_still_told(province: Province) -> None:
    """It was a member while the target took the device by force, did not hear of it, and is expelled once more."""
    await province.copy("4401")
    province.known.expelled.add("4401")
    move = await province.ask(force=True, keep_credential=True)
    province.known.expelled.clear()
    await province.work("4403")
    province.known.expelled.add("4401")
    await province.moves.settle_abandoned()
    assert province.moves.get(move.id, ADMIN).owed_source == "settle"
    province.known.expelled.clear()
    await province.moves.take_report("4401", pack(MoveReport(move.id, refused="no room", action="settle")))
    record = province.moves.get(move.id, ADMIN)
    assert (record.owed_source, record.problem) == ("settle", "no room"), "the operator sees why it still owes it"
    await province.work("4401")
    record = province.moves.get(move.id, ADMIN)
    assert (province.takers(), record.owed_source, record.problem) == (["4403"], "", "")


async def test_a_source_lost_after_the_target_took_it(province: Province) -> None:
    """The move is done without it; it is told when it is back, and the device may be moved on meanwhile."""
    move = await province.ask()
    await province.work("4401", "4403")
    province.known.expelled.add("4401")
    with pytest.raises(Conflict, match="is done"):
        await province.moves.cancel(move.id, by=ADMIN)
    record = province.moves.get(move.id, ADMIN)
    assert record.owed_source == "settle"
    on = await province.moves.request("d1", "4405", "440507", by=ADMIN, gateways=PLACES, options=MoveOptions("4403"))
    await province.work("4403", "4405", "4403")
    assert province.moves.get(on.id, ADMIN).stage is MoveStage.DONE
    province.known.expelled.clear()
    await province.work("4401")
    assert province.takers() == ["4405"]
    assert province.moves.get(move.id, ADMIN).handed_over_at == record.taken_at > 0
    state = province.gateways["4401"].get("d1", ADMIN).state
    assert state is DeviceState.RETIRED


async def test_the_target_takes_again_what_it_took_and_changed(province: Province) -> None:
    """Its word was lost and somebody rotated the credential meanwhile: it is still the device of this move."""
    move = await province.ask()
    await province.work("4401")
    province.lost.add("4403")
    await province.work("4403")
    province.lost.clear()
    await province.gateways["4403"].rotate("d1", by=ADMIN)
    await province.work("4403", "4401")
    assert province.moves.get(move.id, ADMIN).stage is MoveStage.DONE
    assert province.takers() == ["4403"]


async def test_a_device_of_two_gateways_is_not_moved_from_the_first_of_them(province: Province) -> None:
    """A node has an entry of another's device: its own would move, with its credential, if the first were taken."""
    await province.known.amend("4403", StoredDevice(Device("d1", division="440305", profile="acme/meter"), SECRET))

    async def ask(source: str) -> MoveRecord:
        return await province.moves.request(
            "d1", "4405", "440507", by=ADMIN, gateways=PLACES, options=MoveOptions(source)
        )

    with pytest.raises(Conflict, match=r"4401 and 4403.*--from"):
        await ask("")
    assert (await ask("4403")).source == "4403"


async def test_an_entry_that_a_node_made_unreadable_counts_as_absent() -> None:
    """The centre's view of a copy: the device is not found there, and is looked for at the other gateways."""

    class Copies:
        async def find(self, *_: str) -> bytes:
            return b"\xc1"

    nothing = cast("Any", None)
    view = RegistryView("44", nothing, nothing, cast("RegistryCopies", Copies()), nothing)
    assert await view.find("4401", "d1") is None


async def test_who_may_call_it_off(province: Province) -> None:
    """Either place's operator; nobody else, who is told that there is none."""
    move = await province.ask()
    for division in ("4405", "440103"):
        stranger = Principal("x", Role.CITY_OPERATOR, scope(division))
        with pytest.raises(NotFound):
            await province.moves.cancel(move.id, by=stranger)
    auditor = Principal("a", Role.AUDITOR, scope("44"))
    with pytest.raises(PermissionDenied):
        await province.moves.cancel(move.id, by=auditor)
    there = Principal("o", Role.CITY_OPERATOR, scope("4403"))
    assert (await province.moves.cancel(move.id, by=there)).stage is MoveStage.CANCELLED


@pytest.mark.parametrize("name", ["4401", "4403"])
async def test_a_part_that_is_refused_ends_the_move_and_the_device_is_let_in_again(
    province: Province, name: str
) -> None:
    """The source has shut the device out before its first part is refused: it does not stay shut out."""
    await province.write_reading()
    move = await province.ask()
    province.denied.add(name)
    await province.work("4401", "4403")
    assert province.takers() == []
    await province.work("4401")
    record = province.moves.get(move.id, ADMIN)
    assert (record.stage, record.reason) == (MoveStage.REFUSED, "no part is accepted now")
    assert province.takers() == ["4401"]


async def test_parts_that_are_refused_late_do_not_send_back_what_is_here(province: Province) -> None:
    """The target has the device, its report was lost, and parts are refused by now: it still has the device."""
    await province.write_reading()
    move = await province.ask()
    await province.work("4401")
    province.lost.add("4403")
    await province.work("4403")
    province.lost.clear()
    province.denied.add("4403")
    await province.work("4403", "4401")
    assert (province.moves.get(move.id, ADMIN).stage, province.takers()) == (MoveStage.DONE, ["4403"])


async def test_the_centres_own_gateway_goes_on_after_a_cancellation(province: Province) -> None:
    """An operator cancelled just while it reported: it asks for its orders again."""
    await province.ask()
    tried: list[int] = []

    class Cancelled:
        async def run_orders(self) -> None:
            tried.append(len(tried))
            if len(tried) == 1:
                raise Conflict("the move: changed meanwhile; read it again")
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await _move_own(province.moves, cast("DeviceMover", Cancelled()), InstantClock(NOW), "4401")
    assert tried == [0, 1]


def test_orders_of_an_older_release_are_read() -> None:
    """What is new in an order has a value where it is not said."""
    raw = msgspec.msgpack.encode([{"id": "m", "action": "give", "device": "d", "other": "4403", "division": "440305"}])
    assert decode_orders(raw) == [MoveOrder("m", "give", "d", "4403", "440305")]


CITIES = {"4401": "440106", "4403": "440305", "4405": "440507"}
STEPS = (
    *("ask", "ask", "force", "cancel", "lose", "hear", "hear", "expel", "join", "join", "burn", "deny", "accept"),
    *("work", "work", "work", "work", "work"),
)


class Storm:
    """A province in which anything happens; `back`: gateways that are members again and did not yet hear of it."""

    def __init__(self, province: Province) -> None:
        self.province = province
        self.back: set[str] = set()

    async def step(self, action: str, name: str) -> None:
        """Do one thing at a gateway, or at the centre about one."""
        province = self.province
        sets = {
            "lose": province.lost.add,
            "hear": province.lost.discard,
            "deny": province.denied.add,
            "accept": province.denied.discard,
        }
        match action:
            case "cancel":
                for move in province.moves.all(ADMIN):
                    with contextlib.suppress(Conflict):
                        await province.moves.cancel(move.id, by=ADMIN, force=True, keep_credential=True)
            case "lose" | "hear" | "deny" | "accept":
                sets[action](name)
            case "expel":
                province.known.expelled.add(name)
            case "burn":
                await province.burn(name)
            case "join":
                if name in province.known.expelled:
                    province.known.expelled.discard(name)
                    self.back.add(name)
            case "work":
                await province.work(name)
                if name not in province.lost and not province.known.is_gone(name):
                    self.back.discard(name)
            case _:
                with contextlib.suppress(Conflict, NotFound):
                    await province.moves.request(
                        "d1",
                        name,
                        CITIES[name],
                        by=ADMIN,
                        gateways=PLACES,
                        options=MoveOptions(force=action == "force", keep_credential=True),
                    )

    def takers(self) -> list[str]:
        """Return the gateways that take the device, and are members that have heard what they owed."""
        away = self.province.known.expelled | self.back
        return [name for name in self.province.takers() if name not in away]


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_two_never_take_it(clock: FakeClock, seed: int) -> None:
    """Moves asked, forced and called off; words lost, stores lost, gateways expelled and back, in any order.

    One at most takes the device; in the end, with all there and no fault any more, one does.
    """
    dice = random.Random(seed)
    province = await Province(clock).start()
    await province.write_reading()
    await province.copy("4401")
    storm = Storm(province)
    for _ in range(120):
        await clock.advance(1)
        await storm.step(dice.choice(STEPS), dice.choice(PLACES))
        assert len(storm.takers()) <= 1, storm.takers()
    province.known.expelled.clear()
    province.lost.clear()
    province.denied.clear()
    for _ in range(6):
        await province.work(*PLACES)
    await province.moves.settle_abandoned()
    assert len(province.takers()) == 1
    assert all(move.stage in ENDED_STAGES and not move.owed for move in province.moves.all(ADMIN))
