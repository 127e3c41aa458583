"""Who may write to a centre: codes that work once and end, releases that are near, logs that never give an id twice."""

from __future__ import annotations

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.slots import SPARE_SLOTS, province_slots
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.tiers.members import (
    SEQUENCE_BLOCK,
    CentreIdentity,
    LaneProgress,
    Members,
    MembershipState,
    parse_join_code,
    release_fault,
    release_note,
    releases_apart,
)

PROVINCE = Principal("province", Role.PROVINCE_OPERATOR, scope("44"))
CITY = Principal("city", Role.CITY_OPERATOR, scope("4401"))
NOTHING = LaneProgress()
SLOTS = province_slots(["4401", "4403", "4420"])


class Register:
    """The members of a centre of release 1.4."""

    clock: FakeClock
    bucket: MemoryBucket

    def __init__(self, like: Register | None = None) -> None:
        self.clock = like.clock if like else FakeClock()
        self.bucket = like.bucket if like else MemoryBucket()
        self.trail = MemoryTrail()
        self.members = Members(
            self.bucket,
            self.trail,
            self.clock,
            CentreIdentity("44", "1.4.0", "ab" * 32),
            configured={"4420": ("4420",)},
            slots=SLOTS,
        )

    async def invited(self, *, replace: bool = False, life_s: float = 3_600.0) -> str:
        return (await self.members.invite("4401", by=PROVINCE, replace=replace, life_s=life_s))[0]

    async def joined(self, *, came: LaneProgress = NOTHING, epoch: str = "", replace: bool = False) -> str:
        """Return the secret of a node that has joined."""
        code = await self.invited(replace=replace)
        return (await self.members.join(code, version="1.4.0", log_epoch=epoch, progress=came)).secret


@pytest.fixture
def register() -> Register:
    return Register()


async def test_a_code_works_once_in_its_time_and_is_void_when_another_is_made(register: Register) -> None:
    first = await register.invited()
    assert parse_join_code(first)[::2] == ("4401", "ab" * 32)
    second = await register.invited()
    members = register.members
    with pytest.raises(PermissionDenied):
        await members.join(first, version="1.4.0", log_epoch="", progress=NOTHING)
    joined = await members.join(second, version="1.4.0", log_epoch="", progress=NOTHING)
    assert (joined.member.state, joined.member.generation, joined.member.log_first) == (MembershipState.JOINED, 1, 1)
    with pytest.raises(PermissionDenied):
        await members.join(second, version="1.4.0", log_epoch="", progress=NOTHING)
    late = await register.invited(replace=True, life_s=10)
    await register.clock.advance(11)
    with pytest.raises(PermissionDenied):
        await members.join(late, version="1.4.0", log_epoch="", progress=NOTHING)
    assert members.verify("4401", joined.secret, "1.4.0").id == "4401"


async def test_a_node_in_place_of_a_lost_one_begins_where_no_id_was_given(register: Register) -> None:
    """Its log begins at the next block; the gap is named; the credential before it is dead."""
    old = await register.joined()
    came = LaneProgress(position=7, committed_at=1_000, log_epoch="a", pending=3)
    fresh = await register.joined(came=came, replace=True)
    member = register.members.get("4401")
    assert (member.generation, member.log_first) == (2, SEQUENCE_BLOCK)
    assert [(gap.since, gap.log_epoch, gap.pending) for gap in member.gaps] == [(1_000, "a", 3)]
    with pytest.raises(PermissionDenied, match="replacing node"):
        register.members.verify("4401", old, "1.4.0")
    register.members.verify("4401", fresh, "1.4.0")
    # The same store again is no gap; another one that holds a log is refused.
    came = LaneProgress(position=SEQUENCE_BLOCK + 5, committed_at=2_000, log_epoch="b")
    await register.joined(came=came, epoch="b", replace=True)
    assert len(register.members.get("4401").gaps) == 1
    with pytest.raises(Conflict):
        await register.joined(came=came, epoch="c", replace=True)


@pytest.mark.parametrize("committed_at", [0, -5, -(2**62)])
async def test_a_lost_node_whose_clock_was_wrong_is_replaced_too(register: Register, committed_at: int) -> None:
    """A node without a clock stood at 1970 or before: what it sent is there all the same, and its ids are used."""
    came = LaneProgress(position=7, committed_at=committed_at, log_epoch="a", reached=7)
    await register.joined()
    await register.joined(came=came, replace=True)
    member = register.members.get("4401")
    assert (member.log_first, [gap.log_epoch for gap in member.gaps]) == (SEQUENCE_BLOCK, ["a"])
    with pytest.raises(Conflict, match="another store"):
        await register.joined(came=came, epoch="c", replace=True)


async def test_a_node_that_sent_nothing_is_replaced_without_a_gap(register: Register) -> None:
    """It has claimed its lanes, which then stand where its log began."""
    await register.joined()
    await register.joined(came=LaneProgress(position=7, log_epoch="a"), epoch="b", replace=True)
    member = register.members.get("4401")
    assert (member.log_first, member.gaps) == (1, ())


async def test_expelled_and_left_nodes_have_no_rights(register: Register) -> None:
    secret = await register.joined()
    other = Register(register)
    await other.members.load()
    await register.members.expel("4401", by=PROVINCE, note="moved away")
    with pytest.raises(PermissionDenied, match="expelled"):
        register.members.verify("4401", secret, "1.4.0")
    assert register.members.authorized() == []
    # Another process of the centre, which has not heard of it yet, writes nothing over it.
    with pytest.raises(Conflict):
        await other.members.leave("4401", secret)
    repeated = await register.joined()
    with pytest.raises(PermissionDenied):
        await register.members.leave("4401", "x" * 32)
    assert (await register.members.leave("4401", repeated)).state is MembershipState.LEFT


async def test_which_nodes_are_gone_and_which_are_yet_to_come(register: Register) -> None:
    """By these words moves of devices are forced: one that may still write here is never gone."""
    members = register.members

    def membership_of(division: str) -> tuple[bool, bool]:
        return members.is_gone(division), members.never_joined(division)

    assert membership_of("4420") == (False, False), "it stands in the configuration"
    assert membership_of("4401") == (True, True), "there never was one"
    await register.invited()
    assert membership_of("4401") == (False, True)
    secret = await register.joined()
    assert membership_of("4401") == (False, False)
    await register.invited(replace=True)
    assert membership_of("4401") == (False, False), "the present one goes on until the other joins"
    await members.leave("4401", secret)
    assert membership_of("4401") == (True, False)
    await register.invited()
    assert membership_of("4401") == (True, False), "a code is no credential of a link"
    await register.joined()
    assert membership_of("4401") == (False, False)
    await members.expel("4401", by=PROVINCE)
    assert membership_of("4401") == (True, False)


async def test_who_may_invite_whom(register: Register) -> None:
    members = register.members
    with pytest.raises(PermissionDenied):
        await members.invite("4401", by=CITY)
    for division, error in (("440106", ConfigError), ("4501", NotFound), ("4420", Conflict)):
        with pytest.raises(error):
            await members.invite(division, by=PROVINCE)
    with pytest.raises(Conflict, match="never had a node"):
        await members.invite("4401", by=PROVINCE, replace=True)
    await register.joined()
    with pytest.raises(Conflict, match="node replace"):
        await members.invite("4401", by=PROVINCE)


@pytest.mark.parametrize(
    ("theirs", "fault", "noted"),
    [
        ("1.4.0", False, False),
        ("1.4.7", False, True),
        ("1.5.0", False, True),
        ("1.3.9", False, True),
        ("1.6.0", True, True),
        ("1.2.0", True, True),
        ("2.0.0", False, True),
        ("3.0.0", True, True),
        ("nonsense", True, True),
    ],
)
def test_releases_may_be_one_apart(theirs: str, fault: bool, noted: bool) -> None:  # noqa: FBT001 - a table
    assert bool(release_fault("1.4.0", theirs)) is fault
    assert bool(release_note("1.4.0", theirs)) is noted
    assert (releases_apart("1.4.0", theirs) is None) is (theirs == "nonsense")


async def test_a_city_has_several_members_each_in_a_slot_of_its_own(register: Register) -> None:
    """The prefecture's own code takes its slot, every other id a spare one; what ended gives it back when freed."""
    members = register.members
    await register.joined()
    code, invited = await members.invite("4401", by=PROVINCE, member="4401-port")
    assert (invited.id, invited.division, invited.slot) == ("4401-port", "4401", "")
    assert parse_join_code(code)[0] == "4401-port"
    port = await members.join(code, version="1.4.0", log_epoch="", progress=NOTHING)
    assert members.verify("4401-port", port.secret, "1.4.0").slot == "s01"
    assert members.members_by_slot() == {"4401": "4401", "4420": "4420", "s01": "4401-port"}
    await members.leave("4401-port", port.secret)
    other, _ = await members.invite("4403", by=PROVINCE, member="4403-shenshan")
    joined = await members.join(other, version="1.4.0", log_epoch="", progress=NOTHING)
    assert joined.member.slot == "s02", "the other one may still be connected"
    assert [member.id for member in members.holding_slot()] == ["4401-port"]
    await members.free_slot("4401-port")
    await members.free_slot("4403-shenshan")
    assert members.holding_slot() == []
    assert members.members_by_slot() == {"4401": "4401", "4420": "4420", "s02": "4403-shenshan"}


async def test_what_cannot_be_an_id(register: Register) -> None:
    """An id begins with its city and never reads like a node and its partition."""
    for member in (
        "4403",
        "s01",
        "4401-0",
        "4401-a-0",
        "4401_port",
        "port",
        "4401-",
        "4401--a",
        "4401-Port",
        "4401-" + "a" * 28,
        "4403-port",
    ):
        with pytest.raises(ConfigError, match="cannot be the id"):
            await register.members.invite("4401", by=PROVINCE, member=member)
    for member in ("4401-0a", "4401-7-port", "4401-" + "a" * 27):
        await register.members.invite("4401", by=PROVINCE, member=member)


async def test_without_a_free_slot_nobody_joins(register: Register) -> None:
    """The code stays good until a slot is free."""
    members = register.members
    for number in range(SPARE_SLOTS):
        code, _ = await members.invite("4401", by=PROVINCE, member=f"4401-n{number}")
        await members.join(code, version="1.4.0", log_epoch="", progress=NOTHING)
    code, _ = await members.invite("4401", by=PROVINCE, member="4401-late")
    with pytest.raises(Conflict, match="no slot is free"):
        await members.join(code, version="1.4.0", log_epoch="", progress=NOTHING)
    await members.expel("4401-n7", by=PROVINCE)
    await members.free_slot("4401-n7")
    assert (await members.join(code, version="1.4.0", log_epoch="", progress=NOTHING)).member.slot == "s08"


async def test_a_member_has_the_areas_that_the_province_gives(register: Register) -> None:
    """At first its city; given at the invitation or later; short codes, none within another; on the trail."""
    members = register.members
    assert (await members.invite("4401", by=PROVINCE))[1].areas == ("4401",)
    code, member = await members.invite("4403", by=PROVINCE, areas=["440300", "441521", "440305"])
    assert member.areas == ("4403", "441521")
    joined = await members.join(code, version="1.4.0", log_epoch="", progress=NOTHING)
    assert joined.member.areas == ("4403", "441521")
    assert (await members.invite("4403", by=PROVINCE, replace=True))[1].areas == ("4403", "441521")
    assert (await members.set_areas("4403", ["4403"], by=PROVINCE, note="given back")).areas == ("4403",)
    assert members.areas_of("4403") == ("4403",)
    assert members.areas_of("4420") == ("4420",)
    assert members.areas_of("4404") == ()
    _, action, target, before, after = register.trail.records[-1]
    assert (action, target, before and before["areas"], after and after["areas"]) == (
        "node.areas",
        "4403",
        ("4403", "441521"),
        ("4403",),
    )
    reopened = Register(register)
    await reopened.members.load()
    assert reopened.members.areas_of("4403") == ("4403",)


async def test_a_configured_node_is_not_to_be_invited(register: Register) -> None:
    """The centre records gaps only of nodes with a join code; the advice to invite is for unknown nodes."""
    with pytest.raises(NotFound, match=r"joined with a code.*node show 4420"):
        register.members.get("4420")
    with pytest.raises(NotFound, match="node invite 4405"):
        register.members.get("4405")


async def test_areas_that_nobody_may_give(register: Register) -> None:
    """None of another province, none that is unknown, none beyond the caller's scope, none of a configured node."""
    members = register.members
    await members.invite("4401", by=PROVINCE)
    for areas in ([], ["11"], ["449999"], ["x"]):
        with pytest.raises((ConfigError, NotFound)):
            await members.set_areas("4401", areas, by=PROVINCE)
    with pytest.raises(PermissionDenied):
        await members.set_areas("4401", ["4401"], by=CITY)
    near = Principal("near", Role.PROVINCE_OPERATOR, scope("4401"))
    with pytest.raises(PermissionDenied):
        await members.set_areas("4401", ["4401", "4403"], by=near)
    with pytest.raises(Conflict):
        await members.set_areas("4420", ["4420"], by=PROVINCE)
    assert members.areas_of("4401") == ("4401",)
