"""Owners of devices and the judge together: what of a city's span is taken where another city was first."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.bus.batch import Batch, WordColumn
from sensegate.clock import FakeClock
from sensegate.errors import Overloaded
from sensegate.tiers.judging import Judge, JudgedSpan
from sensegate.tiers.move_records import MoveRecord, MoveStage
from sensegate.tiers.ownership import DEVICES_MAX, DeviceOwners
from sensegate.tiers.protocol import PartKind, SpanPart
from sensegate.tiers.verdict import MemberFacts, Reason, Rules
from tests.tiers.batches import NOW, batch


class Province:
    """Two cities that share the division 440106, so that the owner alone tells their devices apart."""

    def __init__(self, *, devices_max: int = DEVICES_MAX) -> None:
        self.trail = MemoryTrail()
        self.owners = DeviceOwners(MemoryBucket(), self.trail, FakeClock(), home="44", devices_max=devices_max)
        rules = Rules(self.owners, lambda _property, _department: 1)
        self.judge = Judge(
            lambda member: MemberFacts(member, member, ("440106",)),
            rules,
            self.owners.claim,
            self.owners.note_conflicts,
        )

    async def sent(self, member: str, *devices: str) -> JudgedSpan:
        """Return what becomes of a span with six rows, of which each third is of a device."""
        names = [*devices, *devices, *devices][:3]
        rows: Batch = batch(node=member, device=sorted(names), division=WordColumn.of(["440106"] * 3))
        judged = self.judge.judge(member, [SpanPart(PartKind.READINGS, columns.encode(rows), 2, 6)], NOW)
        await self.judge.claim_devices(member, judged.claims)
        await self.judge.note_conflicts(member, judged)
        return judged

    def taken(self, judged: JudgedSpan) -> set[str]:
        """Return the devices whose rows are taken."""
        return {device for part in judged.accepted for device in columns.decode(part.payload).origins.device}


async def test_a_city_takes_no_device_of_another() -> None:
    """Its rows of that device are refused and told, its others taken; the owner goes on."""
    province = Province()
    assert province.taken(await province.sent("4401", "a", "b")) == {"a", "b"}
    second = await province.sent("4403", "b", "c")
    assert province.taken(second) == {"c"}
    assert [(refusal.reason, set(refusal.devices)) for refusal in second.refusals] == [(Reason.FOREIGN_DEVICE, {"b"})]
    assert [record[1:3] for record in province.trail.records] == [("device.conflict", "4403")]
    assert province.taken(await province.sent("4401", "a", "b")) == {"a", "b"}
    assert not province.owners.may_send("4401", "c")


async def test_a_device_that_moved_by_the_book_is_taken_from_both() -> None:
    """From the target as soon as the source has given all; from the source what it still had."""
    province = Province()
    await province.sent("4401", "a")
    assert province.taken(await province.sent("4403", "a")) == set()
    province.owners.on_move(MoveRecord("m", "a", "4401", "4403", "4403", MoveStage.CARRIED, "admin", 1, 1))
    assert province.taken(await province.sent("4403", "a")) == {"a"}
    province.owners.on_move(MoveRecord("m", "a", "4401", "4403", "4403", MoveStage.DONE, "admin", 1, 2))
    await province.owners.write_due()
    assert province.taken(await province.sent("4401", "a")) == {"a"}
    assert province.owners.owner("a") == "4403"


@pytest.mark.parametrize("grades", [(2, 2, 2), (1, 2, 3)])
async def test_the_limit_of_devices_counts_over_all_parts_of_a_span(grades: tuple[int, int, int]) -> None:
    """A member with room for two devices comes to own two, in however many parts and grades it sends more."""
    province = Province(devices_max=2)
    parts = []
    for grade, devices in zip(grades, ("aab", "abc", "bcd"), strict=True):
        rows = batch(node="4401", device=sorted(devices), division=WordColumn.of(["440106"] * 3))
        parts.append(SpanPart(PartKind.READINGS, columns.encode(rows), grade, 6))
    judged = province.judge.judge("4401", parts, NOW)
    assert province.taken(judged) == {"a", "b"}
    assert judged.claims == ["a", "b"]
    assert {refusal.reason for refusal in judged.refusals} == {Reason.DEVICE_LIMIT}
    assert {device for refusal in judged.refusals for device in refusal.devices} == {"c", "d"}
    await province.judge.claim_devices("4401", judged.claims)
    assert province.owners.room("4401") == 0


async def test_two_spans_that_claim_one_device_at_once() -> None:
    """Both were judged before either was written: the later one is judged once more, and refused."""
    province = Province()
    rows = batch(device=["a"] * 3, division=WordColumn.of(["440106"] * 3), seq=np.full(6, 9))
    judged = {
        member: province.judge.judge(
            member, [SpanPart(PartKind.READINGS, columns.encode(msgspec.structs.replace(rows, node=member)), 2, 6)], NOW
        )
        for member in ("4401", "4403")
    }
    await province.judge.claim_devices("4401", judged["4401"].claims)
    with pytest.raises(Overloaded):
        await province.judge.claim_devices("4403", judged["4403"].claims)
    assert province.taken(await province.sent("4403", "a")) == set()
