"""Who may connect by MQTT and where it may publish, with a real server and real clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from sensegate import metrics
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.callout import Callout, profile_topics
from sensegate.authority.devices import Devices
from sensegate.authority.refusals import DeniedOperation, RefusalAlarm
from sensegate.authority.scope import Principal
from sensegate.authority.topics import subject_of
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.engine import Engine
from sensegate.clock import SystemClock
from sensegate.errors import ConfigError
from sensegate.model import Device
from tests.conftest import eventually
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = pytest.mark.live
Make = Callable[..., Device]
WAIT_S = 30.0


class Phone:
    """An MQTT client that notes what happens to it; its events are futures of the test's loop."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(1_000)
        self._client: Client | None = None

    async def connect(self, user: str, password: str, *, client_id: str = "", clean: bool = True) -> int:
        """Return the CONNACK's code: 0 is success, 5 (134 in paho's words) not authorised."""
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or user,
            clean_session=clean,
            reconnect_on_failure=False,
        )
        client.username_pw_set(user, password)
        client.on_connect = lambda _c, _u, _f, reason, _p: self._note("connack", reason.value)
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._note("closed", reason.value)
        client.on_publish = lambda _c, _u, mid, _r, _p: self._note("puback", mid)
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: self._note("suback", [reason.value for reason in reasons])
        client.on_message = lambda _c, _u, message: self._note("message", (message.topic, message.payload))
        self._client = client
        await asyncio.to_thread(client.connect, "127.0.0.1", self._port)
        client.loop_start()
        code: int = await self.next("connack")
        return code

    async def publish(self, topic: str, payload: bytes = b"{}") -> None:
        """Publish at QoS 1 and return at the PUBACK."""
        assert self._client
        self._client.publish(topic, payload, 1)
        await self.next("puback")

    async def subscribe(self, topic: str, qos: int = 1) -> int:
        """Return the granted QoS, 128 for refused."""
        assert self._client
        self._client.subscribe(topic, qos)
        granted: list[int] = await self.next("suback")
        return granted[0]

    async def next(self, kind: str, timeout_s: float = WAIT_S) -> Any:
        """Return what the next event of a kind tells; others before it are dropped."""
        async with asyncio.timeout(timeout_s):
            while True:
                name, record = await self._events.get()
                if name == kind:
                    return record

    async def hang_up(self) -> None:
        if self._client:
            self._client.disconnect()
            await asyncio.to_thread(self._client.loop_stop)

    def _note(self, kind: str, detail: Any) -> None:
        self._loop.call_soon_threadsafe(self._events.put_nowait, (kind, detail))


class Site:
    """A server with its callout, a registry, and clients that hang up in the end."""

    def __init__(self, engine: Engine, intake: NatsClient, admin: Principal, make: Make) -> None:
        self.engine, self.intake, self.admin, self.make = engine, intake, admin, make
        self.trail = MemoryTrail()
        self.registry = Devices(MemoryBucket(), self.trail, SystemClock(), home="44")
        self.callout = Callout(engine, self.registry, SystemClock(), trail=self.trail)
        self.phones: list[Phone] = []
        self.heard: asyncio.Queue[bytes] = asyncio.Queue(1_000)

    async def start(self) -> None:
        await self.registry.load()
        await self.callout.start()
        await self.intake.subscribe("sg.>", cb=self._hear)
        await self.intake.flush()

    async def stop(self) -> None:
        for phone in self.phones:
            await phone.hang_up()
        await self.callout.stop()

    def phone(self) -> Phone:
        self.phones.append(Phone(self.engine.info.mqtt_port))
        return self.phones[-1]

    async def add(self, name: str, **keys: object) -> str:
        return await self.registry.add(self.make(name, **keys), by=self.admin)

    async def _hear(self, message: Msg) -> None:
        self.heard.put_nowait(message.data)


@pytest.fixture
async def site(engine: Engine, intake: NatsClient, admin: Principal, make: Make) -> AsyncIterator[Site]:
    made = Site(engine, intake, admin, make)
    await made.start()
    yield made
    await made.stop()


async def met(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Return when a condition holds; fail after a while."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.01)


async def test_a_device_publishes_under_its_topics_and_nowhere_else(site: Site) -> None:
    """Its own topic gets through; another's is dropped though acknowledged, counted as refused, and alarmed."""
    secret = await site.add("a")
    await site.add("b")
    phone = site.phone()
    assert await phone.connect("a", secret) == 0
    await phone.publish("sg/b/up", b"forged")
    await phone.publish("sg/a/up", b"true")
    assert await asyncio.wait_for(site.heard.get(), WAIT_S) == b"true"
    await met(lambda: site.callout.refusals.of("a") == {DeniedOperation.PUBLISH: 1})
    alarm = site.callout.refusals.alarms[0]
    assert (alarm.device, alarm.operation, alarm.detail) == ("a", DeniedOperation.PUBLISH, "sg.b.up")


async def test_an_alarm_is_recorded(site: Site) -> None:
    """A known device's refusal stands on the audit trail, a stranger's does not fill it."""
    secret = await site.add("a")
    stranger, phone = site.phone(), site.phone()
    assert await stranger.connect("nobody", "x") != 0
    assert await phone.connect("a", secret) == 0
    await phone.publish("sg/b/up")
    await met(lambda: site.trail.records[-1][1] == "refused.publish")
    assert [record[2] for record in site.trail.records if record[1].startswith("refused")] == ["a"]
    assert site.callout.refusals.of("nobody") == {DeniedOperation.CONNECT: 1}


async def test_alarms_that_nobody_can_write_down_are_counted(site: Site) -> None:
    """A flood of refusals drops alarms, never silently."""

    def dropped() -> float:
        return metrics.REGISTRY.get_sample_value("sensegate_limit_hits_total", {"limit": "alarms"}) or 0.0

    before, room = dropped(), site.callout._alarms.maxsize
    for _ in range(room + 3):
        site.callout._note(RefusalAlarm(0, "nobody", DeniedOperation.PUBLISH, "x", "", 1))
    assert dropped() == before + 3


async def test_a_device_hears_its_own_commands_only(site: Site) -> None:
    """Subscribing to its down topic is granted at QoS 1, to anything else refused; wildcards too."""
    secret = await site.add("a")
    phone = site.phone()
    assert await phone.connect("a", secret) == 0
    assert await phone.subscribe("sg/a/down") == 1
    for topic in ("sg/b/down", "sg/+/down", "#", "$SYS/#"):
        assert await phone.subscribe(topic) == 128, topic
    await site.intake.publish("sg.a.down", b"open")
    assert await phone.next("message") == ("sg/a/down", b"open")


@pytest.mark.parametrize(("user", "password"), [("a", "wrong"), ("a", ""), ("nobody", "x"), ("intake", "x")])
async def test_who_is_not_known_is_refused(site: Site, user: str, password: str) -> None:
    """A wrong password, an unknown user, and a user of the server's own: CONNACK says not authorised."""
    await site.add("a")
    assert await site.phone().connect(user, password, client_id="c") != 0
    if user != "intake":
        assert site.callout.refusals.totals[DeniedOperation.CONNECT] == 1
    assert site.callout.admitted == 0


async def test_a_disabled_device_is_cut_within_two_seconds(site: Site) -> None:
    """Its open connection is closed, and it does not get in again; others stay."""
    secrets = [await site.add(name) for name in ("a", "b")]
    first, other = site.phone(), site.phone()
    assert await first.connect("a", secrets[0]) == 0
    assert await other.connect("b", secrets[1]) == 0
    began = time.monotonic()
    await site.registry.disable("a", by=site.admin)
    await first.next("closed", WITHIN_TWO_SECONDS)
    assert time.monotonic() - began < WITHIN_TWO_SECONDS
    assert await site.phone().connect("a", secrets[0]) != 0
    await other.publish("sg/b/up")
    await site.registry.enable("a", by=site.admin)
    assert await site.phone().connect("a", secrets[0]) == 0


async def test_disabled_while_the_gateway_was_away(site: Site) -> None:
    """A gateway that starts closes what was disabled while none answered."""
    secret = await site.add("a")
    phone = site.phone()
    assert await phone.connect("a", secret) == 0
    await site.callout.stop()
    await site.registry.disable("a", by=site.admin)
    successor = Callout(site.engine, site.registry, SystemClock())
    await successor.start()
    await phone.next("closed", WITHIN_TWO_SECONDS)
    await successor.stop()


async def test_a_second_connection_needs_the_same_client_id(site: Site) -> None:
    """With the same id it takes over; with another it is refused while the first is open."""
    secret = await site.add("a")
    first, second, third = site.phone(), site.phone(), site.phone()
    assert await first.connect("a", secret, client_id="one") == 0
    assert await second.connect("a", secret, client_id="two") != 0
    assert await third.connect("a", secret, client_id="one") == 0
    await first.next("closed")
    await third.hang_up()

    async def is_admitted() -> bool:
        return await site.phone().connect("a", secret, client_id="two") == 0

    # The server tells the gateway of the end a moment after the client has seen it.
    await eventually(is_admitted, every_s=0.2)


async def test_nobody_takes_over_the_client_id_of_another(site: Site) -> None:
    """The server would close the first; so the second user is refused, and the first stays."""
    secrets = [await site.add(name) for name in ("a", "b")]
    first, thief = site.phone(), site.phone()
    assert await first.connect("a", secrets[0], client_id="same") == 0
    assert await thief.connect("b", secrets[1], client_id="same") != 0
    await first.publish("sg/a/up")


async def test_rotation_ends_the_old_password(site: Site) -> None:
    """During the grace both are good; what came in by the old one is closed at its end; without grace at once."""
    old = await site.add("a")
    phone, repeated = site.phone(), site.phone()
    assert await phone.connect("a", old) == 0
    new = await site.registry.rotate("a", by=site.admin, grace_s=2)
    await phone.publish("sg/a/up")
    await phone.hang_up()
    assert await repeated.connect("a", old) == 0
    await repeated.next("closed", 4 + WITHIN_TWO_SECONDS)
    assert await site.phone().connect("a", old) != 0
    last = site.phone()
    assert await last.connect("a", new) == 0
    await site.registry.rotate("a", by=site.admin, grace_s=0)
    await last.next("closed", WITHIN_TWO_SECONDS)


async def test_a_gateway_publishes_for_what_is_behind_it(site: Site) -> None:
    """A new sub-device widens the rights of its gateway: it is closed once, and comes again with them."""
    secret = await site.add("bridge")
    phone, repeated = site.phone(), site.phone()
    assert await phone.connect("bridge", secret) == 0
    await site.add("bulb", gateway="bridge")
    await phone.next("closed", WITHIN_TWO_SECONDS)
    assert await repeated.connect("bridge", secret) == 0
    await repeated.publish("sg/bulb/up", b"on")
    assert await asyncio.wait_for(site.heard.get(), WAIT_S) == b"on"
    assert await site.phone().connect("bulb", "") != 0


async def test_a_change_of_rights_takes_effect_on_open_connections(site: Site) -> None:
    """Another profile may mean other topics: the connection is closed; another name does not close it."""
    secret = await site.add("a")
    phone = site.phone()
    assert await phone.connect("a", secret) == 0
    entry = site.registry.get("a")
    entry = await site.registry.change(
        msgspec.structs.replace(entry, name="roof"), revision=entry.revision, by=site.admin
    )
    await phone.publish("sg/a/up")
    await site.registry.change(msgspec.structs.replace(entry, profile="acme/x"), revision=entry.revision, by=site.admin)
    await phone.next("closed", WITHIN_TWO_SECONDS)


async def test_topics_are_granted_as_the_server_maps_them(site: Site) -> None:
    """Empty levels, dots and other scripts in a topic: what is granted gets through, a neighbour does not."""
    topics = ["/x//y.z/", "空气/+/v1.2"]
    site.callout._topics_of = lambda _device: (topics, [])
    for topic in topics:
        await site.intake.subscribe(subject_of(topic), cb=site._hear)
    await site.intake.flush()
    phone = site.phone()
    assert await phone.connect("a", await site.add("a")) == 0
    for topic in ("/x//y.z/", "空气/广州/v1.2", "x//y.z/", "空气/广州/v1/2"):
        await phone.publish(topic, topic.encode())
    assert [(await asyncio.wait_for(site.heard.get(), WAIT_S)).decode() for _ in topics] == [
        topics[0],
        "空气/广州/v1.2",
    ]
    await met(lambda: site.callout.refusals.of("a") == {DeniedOperation.PUBLISH: 2})


async def test_a_device_without_topics_may_do_nothing(site: Site) -> None:
    """No topics means none allowed, not all."""
    site.callout._topics_of = lambda _device: ([], [])
    phone = site.phone()
    assert await phone.connect("a", await site.add("a")) == 0
    await phone.publish("sg/a/up")
    assert await phone.subscribe("sg/a/down") == 128
    await met(lambda: site.callout.refusals.of("a") == {DeniedOperation.PUBLISH: 1, DeniedOperation.SUBSCRIBE: 1})


async def test_rights_follow_the_profile(site: Site) -> None:
    """Each topic of the profile with the device's names in it; behind a gateway the gateway's too; once each."""
    results: list[tuple[str, list[str], list[str] | None, str]] = []

    def publish_of(device: Device, names: Sequence[str], gateways: Sequence[str] | None, carrier: str) -> list[str]:
        results.append((device.profile, list(names), None if gateways is None else list(gateways), carrier))
        return [f"tele/{name}/+" for name in names]

    site.callout._topics_of = profile_topics(publish_of, site.registry)
    await site.add("bridge", alias="B", profile="acme/bridge")
    await site.add("bulb", gateway="bridge", profile="acme/bulb")
    rights = site.callout.rights(site.registry.get("bridge"))
    assert results == [
        ("acme/bridge", ["bridge", "B"], None, ""),
        ("acme/bulb", ["bulb"], ["bridge", "B"], "acme/bridge"),
    ]
    assert rights.publish == ("tele.bridge.*", "tele.B.*", "tele.bulb.*")
    assert rights.subscribe == ("sg.bridge.down", "sg.bulb.down")


async def test_a_device_behind_two_gateways(site: Site) -> None:
    """Two networks hear it: each may publish for it by its own topics, and none by the other's."""

    def publish_of(_device: Device, names: Sequence[str], gateways: Sequence[str] | None, carrier: str) -> list[str]:
        return [f"{carrier}/{name}" for name in names] if gateways else []

    site.callout._topics_of = profile_topics(publish_of, site.registry)
    await site.add("ns1", profile="net/one")
    await site.add("ns2", profile="net/two")
    await site.add("probe", gateway="ns1 ns2", profile="acme/probe")
    assert site.callout.rights(site.registry.get("ns1")).publish == ("net.one.probe",)
    assert site.callout.rights(site.registry.get("ns2")).publish == ("net.two.probe",)
    device = site.registry.get("probe")
    await site.registry.change(msgspec.structs.replace(device, gateway="ns2"), revision=device.revision, by=site.admin)
    assert site.callout.rights(site.registry.get("ns1")).publish == ()
    for wrong in ("ns1  ns2", "ns1 ns1", "ns1 nobody", "probe"):
        with pytest.raises(ConfigError):
            await site.add("other" if wrong != "probe" else "probe2", gateway=wrong, profile="acme/probe")


async def test_what_stands_behind_a_gateway_does_not_connect_itself(site: Site) -> None:
    """A device that is put behind a gateway keeps no way in of its own."""
    secret = await site.add("bulb")
    await site.add("bridge")
    device = site.registry.get("bulb")
    moved = msgspec.structs.replace(device, gateway="bridge")
    assert site.registry.verify("bulb", secret) is not None
    await site.registry.change(moved, revision=device.revision, by=site.admin)
    assert site.registry.verify("bulb", secret) is None


async def test_a_stale_memory_of_a_connection_locks_nobody_out(site: Site) -> None:
    """Where a disconnect was not heard, the server is asked, and the device is let in."""
    secret = await site.add("a")
    site.callout._open.opened(999_999, "a", "ghost")
    assert await site.phone().connect("a", secret) == 0


async def test_control_wider_rights_would_let_forgeries_through(site: Site) -> None:
    """Negative control: with rights to everything the forged message arrives and nothing is counted."""
    site.callout._topics_of = lambda _device: (["sg/#"], [])
    phone = site.phone()
    assert await phone.connect("a", await site.add("a")) == 0
    await phone.publish("sg/b/up", b"forged")
    assert await asyncio.wait_for(site.heard.get(), WAIT_S) == b"forged"
    assert site.callout.refusals.of("a") == {}


async def test_control_without_closing_a_disabled_device_would_go_on(site: Site) -> None:
    """Negative control: deaf to changes, the connection of a disabled device stays open."""
    phone = site.phone()
    assert await phone.connect("a", await site.add("a")) == 0
    site.registry.on_change.clear()
    await site.registry.disable("a", by=site.admin)
    with pytest.raises(TimeoutError):
        await phone.next("closed", 0.8)
    await phone.publish("sg/a/up")


async def test_only_mqtt_is_let_in(site: Site) -> None:
    """A device's credential opens no connection of the server's own protocol."""
    from sensegate.bus import connect
    from sensegate.errors import PermissionDenied

    secret = await site.add("a")
    with pytest.raises(PermissionDenied):
        await connect.connect(list(site.engine.info.urls), connect.Login("a", secret))


async def test_two_thousand_connects_a_second(site: Site) -> None:
    """An answer costs less than half a millisecond, so a storm of reconnects is over in seconds."""
    from sensegate.authority.jwt import AuthRequest, ClientInfo, ConnectOptions

    secret = await site.add("a")

    class Mute:
        async def respond(self, answer: bytes) -> None:
            self.answer = answer

    encoded = msgspec.json.encode(
        {
            "nats": AuthRequest(
                user_nkey="U" * 56,
                client_info=ClientInfo(id=1, type="mqtt", mqtt_id="a"),
                connect_opts=ConnectOptions(user="a", password=secret),
            )
        }
    )
    from base64 import urlsafe_b64encode

    message = Mute()
    message.data = b"e30." + urlsafe_b64encode(encoded).rstrip(b"=") + b".x"  # type: ignore[attr-defined]
    began = time.process_time()
    for _ in range(500):
        await site.callout._asked(message)  # type: ignore[arg-type]
    assert site.callout.admitted == 500
    cost = (time.process_time() - began) / 500
    print(f"{cost * 1e6:.0f} us an answer")
    assert cost < 500e-6
