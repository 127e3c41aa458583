"""A raid with one credential: against nodes in the gateway's account it succeeds, against accounts it does nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from operator import attrgetter
from pathlib import Path

import pytest

from sensegate.bus.server_conf import User
from tests.border import raid
from tests.border.harms import HARMS, Harm, Scene, Who
from tests.border.judge import Snapshot, differences, snapshot
from tests.border.new_layout import NEW
from tests.border.old_layout import OLD
from tests.border.wire import Frame, MqttWire
from tests.border.world import CANARY, DEVICE, GRANT, HONEST, JOINED, NODE, PEER, SUBSCRIBER, World, world
from tests.conftest import eventually

pytestmark = pytest.mark.live
TIERS = (NODE, JOINED, PEER)


@contextlib.asynccontextmanager
async def raider_in(place: World, code: str) -> AsyncIterator[Scene]:
    """Yield one who is connected with a credential of its own, and hears what it can."""
    user = code if code == SUBSCRIBER else f"node-{code}"
    async with place.wire(user, place.secrets.get(code, "s")) as wire:
        assert await wire.admitted(), wire.errors
        await wire.subscribe(*raid.LISTENED, f"_INBOX_{code}.>", f"_INBOX_{code}.read")
        await wire.flush()
        yield Scene(place, wire, code)


# ── the control: where nodes are users of the gateway's account ──────────────────────────────────────────


async def harmed(harm: Harm, scene: Scene) -> bool:
    """Return whether a harm shows after one more try."""
    await scene.raider.send(harm.frames(scene.code))
    assert await scene.raider.flush(), (harm.name, scene.raider.errors[-3:])
    return await harm.seen(scene)


def harms_of(who: Who) -> list[Harm]:
    """Return what a raider can do where the layout lets it."""
    return [harm for harm in HARMS if harm.who & who]


@pytest.mark.parametrize(
    ("code", "tight", "who"),
    [
        (NODE, True, Who.NODE),
        (JOINED, True, Who.NODE),
        (PEER, True, Who.PEER),
        (SUBSCRIBER, True, Who.SUBSCRIBER),
        (NODE, False, Who.NODE | Who.UNRESTRICTED),
    ],
)
async def test_control_in_the_gateways_account_the_raid_succeeds(
    *, code: str, tight: bool, who: Who, tmp_path: Path
) -> None:
    """Each harm shows, one after the other: what finds nothing elsewhere has found it here."""
    async with world(OLD, tmp_path, tight=tight) as place, raider_in(place, code) as scene:
        for harm in harms_of(who):
            await eventually(partial(harmed, harm, scene), 30.0)


# ── the raid ─────────────────────────────────────────────────────────────────────────────────────────────


async def raided(scene: Scene) -> None:
    """Send the whole raid and return once the server and the centre have taken it."""
    for harm in HARMS:
        await scene.raider.send(harm.frames(scene.code))
    await scene.raider.send(raid.frames(scene.code))
    if not await scene.raider.flush(60.0):
        raise AssertionError(f"the server closed the raider's connection: {scene.raider.errors[-3:]}")


def strangers(place: World) -> list[str]:
    """Return what was published in an account of ours since the taps were emptied."""
    return [
        f"{account}: {message.subject} {message.payload[:60]!r}"
        for account, tap in place.taps.items()
        for message in tap.received
    ]


async def quiet(place: World) -> None:
    """Forget what the taps have heard so far."""
    for tap in place.taps.values():
        await tap.flush()
        tap.received.clear()


async def judged(place: World, before: Snapshot, *, own: tuple[str, ...] = (), but: str = "") -> list[str]:
    """Return all that a raid did.

    Args:
        place: where.
        before: what was stored before.
        own: how the lines of what the raider may do begin.
        but: an account that its lack of permissions leaves to it.
    """
    for tap in place.taps.values():
        await tap.flush()
    # What the server says of itself in an account of ours is no message of a raider.
    heard = [line for line in strangers(place) if "$JS.EVENT." not in line]
    ignored = (*own, but) if but else own
    faults = [line for line in (*heard, *differences(before, await snapshot(place))) if not line.startswith(ignored)]
    return faults + await place.served(but=but) + place.ended()


@pytest.mark.parametrize("links", [True, False], ids=["the product answers", "whoever answers is careless"])
@pytest.mark.parametrize("tight", [True, False], ids=["tight", "unrestricted"])
async def test_nodes_and_the_peer_harm_nobody(*, tight: bool, links: bool, tmp_path: Path) -> None:
    """A configured node, a joined one and the peer raid at once: all streams of all accounts stay as they were.

    Nothing is published in an account of ours, no process ends, others are served, and nobody hears what is theirs.
    """
    async with world(NEW, tmp_path, tight=tight, links=links) as place, contextlib.AsyncExitStack() as stack:
        scenes = [await stack.enter_async_context(raider_in(place, code)) for code in TIERS]
        before = await snapshot(place)
        await quiet(place)
        await asyncio.gather(*(raided(scene) for scene in scenes))
        await eventually(partial(answered, place), 30)
        faults = await judged(place, before)
        faults += [f"{harm.name} by {scene.code}" for scene in scenes for harm in HARMS if await harm.seen(scene)]
        assert not faults, "\n".join(faults)
        for scene in scenes:
            await scene.raider.flush()
            assert not [message for message in scene.raider.received if CANARY in message.payload]


async def answered(place: World) -> bool:
    """Return whether the centre has answered a question of each raider that came after its raid."""
    for code in TIERS:
        user = f"node-{code}"
        async with place.wire(user, place.secrets.get(code, "s")) as wire:
            result = place.layout.question(code)
            await wire.subscribe(f"_INBOX_{code}.>")
            await wire.send([Frame(result.subject, result.payload, f"_INBOX_{code}.last")])
            await wire.flush()
            try:
                await eventually(partial(attrgetter("answers"), wire), 1.0)
            except AssertionError:
                return False
    return True


@pytest.mark.parametrize("tight", [True, False], ids=["tight", "unrestricted"])
async def test_a_subscriber_harms_nobody(*, tight: bool, tmp_path: Path) -> None:
    """Its permissions keep it from the other subscribers in its account, its account from all else."""
    async with world(NEW, tmp_path, tight=tight) as place, raider_in(place, SUBSCRIBER) as scene:
        before = await snapshot(place)
        await quiet(place)
        await raided(scene)
        await scene.raider.send([Frame(f"sg.control.{GRANT}.nats", reply=f"_INBOX_{SUBSCRIBER}.last")])
        if tight:
            await eventually(lambda: any(message.subject.endswith(".last") for message in scene.raider.received))
        own = (f"SUB: sg.control.{GRANT}.nats ", f"SUB: _INBOX_{SUBSCRIBER}.")
        faults = await judged(place, before, own=own, but="" if tight else User.FEEDS.account)
        assert not faults, "\n".join(faults)
        assert not tight or not [message for message in scene.raider.received if CANARY in message.payload]


@pytest.mark.parametrize("tight", [True, False], ids=["tight", "unrestricted"])
async def test_a_device_harms_nobody(*, tight: bool, tmp_path: Path) -> None:
    """By MQTT, as retained message and as will too; it comes again each time the server closes its connection."""
    async with world(NEW, tmp_path, tight=tight) as place:
        before = await snapshot(place)
        await quiet(place)
        heard = bytearray()
        async with contextlib.AsyncExitStack() as stack:
            client: MqttWire | None = None
            for topic, body in raid.topics():
                if client is None or client.closed.is_set():
                    client = await stack.enter_async_context(device_of(place))
                # Without permissions its own store goes: the server would keep it waiting 5 s for each PUBACK.
                for qos in (0,) if not tight and topic.startswith("$JS/") else (0, 1):
                    await client.publish(topic, body, qos=qos, retain=bool(qos))
                await client.flush()
                heard += client.received
        for place_of_will in raid.KEYS:
            async with device_of(place, will=(place_of_will.replace(".", "/"), b"forged")) as client:
                await client.flush()
        # The server keeps the device's own session, and asks for it by the account's own requests.
        requests = (f"DEVICES: $JS.API.STREAM.MSG.{verb}.$MQTT_sess " for verb in ("GET", "DELETE"))
        own = ("DEVICES: $MQTT.sess.", "DEVICES: $MQTT.JSA.", *requests, "DEVICES/$MQTT_sess: state ")
        faults = await judged(place, before, own=own, but="" if tight else User.INTAKE.account)
        assert not faults, "\n".join(faults)
        for topic in raid.FILTERS:
            async with device_of(place) as client:
                await client.subscribe(topic)
                await client.flush()
                await place.write_others()
                await client.flush()
                heard += client.received
        assert CANARY not in heard or not tight


def device_of(place: World, *, will: tuple[str, bytes] = ("", b"")) -> MqttWire:
    """Return an MQTT connection with the raider's own credential, not yet open."""
    return MqttWire(place.kept.mqtt_port, DEVICE, "s", will=will)


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (f"node-{HONEST}", "secret-of-4401"),
        (f"node-{JOINED}", "secret-of-4401"),
        (f"node-{PEER}", "secret-of-4401"),
        (f"centre-{NODE}", "secret-of-4401"),
        (f"centre-{HONEST}", "secret-of-4401"),
        *((user, "secret-of-4401") for user in User),
        ("node-4404", "secret-of-4401"),
        ("", ""),
    ],
)
async def test_a_credential_opens_its_own_account_alone(user: str, password: str, centre: World) -> None:
    """With a node's secret nobody enters as another node, the peer, the centre or the product."""
    async with centre.wire(user, password) as wire:
        assert not await wire.admitted()


async def test_the_secret_of_a_node_opens_no_session_by_mqtt(centre: World) -> None:
    """A link is a link: neither configured nor joined nodes are let in where devices are."""
    for user, secret in ((f"node-{NODE}", centre.secrets[NODE]), (f"node-{JOINED}", "s")):
        async with MqttWire(centre.kept.mqtt_port, user, secret) as client:
            assert not await client.flush()


async def test_an_account_holds_few_connections_and_subscriptions(centre: World) -> None:
    """What is beyond them is refused to that account alone."""
    secret = centre.secrets[NODE]
    async with contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(centre.wire(f"node-{NODE}", secret)) for _ in range(12)]
        admitted = [wire for wire in wires if await wire.admitted()]
        assert 1 <= len(admitted) < 6
        await admitted[0].subscribe(*(f"_INBOX_{NODE}.{number}" for number in range(200)))
        await admitted[0].flush()
        assert any("subscriptions" in error for error in admitted[0].errors)
        assert not await centre.served()
        assert not centre.ended()


@pytest.fixture
async def centre(tmp_path: Path) -> AsyncIterator[World]:
    """A server under the product's layout, answered by the product."""
    async with world(NEW, tmp_path, links=True) as place:
        yield place
