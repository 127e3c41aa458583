"""Two desks in memory, a node's and its centre's, that speak to each other as over the link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.authority.scope import Principal, Role, scope
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied, SensegateError, Unavailable
from sensegate.share.applications import Application, ApplicationState
from sensegate.share.catalogue import CatalogueEntry, DatasetColumn, DatasetKind, QualityIndicators, SharingClass
from sensegate.share.federation import CatalogueOffer, CentreUpdate, NodeDecision, NodeOffers, NodeRevocation
from sensegate.share.federation_centre import SLICE_ENTRIES_MAX, CentreFederation
from sensegate.share.federation_node import CentreRecords, NodeFederation
from sensegate.share.feeds import Feed
from tests.share.access_bench import COUNTY, OWNER, READER, AccessBench
from tests.share.made import access_request, decision_of
from tests.support.clocks import InstantClock

FOREIGN = Principal("foreign", Role.SUBSCRIBER, scope("4406"))
WISH: dict[str, Any] = {"feeds": ["4401-air"], "purpose": "p", "legal_basis": "l", "days": 30}


class Pair:
    """A node of 4401 and the centre."""

    def __init__(self) -> None:
        self.node, self.centre = AccessBench(self.ask), AccessBench()
        self.cut = False
        self.requests: list[str] = []
        self.division = "4401"
        self.down = CentreFederation(
            self.centre.feeds,
            self.centre.catalogue,
            self.centre.grants,
            self.centre.access,
            trail=self.centre.trail,
            clock=self.centre.clock,
            home="44",
        )
        node = self.node
        assert node.centre_records is not None
        self.centre_records: CentreRecords = node.centre_records
        self.measured = QualityIndicators(continuity=0.9)
        self.up = NodeFederation(
            node.feeds, node.catalogue, self.centre_records, self.ask, node.clock, measured=lambda _feed: self.measured
        )

    async def ask(self, request: str, payload: bytes) -> bytes:
        """Answer as `bus.ask` does: every refusal of the centre is a `PermissionDenied`."""
        if self.cut:
            raise Unavailable("no link")
        self.requests.append(request)
        try:
            return await self.down.answers[request](self.division, payload)
        except SensegateError as why:
            raise PermissionDenied(str(why)) from why

    def entry(self) -> CatalogueEntry:
        match = self.centre.catalogue.find("4401-air")
        assert match is not None
        return match


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.node.store.open()
    await pair.centre.store.open()
    await pair.node.feeds.create(Feed("air", divisions=("4401",)))
    entry = CatalogueEntry(
        "air",
        title="空氣",
        sharing=SharingClass.CONDITIONAL,
        grade=3,
        level="4401",
        kind=DatasetKind.THEME,
        published=1,
    )
    await pair.node.catalogue.records.put("air", entry, expected=0)
    await pair.up.sync()
    yield pair


async def test_an_offer_stands_at_the_centre_with_its_code(pair: Pair) -> None:
    """Feed, entry, measured quality; the code comes down; with nothing new, nothing is sent again."""
    assert pair.centre.feeds.find("4401-air") == Feed("4401-air", divisions=("4401",), revision=1)
    entry = pair.entry()
    assert (entry.origin, entry.code, entry.title) == ("4401", "440100-theme-000001", "空氣")
    here = pair.node.catalogue.find("air")
    assert here is not None
    assert here.code == entry.code
    await pair.up.sync()
    pair.requests.clear()
    await pair.up.sync()
    await pair.up.sync()
    assert set(pair.requests) == {"offers"}
    assert pair.entry().measured == pair.measured
    answer = msgspec.msgpack.decode(
        await pair.ask("offers", msgspec.msgpack.encode(NodeOffers({"air": "x"}, {}, ""))), type=CentreUpdate
    )
    assert answer.wanted == ("air",)


async def test_a_change_goes_up_and_keeps_the_code(pair: Pair) -> None:
    """Of the entry and of the feed."""
    here = pair.node.catalogue.find("air")
    assert here is not None
    await pair.node.catalogue.records.put("air", msgspec.structs.replace(here, title="大氣"), expected=here.revision)
    feed = pair.node.feeds.find("air")
    assert feed is not None
    await pair.node.feeds.change(msgspec.structs.replace(feed, grade_max=1), feed.revision)
    await pair.up.sync()
    assert (pair.entry().title, pair.entry().code) == ("大氣", "440100-theme-000001")
    mirrored = pair.centre.feeds.find("4401-air")
    assert mirrored is not None
    assert mirrored.grade_max == 1


async def test_what_is_offered_no_more_goes(pair: Pair) -> None:
    """Feed and entry; where a grant is in force the feed stays and is not shared any more."""
    here = pair.node.catalogue.find("air")
    assert here is not None
    application = await pair.centre.access.apply(READER, access_request(WISH))
    await pair.centre.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    await pair.node.catalogue.records.delete("air", expected=here.revision)
    await pair.up.sync()
    assert pair.entry().sharing is SharingClass.NOT_SHARED
    assert pair.centre.grants.admit(READER, "4401-air").grant is not None
    (grant,) = pair.centre.grants.of_feed("4401-air")
    await pair.centre.access.revoke(OWNER, grant.id)
    await pair.up.sync()
    assert pair.centre.catalogue.find("4401-air") is None
    assert pair.centre.feeds.find("4401-air") is None


@pytest.mark.parametrize("divisions", [(), ("4403",), ("4401", "4403"), ("44",)], ids=repr)
async def test_a_node_offers_nothing_of_others(pair: Pair, divisions: tuple[str, ...]) -> None:
    """Whatever it says: the centre takes only what lies in the node's own division, and says why."""
    await pair.node.feeds.create(Feed("wide", divisions=divisions))
    entry = CatalogueEntry("wide", sharing=SharingClass.CONDITIONAL, grade=3, level="4401", published=1)
    await pair.node.catalogue.records.put("wide", entry, expected=0)
    await pair.up.sync()
    assert pair.centre.feeds.find("4401-wide") is None
    assert "reaches beyond 4401" in pair.up.rejected["wide"]
    assert pair.up.problems()[0].startswith("catalogue: the centre rejects the offer of 'wide'")


@pytest.mark.parametrize(
    ("field", "value"),
    [("grade_floor", 2**63), ("level", "4401 > *"), ("level", "4401" * 50), ("title", "x" * 3_000), ("grade", 9)],
)
async def test_an_offered_entry_is_checked_as_a_written_one(pair: Pair, field: str, value: Any) -> None:
    """A node does not pass by the checks of the route; it is told why."""
    entry = CatalogueEntry("odd", sharing=SharingClass.CONDITIONAL, grade=3, level="4401", published=1)
    offer = CatalogueOffer(Feed("odd", divisions=("4401",)), msgspec.structs.replace(entry, **{field: value}))
    await pair.ask("offer", msgspec.msgpack.encode(offer))
    assert pair.centre.catalogue.find("4401-odd") is None
    answer = await pair.ask("offers", msgspec.msgpack.encode(NodeOffers({"odd": "x"})))
    assert "odd" in msgspec.msgpack.decode(answer, type=CentreUpdate).rejected
    await pair.ask("offer", msgspec.msgpack.encode(CatalogueOffer(offer.feed, entry)))
    assert pair.centre.catalogue.find("4401-odd") is not None, "negative control"


async def test_the_offers_of_a_node_are_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in the catalogue, those that are rejected, and the bytes of each; another node's still find room."""
    monkeypatch.setattr("sensegate.share.federation_centre.OFFERS_MAX", 3)
    entry = CatalogueEntry("x", sharing=SharingClass.CONDITIONAL, grade=3, level="4401", published=1)

    async def offer(name: str, **changes: Any) -> None:
        offered = CatalogueOffer(
            Feed(name, divisions=(entry.level,)), msgspec.structs.replace(entry, feed=name, **changes)
        )
        await pair.ask("offer", msgspec.msgpack.encode(offered))

    await offer("large", sample=("x" * 300_000,))
    assert pair.centre.catalogue.find("4401-large") is None
    for number in range(9):
        await offer(f"wrong-{number}", level="4406")
    assert len(pair.down._rejected["4401"]) == 3
    await pair.ask("offers", msgspec.msgpack.encode(NodeOffers({"air": "x"})))
    assert pair.down._rejected["4401"] == {}, "names that are not offered any more are forgotten"
    for number in range(9):
        await offer(f"many-{number}")
    assert len([known for known in pair.centre.catalogue.records if known.origin == "4401"]) == 3
    pair.division, entry = "4403", msgspec.structs.replace(entry, level="4403")
    await offer("first")
    assert pair.centre.catalogue.find("4403-first") is not None


async def test_a_reply_fits_into_a_message(pair: Pair) -> None:
    """Whatever the texts of others hold: long ones come in more replies, or with what is decided first left out."""
    centre = pair.centre
    for number in range(20):
        columns = tuple(DatasetColumn(f"column-{at:040}") for at in range(1_500))
        entry = CatalogueEntry(
            f"other-{number:03}", origin="4403", published=1, level="4403", summary="長" * 2_000, columns=columns
        )
        await centre.catalogue.records.put(entry.feed, entry, expected=0)
    for _ in range(150):
        wish = {**WISH, "purpose": "用" * 1_000, "legal_basis": "法" * 1_000}
        await centre.access.apply(READER, access_request(wish))
    sizes = []
    asked = pair.ask

    async def ask(request: str, payload: bytes) -> bytes:
        reply = await asked(request, payload)
        sizes.append(len(reply))
        return reply

    up = NodeFederation(
        pair.node.feeds,
        pair.node.catalogue,
        pair.centre_records,
        ask,
        pair.node.clock,
        measured=lambda _feed: pair.measured,
    )
    await up.sync()
    assert max(sizes) < 900_000
    assert len(pair.centre_records.entries) == 20
    assert len(pair.centre_records.applications) > 50


async def test_a_feed_of_the_centre_is_not_taken_over(pair: Pair) -> None:
    """One of the same name that stands there already stays what it is."""
    await pair.centre.feeds.create(Feed("4401-mine", divisions=("44",)))
    await pair.node.feeds.create(Feed("mine", divisions=("4401",)))
    entry = CatalogueEntry("mine", sharing=SharingClass.CONDITIONAL, grade=3, level="4401", published=1)
    await pair.node.catalogue.records.put("mine", entry, expected=0)
    await pair.up.sync()
    assert "of its own" in pair.up.rejected["mine"]
    kept = pair.centre.feeds.find("4401-mine")
    assert kept is not None
    assert kept.divisions == ("44",)


async def test_an_application_comes_down_and_is_decided_at_the_node(pair: Pair) -> None:
    """Seen by the owner alone; decided and revoked there, done at the centre, recorded at both."""
    application = await pair.centre.access.apply(READER, access_request(WISH))
    await pair.up.sync()
    assert [application.id for application in pair.node.access.visible(OWNER)] == [application.id]
    with pytest.raises((PermissionDenied, NotFound)):
        await pair.node.access.decide(COUNTY, application.id, decision_of({"approve": True}), None)
    done = await pair.node.access.decide(
        OWNER, application.id, decision_of({"approve": True, "mask": {"hash": ["device"]}}), None
    )
    assert done.state is ApplicationState.APPROVED
    grant = pair.centre.grants.find(done.grants[0])
    assert grant is not None
    assert grant.mask.hash == ("device",)
    assert grant.created_by == "owner@4401"
    with pytest.raises(Conflict):
        await pair.node.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    await pair.up.sync()
    gone = await pair.node.access.revoke(OWNER, grant.id, "misuse")
    assert gone.revoked
    with pytest.raises(PermissionDenied, match="misuse"):
        pair.centre.grants.admit(READER, "4401-air")
    assert "application.decide" in pair.node.actions
    assert {"application.approve", "grant.revoke"} <= {*pair.centre.actions}


async def test_what_lapsed_at_the_centre_is_still_answered_at_the_node(pair: Pair) -> None:
    """A node of the release before reads it as pending, and may decide it as well."""
    application = await pair.centre.access.apply(READER, access_request(WISH))
    for _ in range(2):
        await pair.centre.clock.advance(10 * 86_400 + 1)
        await pair.centre.access.escalate()
    await pair.up.sync()
    record = pair.node.access.get(OWNER, application.id)
    assert (record.effective_state, record.state) == (ApplicationState.LAPSED, ApplicationState.PENDING)
    done = await pair.node.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    assert done.effective_state is ApplicationState.APPROVED


async def test_without_a_link_nothing_is_decided(pair: Pair) -> None:
    """It is said, and the application stays as it was."""
    application = await pair.centre.access.apply(READER, access_request(WISH))
    await pair.up.sync()
    pair.cut = True
    with pytest.raises(Unavailable):
        await pair.node.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    assert pair.centre.access.get(OWNER, application.id).state is ApplicationState.PENDING
    assert pair.node.access.get(OWNER, application.id).state is ApplicationState.PENDING


async def test_another_node_decides_nothing_here(pair: Pair) -> None:
    """A node that speaks about what is not its own is refused: the negative control of the one above."""
    application = await pair.centre.access.apply(READER, access_request(WISH))
    await pair.up.sync()
    pair.division = "4406"
    with pytest.raises(PermissionDenied):
        await pair.node.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    assert pair.centre.access.get(OWNER, application.id).state is ApplicationState.PENDING


async def test_what_others_share_comes_down(pair: Pair) -> None:
    """In parts, without samples, never what is not shared, one's own or a draft; gone when it is; applied for above."""
    centre = pair.centre
    for number in range(SLICE_ENTRIES_MAX + 5):
        entry = CatalogueEntry(f"other-{number:03}", origin="4403", published=1, level="4403", sample=("{}",))
        await centre.catalogue.records.put(entry.feed, entry, expected=0)
    hidden = CatalogueEntry("hidden", sharing=SharingClass.NOT_SHARED, published=1)
    await centre.catalogue.records.put("hidden", hidden, expected=0)
    await centre.catalogue.records.put("draft", CatalogueEntry("draft"), expected=0)
    await pair.up.sync()
    names = {entry.feed for entry in pair.centre_records.entries}
    assert len(names) == SLICE_ENTRIES_MAX + 5
    assert not names & {"hidden", "draft", "4401-air"}
    assert all(not entry.sample and entry.origin for entry in pair.centre_records.entries)
    with pytest.raises(Conflict, match="apply there"):
        await pair.node.access.apply(READER, access_request({**WISH, "feeds": ["other-001"]}))
    gone = centre.catalogue.find("other-001")
    assert gone is not None
    await centre.catalogue.records.delete("other-001", expected=gone.revision)
    await pair.up.sync()
    assert pair.centre_records.entries.find("other-001") is None


async def test_no_answer_of_the_centre_ends_the_synchronisation(pair: Pair) -> None:
    """One that is nested too deeply to be read, and one with a name that cannot be stored."""
    deep = msgspec.msgpack.encode({"x": 0})[:-1] + b"\x91" * 100_000 + b"\x00"
    faults: list[bytes | Exception] = [deep, b"\xc1", ConfigError("too long", key="name"), Unavailable("away")]

    async def ask(_request: str, _payload: bytes) -> bytes:
        if not faults:
            raise asyncio.CancelledError
        fault = faults.pop(0)
        if isinstance(fault, Exception):
            raise fault
        return fault

    clock = InstantClock(pair.node.clock.now())
    up = NodeFederation(
        pair.node.feeds, pair.node.catalogue, pair.centre_records, ask, clock, measured=lambda _feed: pair.measured
    )
    with pytest.raises(asyncio.CancelledError):
        await up.run()
    assert faults == []


async def test_two_nodes_do_not_see_each_others_applications(pair: Pair) -> None:
    """The answer to another node holds nothing of this one."""
    await pair.centre.access.apply(READER, access_request(WISH))
    raw = await pair.down.offers("4406", msgspec.msgpack.encode(NodeOffers()))
    decoded = msgspec.msgpack.decode(raw, type=CentreUpdate)
    assert (decoded.applications, decoded.grants, decoded.codes) == ((), (), {})
    assert pair.entry().published, "and takes nothing of it out of the catalogue"


async def test_what_a_node_offered_that_is_gone_is_shared_no_more(pair: Pair) -> None:
    """Nobody outside sees it; code and grant stay, those of other nodes too; when it is back it is as before."""
    code = pair.entry().code
    other = CatalogueEntry(
        "4403-x", title="x", sharing=SharingClass.CONDITIONAL, level="4403", origin="4403", published=1
    )
    other = await pair.centre.catalogue.records.put("4403-x", other, expected=0)
    application = await pair.centre.access.apply(READER, access_request(WISH))
    done = await pair.centre.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    assert await pair.down.withdraw("4401") == 1
    assert (pair.entry().sharing, pair.entry().code) == (SharingClass.NOT_SHARED, code)
    with pytest.raises(NotFound):
        await pair.centre.access.apply(FOREIGN, access_request(WISH))
    assert pair.centre.grants.find(done.grants[0]) is not None
    assert pair.centre.catalogue.find("4403-x") == other, "negative control"
    assert await pair.down.withdraw("4401") == 0
    await pair.up.sync()
    assert (pair.entry().sharing, pair.entry().code) == (SharingClass.CONDITIONAL, code)


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
            await pair.up.sync()
        assert pair.centre.feeds.find("4401-air") is None
    await pair.up.sync()
    assert pair.centre.catalogue.find("4401-air") is None
    repeated = msgspec.structs.replace(here, revision=0)
    await pair.node.catalogue.records.put("air", repeated, expected=0)
    await pair.up.sync()
    assert pair.up.rejected == {}
    assert pair.entry().published
    assert pair.centre.feeds.find("4401-air") is not None


async def test_a_node_is_told_first_of_what_waits(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many applications those that are decided go first, whatever their ids."""
    monkeypatch.setattr("sensegate.share.federation_centre.UPDATE_RECORDS_MAX", 3)
    made = []
    for _ in range(6):
        result = await pair.centre.access.apply(READER, access_request(WISH))
        made.append(result.id)
        await pair.centre.clock.advance(1)
    for name in sorted(made)[3:]:
        await pair.centre.access.decide(OWNER, name, decision_of({"approve": False, "reason": "x"}), None)
    await pair.up.sync()
    assert [application.id for application in pair.centre_records.applications] == sorted(made)[:3]


async def test_two_nodes_of_one_city_are_told_apart(pair: Pair) -> None:
    """A node whose id is longer than its city offers, too; the other one learns and decides nothing of its data."""
    application = await pair.centre.access.apply(READER, access_request(WISH))
    pair.division = "4401-port"
    feed = Feed("air", divisions=("4401",))
    entry = CatalogueEntry("air", title="x", sharing=SharingClass.CONDITIONAL, grade=3, level="4401", published=1)
    offer = CatalogueOffer(feed, entry)
    await pair.ask("offer", msgspec.msgpack.encode(offer))
    offered = pair.centre.catalogue.find("4401-port-air")
    assert offered is not None
    assert offered.origin == "4401-port"
    wish = await pair.centre.access.apply(READER, access_request({**WISH, "feeds": ["4401-port-air"]}))

    async def update() -> CentreUpdate:
        answer = await pair.ask("offers", msgspec.msgpack.encode(NodeOffers({"air": ""})))
        return msgspec.msgpack.decode(answer, type=CentreUpdate)

    own, others = {}, {"4401": application.id, "4401-port": wish.id}
    for pair.division in others:
        own[pair.division] = [listed.id for listed in (await update()).applications]
    assert own == {"4401": [application.id], "4401-port": [wish.id]}
    decision = decision_of({"approve": True})
    for pair.division, foreign in (("4401-port", application.id), ("4401", wish.id)):
        with pytest.raises(PermissionDenied, match="is not one of"):
            await pair.ask("decision", msgspec.msgpack.encode(NodeDecision(foreign, "owner", decision)))
    pair.division = "4401-port"
    answer = await pair.ask("decision", msgspec.msgpack.encode(NodeDecision(wish.id, "owner", decision)))
    decided = msgspec.msgpack.decode(answer, type=Application)
    grant = decided.grants[0]
    pair.division = "4401"
    with pytest.raises(PermissionDenied, match="is not one of"):
        await pair.ask("revocation", msgspec.msgpack.encode(NodeRevocation(grant, "owner")))
    assert pair.centre.grants.admit(READER, "4401-port-air").grant is not None
