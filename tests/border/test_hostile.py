"""A node that lies beside one that does not: each lie is refused, counted and shown; the other loses nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self

import msgspec
import pytest
import pytest_asyncio

from sensegate.bus.connect import BusClient, Login, connect
from sensegate.bus.inventory import PROBE
from sensegate.bus.server_conf import EngineState as Credentials
from sensegate.bus.server_conf import User
from sensegate.config import NodeUserConfig, UplinkConfig
from sensegate.tiers import envelope, protocol
from sensegate.tiers.envelope import PROTOCOL_VERSIONS, TERM_MAX, LinkRequest, MemberHello
from sensegate.tiers.link import Channel
from sensegate.tiers.protocol import SpanAnswer, SpanOutcome, SpanPart
from tests.border import raid
from tests.border.hostile import HostileNode, Lie, Silent, WireTransport, outcome, part, rows
from tests.border.judge import Snapshot, message_of, snapshot
from tests.border.lies import FOREIGN_DEVICE, OWN_DEVICE, OWN_DIVISION, SENDER, VICTIM, frame_lies, lies
from tests.border.wire import Frame, WireClient
from tests.conftest import eventually
from tests.live.site import SMALL, Made, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
START = 1_767_225_600_000_000
GOOD_GRADE = 2
"""Of readings beside a lie: not the lie's, for what of a kind and grade cannot be read is refused as a whole."""
QUESTIONS = (
    "hello",
    "lease",
    "report",
    "copied",
    "copy",
    "restore",
    "returned",
    "orders",
    "part",
    "told",
    "base",
    "content",
    "position",
    "claim",
    "refused",
    "no-such-question",
)
GARBAGE = (
    b"",
    b"{}",
    b"\xc1" * 64,
    b"\xdd\xff\xff\xff\xff",
    b"\x91" * 50_000,
    b"\x00" * 1_000,
    b"\xcf" + b"\xff" * 8,
    b"-1",
    b"9" * 5_000,
)


class Storage:
    """The store of a running centre, asked over its own users. `async with` closes the connections."""

    def __init__(self, centre: Site) -> None:
        self._file = centre.config_file("engine/engine.json")
        self._url = centre.addresses.nats
        self._links: dict[User, BusClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self._links.values():
            await link.close()

    async def request(self, user: User, subject: str, body: bytes = b"") -> bytes:
        """Ask over a connection of one of the product's users."""
        if user not in self._links:
            kept = msgspec.json.decode(self._file.read_bytes(), type=Credentials)
            self._links[user] = await connect(self._url, Login(user, kept.passwords[user], f"_INBOX_{user}"))
        answer: bytes = (await self._links[user].request(subject, body, timeout=60)).data
        return answer


class Play:
    """A centre, an honest node and a hostile one."""

    def __init__(self, centre: Site, node: Site, wire: WireClient, storage: Storage) -> None:
        self.centre = centre
        self.node = node
        self.wire = wire
        self.hostile = HostileNode(WireTransport(wire, SENDER))
        self.storage = storage
        self.pushed = 0
        """Readings that the honest node has taken."""
        self.good = 0
        """Readings beside the lies, which are none."""

    async def push(self, device: Made) -> None:
        """Have the honest node take readings until cancelled."""
        while True:
            seconds = self.pushed
            time = f"2026-01-01T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"
            assert (await self.node.push(device, reading(20 + seconds, time))).status == 202
            self.pushed += 1
            await asyncio.sleep(0.1)

    async def arrived(self, node: str) -> list[dict[str, Any]]:
        """Return the records of a node at the centre."""
        return [record for record in await self.centre.records() if record["node"] == node]

    async def counted(self, metric: str, label: str, value: str) -> float:
        """Return a counter of the hostile node at the centre."""
        labels = ",".join(sorted((f'node="{SENDER}"', f'{label}="{value}"')))
        return await self.centre.metric(f"sensegate_node_{metric}_total{{{labels}}}")

    async def troubles(self) -> str:
        """Return what the page of nodes says of the hostile node."""
        listed = (await self.centre.ask("GET", "/api/v1/nodes")).body["rows"]
        return "\n".join(next(row["problems"] for row in listed if row["division"] == SENDER))

    def good_part(self) -> SpanPart:
        """Return a reading that is no lie."""
        self.good += 1
        batch = rows(SENDER, OWN_DEVICE, OWN_DIVISION, start=START + self.good * 1_000_000)
        return part(batch, grade=GOOD_GRADE)

    async def lives(self) -> None:
        """Return once all that the honest node has taken is at the centre, and what is good of the other."""
        assert not self.centre.task.done()
        pushed = self.pushed

        async def all_there() -> bool:
            return len(await self.arrived(VICTIM)) >= pushed

        await eventually(all_there, 30)
        assert len(await self.arrived(SENDER)) == self.good
        await self.centre.totals()  # they balance
        assert (await self.centre.ready())[0] == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def play(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Play]:
    """A centre with both nodes; the honest one takes a reading every tenth of a second all the while."""
    directory = tmp_path_factory.mktemp("border")
    for code in (SENDER, VICTIM):
        (directory / code).write_text(f"secret-of-{code}", encoding="utf-8")
    nodes = tuple(NodeUserConfig(division=code, secret_file=str(directory / code)) for code in (SENDER, VICTIM))
    async with contextlib.AsyncExitStack() as stack:
        above = msgspec.structs.replace(config_of(directory / "centre", "44"), nodes=nodes)
        centre = await stack.enter_async_context(running(above))
        uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(directory / VICTIM), span_ms=50)
        below = msgspec.structs.replace(config_of(directory / "node", VICTIM), uplink=uplink)
        node = await stack.enter_async_context(running(below))
        wire = await stack.enter_async_context(raider_at(centre))
        made = Play(centre, node, wire, await stack.enter_async_context(Storage(centre)))
        pushing = asyncio.create_task(made.push(await node.device(FOREIGN_DEVICE)), name="honest readings")
        try:
            await eventually(lambda: made.arrived(VICTIM), 30)
            assert (await made.hostile.claim()).granted
            yield made
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)


@contextlib.asynccontextmanager
async def raider_at(centre: Site) -> AsyncIterator[WireClient]:
    """Yield a raw connection with the credential of a node."""
    port = int(centre.addresses.nats.rpartition(":")[2])
    async with WireClient(port, f"node-{SENDER}", f"secret-of-{SENDER}") as wire:
        assert await wire.admitted()
        await wire.subscribe(f"_INBOX_{SENDER}.>")
        yield wire


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lie", lies(START), ids=lambda lie: lie.name)
async def test_a_part_that_lies_is_refused_and_the_rest_is_taken(lie: Lie, play: Play) -> None:
    """The reason is answered and counted; nothing of the part becomes a record, and the good reading beside it does."""
    counted = {reason: await play.counted("refused", "reason", reason) for reason in lie.reasons}
    answer = await play.hostile.span(play.hostile.request(play.good_part(), *lie.parts))
    assert isinstance(answer, SpanAnswer)
    assert (answer.outcome, frozenset(refusal.reason for refusal in answer.refused)) == (
        SpanOutcome.ACCEPTED,
        lie.reasons,
    )
    for reason, count in counted.items():
        assert await play.counted("refused", "reason", reason) == count + 1


async def test_what_was_refused_is_shown(play: Play) -> None:
    """On the node's line and page at the centre, in the list that the node asks for; none of it is a record."""
    reasons = {reason for lie in lies(START) for reason in lie.reasons}
    for lie in lies(START):
        answer = await play.hostile.span(play.hostile.request(play.good_part(), *lie.parts))
        assert isinstance(answer, SpanAnswer)
    reply = await play.hostile.ask("refused")
    listed = protocol.decode_refused_list(reply.value)
    assert {refused.reason for refused in listed.parts} == reasons
    shown = (await play.centre.ask("GET", f"/api/v1/nodes/{SENDER}/refused")).body["rows"]
    assert {row["id"] for row in shown} == {refused.id for refused in listed.parts}
    troubles = await play.troubles()
    assert [reason for reason in reasons if reason not in troubles] == []
    assert f"{FOREIGN_DEVICE}, which {VICTIM} owns" in troubles
    records = await play.arrived(SENDER)
    assert {(record["device"], record["division"]) for record in records} == {(OWN_DEVICE, OWN_DIVISION)}
    await play.lives()


async def test_a_grade_below_the_devices_own_is_raised(play: Play) -> None:
    """What a node calls open is no more open than the rows themselves say; it is taken and marked."""
    play.good += 1
    batch = rows(SENDER, OWN_DEVICE, OWN_DIVISION, start=START + play.good * 1_000_000)
    origins = msgspec.structs.replace(batch.origins, grade=batch.origins.grade + 2)
    marked = await play.counted("rows_nonconformant", "mark", "grade")
    answer = await play.hostile.span(play.hostile.request(part(msgspec.structs.replace(batch, origins=origins))))
    assert outcome(answer) == SpanOutcome.ACCEPTED
    assert await play.counted("rows_nonconformant", "mark", "grade") == marked + 1
    stored = await message_of(play.storage, User.GATEWAY, "LOG", {"last_by_subj": f"readings.{SENDER}.all.3"})
    assert stored is not None


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_frame_that_lies_changes_nothing(play: Play) -> None:
    """What contradicts the lanes' records is refused with a remedy, counted and shown; what is merely late is stale."""
    for name, (request, expected) in frame_lies(play.hostile).items():
        counted = await play.counted("refused", "reason", "frame")
        before = await play.hostile.ask("position")
        answer = await play.hostile.span(request)
        assert outcome(answer) == expected, (name, answer)
        lanes = [
            protocol.decode_position_answer(reply.value).lanes for reply in (before, await play.hostile.ask("position"))
        ]
        assert lanes[0] == lanes[1], name
        if expected == "refused":
            assert await play.counted("refused", "reason", "frame") == counted + 1, name
            assert "a span is refused" in await play.troubles(), name
    await play.lives()


async def test_a_span_twice_is_one(play: Play) -> None:
    """An answer may be lost: the same span again is answered as taken, and written once."""
    request = play.hostile.request(play.good_part())
    assert [outcome(await play.hostile.span(request)) for _ in range(3)] == [SpanOutcome.ACCEPTED] * 3
    await play.lives()


async def test_garbage_is_no_request(play: Play) -> None:
    """Nor as a span, nor as any question, nor as an envelope; each is refused or answered, and the centre goes on."""
    for channel in Channel:
        for body in GARBAGE:
            with contextlib.suppress(Silent):
                envelope.decode_answer(await play.hostile.transport.raw(channel, body))
    for body in GARBAGE:
        assert outcome(await play.hostile.span(body)) == "refused"
    for question in QUESTIONS:
        for body in GARBAGE:
            answer = await play.hostile.ask(question, body)
            assert answer.version, (question, body[:20])
    assert not await play.counted("dropped", "reason", "failed")
    await play.lives()


async def test_an_envelope_that_lies_is_refused(play: Play) -> None:
    """An unknown form, a term that cannot be, a question on another's channel, a greeting in another's name."""
    assert "protocol version" in (await play.hostile.ask("position", form=99)).refusal
    for term in (-1, TERM_MAX + 1):
        assert (await play.hostile.ask("position", term=term)).refusal
    assert (await play.hostile.ask("hello", channel=Channel.QUESTIONS)).refusal
    assert (await play.hostile.ask("position", channel=Channel.CONTROL)).refusal
    greeting = envelope.encode(MemberHello(PROTOCOL_VERSIONS, "0.1.0", VICTIM))
    assert f"not of {VICTIM}" in (await play.hostile.ask("hello", greeting)).refusal
    greeting = envelope.encode(MemberHello((98, 99), "0.1.0", SENDER))
    assert "98, 99" in (await play.hostile.ask("hello", greeting)).refusal


async def test_another_copy_of_the_store_is_not_the_writer(play: Play) -> None:
    """Who does not know the epoch that stands is refused, told so on the node's line, and displaces nobody."""
    answer = await play.hostile.claim(token="copy-of-the-process", epoch=0)
    assert not answer.granted
    assert "two copies of its store" in await play.troubles()
    assert await play.counted("refused", "reason", "writer") >= 1
    assert outcome(await play.hostile.span(play.hostile.request(play.good_part()))) == SpanOutcome.ACCEPTED


# ── the raid, against all that runs ──────────────────────────────────────────────────────────────────────

HEADERS: dict[str, tuple[tuple[str, str], ...]] = {
    "rollup of all": (("Nats-Rollup", "all"),),
    "a life of its own": (("Nats-TTL", "1s"),),
    "a fence of its own": (("Nats-Expected-Last-Subject-Sequence", "0"),),
    "an open batch": (("Nats-Batch-Id", "x"), ("Nats-Batch-Sequence", "1")),
    "no header": (("\x00", "\x00"),),
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
async def test_no_header_of_a_node_reaches_the_log(headers: tuple[tuple[str, str], ...], play: Play) -> None:
    """The life of a reading and what it replaces are the centre's own."""
    answer = await play.hostile.span(play.hostile.request(play.good_part()), headers=headers)
    assert outcome(answer) == SpanOutcome.ACCEPTED
    subject = f"readings.{SENDER}.all.{GOOD_GRADE}"
    stored = await message_of(play.storage, User.GATEWAY, "LOG", {"last_by_subj": subject})
    assert stored is not None
    lines = decoded_headers(stored["hdrs"])
    assert lines.pop("Nats-Batch-Id") != "x"
    assert lines.pop("Nats-Batch-Sequence")
    assert lines == {"Nats-TTL": f"{SMALL.readings_ttl_h}h"}
    await play.lives()


def decoded_headers(encoded: str) -> dict[str, str]:
    """Return the headers of a stored message."""
    lines = base64.b64decode(encoded).decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


async def test_an_answer_leaves_no_inbox_but_the_nodes(play: Play) -> None:
    """A reply outside of it is dropped and counted; the request is worked on all the same."""
    dropped = await play.counted("dropped", "reason", "reply")
    request = envelope.encode(LinkRequest(PROTOCOL_VERSIONS[-1], 0, "position", b""))
    replies = (
        "$JS.API.STREAM.DELETE.AUDIT",
        "audit.forged",
        f"_INBOX_{VICTIM}.1",
        f"_INBOX_{SENDER}x.1",
        "$KV.tokens.x",
    )

    async def all_dropped() -> bool:
        return await play.counted("dropped", "reason", "reply") >= dropped + len(replies)

    for reply in replies:
        await play.wire.send([Frame(f"up.{SENDER}.{Channel.QUESTIONS}", request, reply)])
        assert (await play.hostile.ask("position")).value
    await eventually(all_dropped)
    await play.lives()


async def test_a_raid_beside_all_that_runs(play: Play) -> None:
    """All frames of the raid: no stream appears, goes or changes; nothing is written where nodes have no part."""
    before = await snapshot(play.storage)
    async with raider_at(play.centre) as raider:
        await raider.send(raid.frames(SENDER))
        assert await raider.flush(60.0)
        await play.lives()
    after = await snapshot(play.storage)
    assert kept_apart(before) == kept_apart(after)
    assert configs(before) == configs(after)


def configs(shown: Snapshot) -> dict[str, object]:
    """Return the configuration of every stream but that of the gateway's own probes, which comes with the first."""
    return {name: stream.config for name, stream in shown.streams.items() if not name.endswith(f"/{PROBE}")}


def kept_apart(shown: Snapshot) -> dict[str, dict[int, bytes]]:
    """Return the messages of the streams to which nothing of a node leads."""
    others = ("AUDIT", "KV_tokens", "KV_people", "KV_feeds", "KV_sharing", "KV_devices", "KV_nodes", "$MQTT_msgs")
    return {name: stream.messages for name, stream in shown.streams.items() if name.partition("/")[2] in others}
