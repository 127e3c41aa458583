"""Two desks in memory, a node's and its centre's, that speak to each other as over the link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.authority.scope import Principal, Role, scope
from sensegate.errors import Conflict, NotFound, PermissionDenied, SensegateError, Unavailable
from sensegate.share.applications import State
from sensegate.share.catalogue import Entry, Kind, Promise, Sharing
from sensegate.share.feeds import Feed
from sensegate.share.joint import Have, Told
from sensegate.share.joint_down import LISTED_MAX, Downward
from sensegate.share.joint_up import Distant, Upward
from tests.share.test_desk import COUNTY, OWNER, READER, Made

FOREIGN = Principal("foreign", Role.SUBSCRIBER, scope("4406"))
WISH: dict[str, Any] = {"feeds": ["4401-air"], "purpose": "p", "legal_basis": "l", "days": 30}


class Pair:
    """A node of 4401 and the centre."""

    def __init__(self) -> None:
        self.node, self.centre = Made(self.ask), Made()
        self.cut = False
        self.asked: list[str] = []
        self.division = "4401"
        self.down = Downward(
            self.centre.feeds,
            self.centre.catalogue,
            self.centre.grants,
            self.centre.desk,
            trail=self.centre.trail,
            clock=self.centre.clock,
            home="44",
        )
        node = self.node
        assert node.distant is not None
        self.distant: Distant = node.distant
        self.measured = Promise(continuity=0.9)
        self.up = Upward(
            node.feeds, node.catalogue, self.distant, self.ask, node.clock, measured=lambda _feed: self.measured
        )

    async def ask(self, what: str, payload: bytes) -> bytes:
        """Answer as `bus.ask` does: every refusal of the centre is a `PermissionDenied`."""
        if self.cut:
            raise Unavailable("no link")
        self.asked.append(what)
        try:
            return await self.down.answers[what](self.division, payload)
        except SensegateError as why:
            raise PermissionDenied(str(why)) from why

    def entry(self) -> Entry:
        found = self.centre.catalogue.find("4401-air")
        assert found is not None
        return found


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    one = Pair()
    await one.node.shelf.open()
    await one.centre.shelf.open()
    await one.node.feeds.create(Feed("air", divisions=("4401",)))
    entry = Entry("air", title="空氣", sharing=Sharing.CONDITIONAL, grade=3, level="4401", kind=Kind.THEME, published=1)
    await one.node.catalogue.records.put("air", entry, expected=0)
    await one.up.turn()
    yield one


async def test_an_offer_stands_at_the_centre_with_its_code(pair: Pair) -> None:
    """Feed, entry, measured quality; the code comes down; with nothing new, nothing is sent again."""
    assert pair.centre.feeds.find("4401-air") == Feed("4401-air", divisions=("4401",), revision=1)
    entry = pair.entry()
    assert (entry.origin, entry.code, entry.title) == ("4401", "440100-theme-000001", "空氣")
    here = pair.node.catalogue.find("air")
    assert here is not None
    assert here.code == entry.code
    await pair.up.turn()
    pair.asked.clear()
    await pair.up.turn()
    await pair.up.turn()
    assert set(pair.asked) == {"offers"}
    assert pair.entry().measured == pair.measured
    answer = msgspec.msgpack.decode(
        await pair.ask("offers", msgspec.msgpack.encode(Have({"air": "x"}, {}, ""))), type=Told
    )
    assert answer.want == ("air",)


async def test_a_change_goes_up_and_keeps_the_code(pair: Pair) -> None:
    """Of the entry and of the feed."""
    here = pair.node.catalogue.find("air")
    assert here is not None
    await pair.node.catalogue.records.put("air", msgspec.structs.replace(here, title="大氣"), expected=here.revision)
    feed = pair.node.feeds.find("air")
    assert feed is not None
    await pair.node.feeds.change(msgspec.structs.replace(feed, grade_max=1), feed.revision)
    await pair.up.turn()
    assert (pair.entry().title, pair.entry().code) == ("大氣", "440100-theme-000001")
    mirrored = pair.centre.feeds.find("4401-air")
    assert mirrored is not None
    assert mirrored.grade_max == 1


async def test_what_is_offered_no_more_goes(pair: Pair) -> None:
    """Feed and entry; where a grant is in force the feed stays and is not shared any more."""
    here = pair.node.catalogue.find("air")
    assert here is not None
    application = await pair.centre.desk.apply(READER, WISH)
    await pair.centre.desk.decide(OWNER, application.id, {"approve": True}, None)
    await pair.node.catalogue.records.delete("air", expected=here.revision)
    await pair.up.turn()
    assert pair.entry().sharing is Sharing.NOT_SHARED
    assert pair.centre.grants.admitted(READER, "4401-air").grant is not None
    (grant,) = pair.centre.grants.given("4401-air")
    await pair.centre.desk.revoke(OWNER, grant.id)
    await pair.up.turn()
    assert pair.centre.catalogue.find("4401-air") is None
    assert pair.centre.feeds.find("4401-air") is None


@pytest.mark.parametrize("divisions", [(), ("4403",), ("4401", "4403"), ("44",)], ids=repr)
async def test_a_node_offers_nothing_of_others(pair: Pair, divisions: tuple[str, ...]) -> None:
    """Whatever it says: the centre takes only what lies in the node's own division, and says why."""
    await pair.node.feeds.create(Feed("wide", divisions=divisions))
    entry = Entry("wide", sharing=Sharing.CONDITIONAL, grade=3, level="4401", published=1)
    await pair.node.catalogue.records.put("wide", entry, expected=0)
    await pair.up.turn()
    assert pair.centre.feeds.find("4401-wide") is None
    assert "reaches beyond 4401" in pair.up.faults["wide"]
    assert pair.up.troubles()[0].startswith("catalogue: the centre does not take 'wide'")


async def test_a_feed_of_the_centre_is_not_taken_over(pair: Pair) -> None:
    """One of the same name that stands there already stays what it is."""
    await pair.centre.feeds.create(Feed("4401-mine", divisions=("44",)))
    await pair.node.feeds.create(Feed("mine", divisions=("4401",)))
    entry = Entry("mine", sharing=Sharing.CONDITIONAL, grade=3, level="4401", published=1)
    await pair.node.catalogue.records.put("mine", entry, expected=0)
    await pair.up.turn()
    assert "of its own" in pair.up.faults["mine"]
    kept = pair.centre.feeds.find("4401-mine")
    assert kept is not None
    assert kept.divisions == ("44",)


async def test_an_application_comes_down_and_is_decided_at_the_node(pair: Pair) -> None:
    """Seen by the owner alone; decided and revoked there, done at the centre, recorded at both."""
    application = await pair.centre.desk.apply(READER, WISH)
    await pair.up.turn()
    assert [one.id for one in pair.node.desk.seen(OWNER)] == [application.id]
    with pytest.raises((PermissionDenied, NotFound)):
        await pair.node.desk.decide(COUNTY, application.id, {"approve": True}, None)
    done = await pair.node.desk.decide(OWNER, application.id, {"approve": True, "mask": {"hash": ["device"]}}, None)
    assert done.state is State.APPROVED
    grant = pair.centre.grants.find(done.grants[0])
    assert grant is not None
    assert grant.mask.hash == ("device",)
    assert grant.created_by == "owner@4401"
    with pytest.raises(Conflict):
        await pair.node.desk.decide(OWNER, application.id, {"approve": True}, None)
    await pair.up.turn()
    gone = await pair.node.desk.revoke(OWNER, grant.id, "misuse")
    assert gone.revoked
    with pytest.raises(PermissionDenied, match="misuse"):
        pair.centre.grants.admitted(READER, "4401-air")
    assert "application.decide" in pair.node.actions
    assert {"application.approve", "grant.revoke"} <= {*pair.centre.actions}


async def test_what_lapsed_at_the_centre_is_still_answered_at_the_node(pair: Pair) -> None:
    """A node of the release before reads it as pending, and may decide it as well."""
    application = await pair.centre.desk.apply(READER, WISH)
    for _ in range(2):
        await pair.centre.clock.advance(10 * 86_400 + 1)
        await pair.centre.desk.escalate()
    await pair.up.turn()
    seen = pair.node.desk.get(OWNER, application.id)
    assert (seen.standing, seen.state) == (State.LAPSED, State.PENDING)
    done = await pair.node.desk.decide(OWNER, application.id, {"approve": True}, None)
    assert done.standing is State.APPROVED


async def test_without_a_link_nothing_is_decided(pair: Pair) -> None:
    """It is said, and the application stays as it was."""
    application = await pair.centre.desk.apply(READER, WISH)
    await pair.up.turn()
    pair.cut = True
    with pytest.raises(Unavailable):
        await pair.node.desk.decide(OWNER, application.id, {"approve": True}, None)
    assert pair.centre.desk.get(OWNER, application.id).state is State.PENDING
    assert pair.node.desk.get(OWNER, application.id).state is State.PENDING


async def test_another_node_decides_nothing_here(pair: Pair) -> None:
    """A node that speaks about what is not its own is refused: the negative control of the one above."""
    application = await pair.centre.desk.apply(READER, WISH)
    await pair.up.turn()
    pair.division = "4406"
    with pytest.raises(PermissionDenied):
        await pair.node.desk.decide(OWNER, application.id, {"approve": True}, None)
    assert pair.centre.desk.get(OWNER, application.id).state is State.PENDING


async def test_what_others_share_comes_down(pair: Pair) -> None:
    """In parts, without samples, never what is not shared, one's own or a draft; gone when it is; applied for above."""
    centre = pair.centre
    for number in range(LISTED_MAX + 5):
        entry = Entry(f"other-{number:03}", origin="4403", published=1, level="4403", sample=("{}",))
        await centre.catalogue.records.put(entry.feed, entry, expected=0)
    hidden = Entry("hidden", sharing=Sharing.NOT_SHARED, published=1)
    await centre.catalogue.records.put("hidden", hidden, expected=0)
    await centre.catalogue.records.put("draft", Entry("draft"), expected=0)
    await pair.up.turn()
    names = {entry.feed for entry in pair.distant.entries}
    assert len(names) == LISTED_MAX + 5
    assert not names & {"hidden", "draft", "4401-air"}
    assert all(not entry.sample and entry.origin for entry in pair.distant.entries)
    with pytest.raises(Conflict, match="apply there"):
        await pair.node.desk.apply(READER, {**WISH, "feeds": ["other-001"]})
    gone = centre.catalogue.find("other-001")
    assert gone is not None
    await centre.catalogue.records.delete("other-001", expected=gone.revision)
    await pair.up.turn()
    assert pair.distant.entries.find("other-001") is None


async def test_two_nodes_do_not_see_each_others_applications(pair: Pair) -> None:
    """The answer to another node holds nothing of this one."""
    await pair.centre.desk.apply(READER, WISH)
    raw = await pair.down.offers("4406", msgspec.msgpack.encode(Have()))
    told = msgspec.msgpack.decode(raw, type=Told)
    assert (told.applications, told.grants, told.codes) == ((), (), {})
    assert pair.entry().published, "and takes nothing of it out of the catalogue"


async def test_what_a_node_offered_that_is_gone_is_shared_no_more(pair: Pair) -> None:
    """Nobody outside sees it; code and grant stay, those of other nodes too; when it is back it is as before."""
    code = pair.entry().code
    other = Entry("4403-x", title="x", sharing=Sharing.CONDITIONAL, level="4403", origin="4403", published=1)
    other = await pair.centre.catalogue.records.put("4403-x", other, expected=0)
    application = await pair.centre.desk.apply(READER, WISH)
    done = await pair.centre.desk.decide(OWNER, application.id, {"approve": True}, None)
    assert await pair.down.withdraw("4401") == 1
    assert (pair.entry().sharing, pair.entry().code) == (Sharing.NOT_SHARED, code)
    with pytest.raises(NotFound):
        await pair.centre.desk.apply(FOREIGN, WISH)
    assert pair.centre.grants.find(done.grants[0]) is not None
    assert pair.centre.catalogue.find("4403-x") == other, "negative control"
    assert await pair.down.withdraw("4401") == 0
    await pair.up.turn()
    assert (pair.entry().sharing, pair.entry().code) == (Sharing.CONDITIONAL, code)


async def test_a_crash_between_feed_and_entry_leaves_nothing_behind(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is offered no more goes at the next turn, and may be offered again; meanwhile nothing is read without."""
    here = pair.node.catalogue.find("air")
    assert here is not None
    await pair.node.catalogue.records.delete("air", expected=here.revision)

    async def lost(*_: object, **__: object) -> None:
        raise Unavailable("no engine")

    with monkeypatch.context() as patch:
        patch.setattr(pair.centre.catalogue.records, "delete", lost)
        with pytest.raises(SensegateError):
            await pair.up.turn()
        assert pair.centre.feeds.find("4401-air") is None
    await pair.up.turn()
    assert pair.centre.catalogue.find("4401-air") is None
    again = msgspec.structs.replace(here, revision=0)
    await pair.node.catalogue.records.put("air", again, expected=0)
    await pair.up.turn()
    assert pair.up.faults == {}
    assert pair.entry().published
    assert pair.centre.feeds.find("4401-air") is not None


async def test_a_node_is_told_first_of_what_waits(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many applications those that are decided go first, whatever their ids."""
    monkeypatch.setattr("sensegate.share.joint_down.TOLD_MAX", 3)
    made = []
    for _ in range(6):
        one = await pair.centre.desk.apply(READER, WISH)
        made.append(one.id)
        await pair.centre.clock.advance(1)
    for name in sorted(made)[3:]:
        await pair.centre.desk.decide(OWNER, name, {"approve": False, "reason": "x"}, None)
    await pair.up.turn()
    assert [one.id for one in pair.distant.applications] == sorted(made)[:3]
