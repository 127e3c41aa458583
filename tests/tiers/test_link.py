"""Requests of members in the accounts of their slots: answered there, within their credit, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest

from sensegate import __version__, metrics
from sensegate.bus.connect import Login, connect
from sensegate.bus.engine import Engine, User
from sensegate.bus.server_conf import NodeSlots
from sensegate.bus.slots import centre_password, centre_user
from sensegate.clock import FakeClock, SystemClock
from sensegate.config import EngineConfig
from sensegate.config.sites import NodeQuotaConfig
from sensegate.errors import Conflict, Fenced, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.tiers import envelope
from sensegate.tiers.envelope import LinkAnswer, LinkRequest, MemberHello, decode_answer
from sensegate.tiers.link import CONTENDED_S, CREDIT, TURN_SHARE, TURN_WAIT_MAX_S, CentreLink, Channel, NodeLinks
from sensegate.tiers.quota import TokenBucket
from tests.conftest import SMALL, eventually
from tests.tiers.slots import SECRETS, echo, linked, member_connection, running

pytestmark = pytest.mark.live

BOTH = {"4401": "4401", "4403": "4403"}


@pytest.fixture
async def centre(tmp_path: Path) -> AsyncIterator[Engine]:
    """A centre's server with two configured nodes, the other centre, and a spare slot."""
    async with Engine(EngineConfig(), SMALL, tmp_path, name="44", slots=NodeSlots(SECRETS, ("s01",))) as engine:
        yield engine


def links_of(engine: Engine, **options: Any) -> NodeLinks:
    """Return links that answer live spans and the question ``report``."""
    links = NodeLinks(engine.connect_slot, SystemClock(), **options)
    links.serve(Channel.LIVE, echo)
    links.answers["report"] = echo
    return links


def count(name: str, **labels: str) -> float:
    """Return the value of a counter."""
    return metrics.REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


async def test_a_request_is_answered_in_the_account_of_its_slot(centre: Engine) -> None:
    """Spans and questions of a member reach the handler with the member's id, and the answer comes back."""
    async with running(links_of(centre), BOTH), linked(centre, "4401") as link:
        assert await link.send_span("live", b"x" * 60_000) == b"4401:" + b"x" * 60_000
        answers = await asyncio.gather(*(link.ask("report", b"%d" % number) for number in range(20)))
        assert answers == [b"4401:%d" % number for number in range(20)]
        with pytest.raises(PermissionDenied, match="does not know the question 'nothing'"):
            await link.ask("nothing")
        with pytest.raises(Unavailable, match="no responders"):
            await link.send_span("backlog", b"")  # nobody serves it here


async def test_a_member_reaches_neither_other_slots_nor_the_gateway(centre: Engine) -> None:
    """What a node publishes under foreign subjects is heard by nobody but its own account; control: its own is."""
    heard: list[str] = []

    async def note(message: Any) -> None:
        heard.append(message.subject)

    gateway = await centre.connect(User.GATEWAY)
    await gateway.subscribe(">", cb=note)
    other = await member_connection(centre, "4403")
    await other.subscribe("down.4403.>", cb=note)
    await other.subscribe("_INBOX_4403.>", cb=note)
    await other.flush()
    async with running(links_of(centre), BOTH), linked(centre, "4401") as link:
        for subject in (
            "up.4403.live",
            "down.4403.x",
            "_INBOX_4403.x",
            "commit.4401.live",
            "$JS.API.INFO",
            "up.4401.x",
        ):
            await link.connection.publish(subject, b"x", reply="_INBOX_4403.x")
        await link.connection.flush()
        assert await link.send_span("live", b"own") == b"4401:own"
        await other.flush()
        await gateway.flush()
    assert heard == []
    await gateway.close()
    await other.close()


@pytest.mark.parametrize(
    "reply",
    ["$KV.tokens.x", "audit.forged", "up.4401.live", "_INBOX_4401", "_INBOX_4403.a", "_INBOX_4401." + "a" * 250],
)
async def test_an_answer_goes_into_the_members_inbox_alone(centre: Engine, reply: str) -> None:
    """A request that asks for its answer elsewhere is not answered, and counted; the next one is answered."""
    links = links_of(centre)
    before = count("sensegate_node_dropped", node="4401", reason="reply")
    async with running(links, BOTH), linked(centre, "4401") as link:
        request = envelope.encode(LinkRequest(1, 0, "span", b"x"))
        await link.connection.publish("up.4401.live", request, reply=reply)
        assert await eventually(lambda: count("sensegate_node_dropped", node="4401", reason="reply") > before)
        assert await link.send_span("live", b"y") == b"4401:y"


async def test_bytes_of_a_stranger_end_no_connection(centre: Engine) -> None:
    """Headers and replies that a client library cannot read, and requests that are none, harm nobody."""
    links = links_of(centre)
    async with running(links, BOTH), linked(centre, "4401") as link:
        transport = link.connection._transport
        assert transport is not None
        for head in (b"NATS/1.0 \xff\xfe\r\n\r\n", b"NATS/1.0\r\n\xff: \xff\r\n\r\n", b"NATS/1.0\r\n", b"NATS/1.0"):
            transport.write(b"HPUB up.4401.live %d %d\r\n%s\r\n" % (len(head), len(head), head))
        transport.write(b"PUB up.4401.live _INBOX_4401.\xff\xfe 1\r\nx\r\n")
        await transport.drain()  # type: ignore[no-untyped-call] # of nats-py
        assert await eventually(lambda: heard(link, b"y"))
        for payload in (
            b"",
            b"\xc1",
            b"\x94\x01\x00",
            b"\x91" * 2_000,
            b"\x94\x01\xcf" + b"\xff" * 8 + b"\xa1x\xc4\x00",
        ):
            answer = await eventually(partial(raw, link, payload))
            assert answer.refusal.startswith("request: ")
        assert await heard(link, b"z")
        assert links.connected == BOTH


async def heard(link: CentreLink, body: bytes) -> bool:
    """Return whether a span is answered."""
    try:
        return await link.send_span("live", body, 2.0) == b"4401:" + body
    except Unavailable:
        return False


async def raw(link: CentreLink, payload: bytes) -> LinkAnswer | None:
    """Return the answer to a payload as it is."""
    try:
        return decode_answer((await link.connection.request("up.4401.live", payload, timeout=2)).data)
    except nats.errors.Error:
        return None


async def test_headers_of_a_node_never_reach_us(centre: Engine) -> None:
    """The server cuts them off; control: a plain connection of the same user sees them."""
    result: dict[str, Any] = {}

    def note(name: str) -> Callable[[Any], Awaitable[None]]:
        async def noted(message: Any) -> None:
            result[name] = message.headers

        return noted

    node = await member_connection(centre, "4401")
    ours = await centre.connect_slot("4401")
    password = centre_password(centre._load_state().slot_seed, "4401")
    plain = await connect(centre.info.urls[0], Login(centre_user("4401"), password))
    for name, connection in (("ours", ours), ("plain", plain)):
        await connection.subscribe("up.4401.live", cb=note(name))
        await connection.flush()

    async def both() -> bool:
        await node.publish("up.4401.live", b"x", headers={"Nats-Rollup": "all"})
        await node.flush()
        return len(result) == 2

    await eventually(both)
    assert result == {"ours": None, "plain": {"Nats-Rollup": "all"}}
    for connection in (node, ours, plain):
        await connection.close()


async def test_a_flood_meets_no_subscription(centre: Engine) -> None:
    """Beyond its credit a member's spans are worked on by nobody, and the other member is served meanwhile."""
    began, release = asyncio.Event(), asyncio.Event()
    working = 0

    async def slow(member: str, payload: bytes) -> bytes:
        nonlocal working
        if member == "4401":
            working += 1
            began.set()
            await release.wait()
        return payload

    links = links_of(centre)
    links.serve(Channel.LIVE, slow)
    async with running(links, BOTH), linked(centre, "4401") as flooding, linked(centre, "4403") as honest:
        body = envelope.encode(LinkRequest(1, 0, "span", b"x" * 1_000))
        first = asyncio.create_task(flooding.send_span("live", b"first"))
        await began.wait()
        for _ in range(500):
            await flooding.connection.publish("up.4401.live", body, reply="_INBOX_4401.flood")
        with pytest.raises(nats.errors.NoRespondersError):
            await flooding.connection.request("up.4401.live", body, timeout=30)
        assert await honest.send_span("live", b"mine") == b"mine"
        assert working == CREDIT[Channel.LIVE]
        release.set()
        assert await first == b"first"


async def test_a_backlog_span_delays_neither_live_spans_nor_questions_nor_leases(centre: Engine) -> None:
    """Each channel has a credit of its own."""
    began, release = asyncio.Event(), asyncio.Event()

    async def long(_member: str, _payload: bytes) -> bytes:
        began.set()
        await release.wait()
        return b"at last"

    links = links_of(centre)
    links.serve(Channel.BACKLOG, long)
    links.answers["lease"] = echo
    async with running(links, BOTH), linked(centre, "4401") as link:
        backlog = asyncio.create_task(link.send_span("backlog", b"x"))
        await began.wait()
        assert await link.send_span("live", b"y") == b"4401:y"
        assert await link.ask("report", b"y") == b"4401:y"
        assert await link.ask("lease", b"y") == b"4401:y"
        assert not backlog.done()
        release.set()
        assert await backlog == b"at last"


@pytest.mark.parametrize(
    ("why", "raised", "words"),
    [
        (PermissionDenied("not you"), PermissionDenied, "not you"),
        (Conflict("changed"), PermissionDenied, "changed"),
        (Overloaded("slowly", retry_after_s=7.0), Overloaded, "slowly"),
        (StoreFull("no room"), Unavailable, "no room"),
        (msgspec.ValidationError("no number"), PermissionDenied, "no number"),
    ],
)
async def test_why_a_span_is_not_taken_is_told(
    centre: Engine, why: Exception, raised: type[Exception], words: str
) -> None:
    """Errors of a handler become errors at the member."""

    async def fails(_member: str, _payload: bytes) -> bytes:
        raise why

    links = links_of(centre)
    links.serve(Channel.LIVE, fails)
    async with running(links, BOTH), linked(centre, "4401") as link:
        with pytest.raises(raised, match=words):
            await link.send_span("live", b"x")


@pytest.mark.parametrize(
    "why", [None, Unavailable("the engine is away"), Fenced("another one"), ZeroDivisionError("a bug")]
)
async def test_an_unknown_outcome_is_not_answered(centre: Engine, why: Exception | None) -> None:
    """The member hears nothing, and its next span is taken: no error of a handler keeps the credit."""
    failing = True

    async def unknown(member: str, payload: bytes) -> bytes | None:
        if failing and why:
            raise why
        return None if failing else await echo(member, payload)

    links = links_of(centre)
    links.serve(Channel.LIVE, unknown)
    async with running(links, BOTH), linked(centre, "4401") as link:
        with pytest.raises(Unavailable, match="timeout"):
            await link.send_span("live", b"x", 0.3)
        failing = False
        assert await link.send_span("live", b"y") == b"4401:y"


async def test_who_is_over_its_quota_is_asked_to_wait_and_the_others_are_not(centre: Engine) -> None:
    """The answer says for how long; meanwhile its requests meet no subscription; the other centre has no quota."""
    links = links_of(centre, quota=NodeQuotaConfig(spans_per_s=1.0, questions_per_s=1.0, bytes_per_s=1e6))
    before = count("sensegate_node_limit_hits", node="4401", quota="live")
    slots = {**BOTH, "44": "44"}
    async with running(links, slots), linked(centre, "4401") as link, linked(centre, "4403") as other:
        sent, over = await until_overloaded(link)
        assert 9 <= sent <= 12
        assert 0 < over.retry_after_s <= 1
        assert count("sensegate_node_limit_hits", node="4401", quota="live") == before + 1
        with pytest.raises(Unavailable, match="no responders"):
            await link.send_span("live", b"x")
        assert await other.send_span("live", b"y") == b"4403:y"
        async with linked(centre, "44") as peer:
            for _ in range(50):
                await peer.ask("report", b"x")


async def until_overloaded(link: CentreLink) -> tuple[int, Overloaded]:
    """Return how many spans were taken at once, and what ended it."""
    for sent in range(50):
        try:
            await link.send_span("live", b"x")
        except Overloaded as why:
            return sent, why
    raise AssertionError("50 spans were taken")


async def test_an_answer_of_an_earlier_term_is_not_believed(centre: Engine) -> None:
    """A centre that was cut off acknowledges nothing; a fenced one is silent; a standby answers leases alone."""
    terms: dict[str, int | None] = {"centre": 3}
    links = links_of(centre, term=lambda: terms["centre"])
    links.answers["lease"] = echo
    async with running(links, BOTH), linked(centre, "4401", term=lambda: 3) as link:
        assert await link.send_span("live", b"x") == b"4401:x"
        terms["centre"] = 5
        assert await link.send_span("live", b"x") == b"4401:x"
        assert link.term == 5
        terms["centre"] = 4
        with pytest.raises(Unavailable, match="term 4 was dropped: a centre of term 5 is known"):
            await link.send_span("live", b"x")
        terms["centre"] = None
        with pytest.raises(Unavailable, match="timeout"):
            await link.send_span("live", b"x", 0.3)
        assert not (await link.hello()).active
        assert await link.ask("lease", b"x") == b"4401:x"
    standby = links_of(centre, active=False)
    standby.answers["lease"] = echo
    async with running(standby, BOTH), linked(centre, "4401") as link:
        assert await link.ask("lease", b"x") == b"4401:x"
        assert not (await link.hello()).active
        with pytest.raises(Unavailable, match="no responders"):
            await link.ask("report")


async def test_who_has_become_inactive_meanwhile_does_not_answer(centre: Engine) -> None:
    """The term is looked at again when the handler has ended."""
    term: int | None = 1

    async def ends(_member: str, _payload: bytes) -> bytes:
        nonlocal term
        term = None
        return b"taken"

    links = links_of(centre, term=lambda: term)
    links.serve(Channel.LIVE, ends)
    async with running(links, BOTH), linked(centre, "4401") as link:
        with pytest.raises(Unavailable, match="timeout"):
            await link.send_span("live", b"x", 0.3)


async def test_a_greeting_names_the_forms_of_both_sides(centre: Engine) -> None:
    """An unknown form, a release too far away and another member's name are refused; the rest is remembered."""
    links = links_of(centre)
    async with running(links, BOTH), linked(centre, "4401") as link:
        welcome = await link.hello(writer="w-1", writer_epoch=3)
        assert (welcome.version, welcome.release, welcome.active) == (1, __version__, True)
        assert links.greetings["4401"].hello == MemberHello((1,), __version__, "4401", 0, "w-1", 3)
        for hello, words in (
            (MemberHello((8, 9), __version__, "4401"), "protocol version: the node speaks 8, 9, the centre 1"),
            (MemberHello((), __version__, "4401"), "protocol version: the node speaks none"),
            (MemberHello((1,), "9.9.9", "4401"), "more than one release"),
            (MemberHello((1,), __version__, "4403"), "this link is that of 4401, not of 4403"),
        ):
            with pytest.raises(PermissionDenied, match=words):
                await link.ask("hello", envelope.encode(hello))
        assert await link.ask("hello", envelope.encode(MemberHello((9, 1), __version__, "4401")))
        request = envelope.encode(LinkRequest(7, 0, "span", b""))
        answer = await eventually(lambda: raw(link, request))
        assert "the node speaks 7, the centre 1" in answer.refusal


async def test_links_survive_the_server_and_come_and_go_with_their_members(centre: Engine) -> None:
    """A killed server is connected to again, with whole credit; a slot that is no longer assigned is left at once."""
    links = links_of(centre)
    async with running(links, BOTH), linked(centre, "4401") as link:
        centre.restarted.clear()
        os.kill(centre.info.pid, signal.SIGKILL)
        await asyncio.wait_for(centre.restarted.wait(), 60)
        await eventually(lambda: heard(link, b"again"), 30)
        for number in range(30):
            assert await link.send_span("live", b"%d" % number) == b"4401:%d" % number
        counts = await centre.connection_counts(["N_4401", "N_4403", "N_s01"])
        assert counts == {"N_4401": 2, "N_4403": 1} | ({"N_s01": 0} if "N_s01" in counts else {})
        links.assign({"4401": "4401", "s01": "4403-port"})
        await eventually(lambda: links.connected == {"4401": "4401", "s01": "4403-port"})
        counts = await centre.connection_counts(["N_4403", "N_s01"])
        assert (counts.get("N_4403", 0), counts["N_s01"]) == (0, 1)
        links.assign({"4401": "4401-other"})
        await eventually(lambda: links.connected == {"4401": "4401-other"})
        assert await eventually(lambda: taken_by(link, b"4401-other:x"))


async def taken_by(link: CentreLink, expected: bytes) -> bool:
    """Return whether a span gets this answer."""
    try:
        return await link.send_span("live", b"x", 2.0) == expected
    except Unavailable:
        return False


async def test_where_nobody_is_connected_that_is_known_at_once(centre: Engine) -> None:
    """The server is silent about accounts without connections; the question is answered all the same."""
    async with asyncio.timeout(60):
        assert await centre.connection_counts(["N_4401", "N_s01", "N_none"]) == {}
        connection = await member_connection(centre, "4401")
        assert await centre.connection_counts(["N_4401", "N_s01"]) == {"N_4401": 1}
        await connection.close()


def test_a_quota_lets_a_burst_through_and_is_paid_off_by_time() -> None:
    """Ten seconds of the rate at once after a rest, then the rate; a large take is a debt."""
    clock = FakeClock()
    bucket = TokenBucket(2.0, clock)
    for _ in range(21):
        assert bucket.wait_s == 0
        bucket.take(1)
    assert bucket.wait_s == pytest.approx(0.5)
    clock._now += 500_000
    assert bucket.wait_s == 0
    bucket.take(10)
    assert bucket.wait_s == pytest.approx(5.0)


class WaitingClock(FakeClock):
    """A clock that passes while somebody sleeps, and keeps how long."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Move forward."""
        self._now += round(seconds * 1e6)


class BusyCentre:
    """Links that take a tenth of a second of a clock's time for a span, of 4403 a millisecond."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.clock = WaitingClock()
        self.links = NodeLinks(engine.connect_slot, self.clock, **options)
        self.links.serve(Channel.LIVE, self._take)
        self.taken: list[str] = []

    async def _take(self, member: str, _body: bytes) -> bytes:
        self.clock.pass_time(0.001 if member == "4403" else 0.1)
        self.taken.append(member)
        return b""


async def test_a_member_that_sends_back_to_back_waits_for_its_turn(centre: Engine) -> None:
    """While another sends spans too, a member has a quarter of the centre's time; one that sends seldom never waits."""
    busy = BusyCentre(centre)
    before = count("sensegate_node_limit_hits", node="4401", quota="turn")
    async with running(busy.links, BOTH), linked(centre, "4401") as greedy, linked(centre, "4403") as modest:
        for _ in range(20):
            await greedy.send_span("live", b"x")
            waits = len(busy.clock.waits)
            await modest.send_span("live", b"y")
            assert len(busy.clock.waits) == waits
    assert busy.taken == ["4401", "4403"] * 20
    used_s = 20 * 0.1
    assert used_s / (used_s + sum(busy.clock.waits)) == pytest.approx(TURN_SHARE[Channel.LIVE], rel=0.3)
    assert max(busy.clock.waits) <= TURN_WAIT_MAX_S
    assert count("sensegate_node_limit_hits", node="4401", quota="turn") > before
    assert count("sensegate_node_limit_hits", node="4403", quota="turn") == 0


async def test_spans_that_are_handled_at_once_share_the_time(centre: Engine) -> None:
    """Two spans that take 0.4 s together are charged with 0.2 s each, which is within the burst: nobody waits then."""
    clock, inside, released = WaitingClock(), list[str](), asyncio.Event()
    links = NodeLinks(centre.connect_slot, clock)

    async def take(member: str, _body: bytes) -> bytes:
        inside.append(member)
        if len(inside) == 4:
            clock.pass_time(0.4)
            released.set()
        elif len(inside) == 3:
            await released.wait()
        return b""

    links.serve(Channel.LIVE, take)
    async with running(links, BOTH), linked(centre, "4401") as first, linked(centre, "4403") as other:
        for link in (first, other):
            await link.send_span("live", b"x")
        await asyncio.gather(first.send_span("live", b"x"), other.send_span("live", b"x"))
        for link in (first, other):
            await link.send_span("live", b"x")
    assert len(inside) == 6
    assert clock.waits == []


async def test_a_member_alone_and_the_other_centre_wait_for_no_turn(centre: Engine) -> None:
    """Control: without another member that sends, and for the peer, all of the centre's time may be used."""
    busy = BusyCentre(centre)
    async with running(busy.links, {**BOTH, "44": "44"}), linked(centre, "44") as peer:
        async with linked(centre, "4401") as alone:
            for _ in range(10):
                await alone.send_span("live", b"x")
        assert busy.clock.waits == []
        busy.clock.pass_time(CONTENDED_S)
        for _ in range(10):
            await peer.send_span("live", b"x")
        assert busy.clock.waits == []
    assert busy.taken == ["4401"] * 10 + ["44"] * 10
