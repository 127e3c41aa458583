"""A server under a layout, filled and in use: the product's streams, its own connections, and others to be served."""

from __future__ import annotations

import asyncio
import contextlib
import secrets as random_secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.authority import credentials
from sensegate.authority.jwt import AuthRequest as Asked
from sensegate.authority.jwt import CalloutSigner, Permissions, decode_request
from sensegate.authority.scope import Role, Scope
from sensegate.authority.tokens import StoredToken, Token
from sensegate.bus import connect, external, process, streams
from sensegate.bus.files import write_private
from sensegate.bus.free_ports import free_port
from sensegate.bus.kv import KvBucket
from sensegate.bus.log import JetStreamLog
from sensegate.bus.server_conf import User
from sensegate.bus.slots import centre_password, centre_user, inbox_prefix
from sensegate.clock import SystemClock
from sensegate.config.sites import NodeQuotaConfig
from sensegate.errors import EngineError, StoreFull, Unavailable
from sensegate.model import LogMessage
from sensegate.tiers.link import Channel, NodeLinks
from tests.border.layout import ALL, SMALL, Layout
from tests.border.wire import Frame, Received, WireClient
from tests.conftest import eventually
from tests.live.phone import Phone

NODE, JOINED, HONEST, PEER = "4401", "4402", "4403", "44"
SUBSCRIBER, OTHER_SUBSCRIBER, DEVICE, OTHER_DEVICE = "0123456789abcdef", "fedcba9876543210", "gz-1", "sz-1"
GRANT, OTHER_GRANT = "g1", "g2"
BUCKETS = ("tokens", "nodes", "devices")
CANARY = b"canary-of-others"
"""Stands in all that belongs to others; no raider may ever receive it."""
READY_S = 60.0
DURABLE = "ingest-0"


class Admission(msgspec.Struct, frozen=True):
    """One whom the auth callout lets in."""

    password: str
    account: str
    rights: Permissions
    kind: str = "STANDARD"


class World:
    """One server with all who use it."""

    def __init__(
        self, layout: Layout, directory: Path, *, tight: bool, links: bool, quota: NodeQuotaConfig | None = None
    ) -> None:
        """Make it.

        Args:
            layout: how the server is divided.
            directory: of the server.
            tight: whether users have the permissions that the layout gives them; else they have none set.
            links: whether the product's own `NodeLinks` answers the nodes; else one who answers wherever the asker
                wants it, so that the layout alone has to hold.
            quota: what one node may ask of `NodeLinks`.
        """
        self._quota = quota
        self.layout = layout
        self._links = links
        self.tight = tight
        self.kept = msgspec.structs.replace(external.generate_state(), port=free_port(), mqtt_port=free_port())
        self._directory = directory
        self.secrets = {NODE: "secret-of-4401", HONEST: "secret-of-4403", PEER: "secret-of-44"}
        """Of the nodes in the configuration, and of the peer."""
        self.server: process.ServerProcess
        self.own: dict[User, connect.BusClient] = {}
        """The product's connections."""
        self.log: JetStreamLog
        self.buckets: dict[str, KvBucket] = {}
        self.disconnects = 0
        """How often the server closed one of the product's connections, or one of the centre's in a node's account."""
        self.taps: dict[str, WireClient] = {}
        """Account -> one who hears all that is published there and may be heard by its users."""
        self.questions: dict[str, int] = {}
        """Node -> how many questions the centre answered."""
        self.node: WireClient
        self.subscriber: WireClient
        self.device: Phone
        self._admissions: dict[str, Admission] = {}
        self._signer = CalloutSigner(self.kept.issuer_seed.encode())

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"nats://127.0.0.1:{self.kept.port}"

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, stack: AsyncExitStack) -> None:
        """Start the server, make and fill the streams, connect all who use it."""
        conf = self._directory / "nats.conf"
        write_private(conf, self.layout.text(self.kept, self._directory, self.secrets, self.tight))
        self.server = process.spawn(conf, self._directory)
        stack.callback(self.server.release)
        stack.push_async_callback(self.server.terminate, 1.0)
        await eventually(self._answers, READY_S)
        for user in User:
            self.own[user] = await self._connected(stack, user, self.kept.passwords[user])
        await self.own[User.CALLOUT].subscribe("$SYS.REQ.USER.AUTH", cb=self._answer_callout)
        await self._fill()
        await self._serve(stack)
        await self._others(stack)

    async def _answers(self) -> bool:
        assert self.server.is_alive, process.last_lines(self._directory / "nats.out") + process.last_lines(
            self._directory / "nats.log"
        )
        try:
            greeting = await process.read_server_info("127.0.0.1", self.kept.port)
        except (OSError, EOFError, TimeoutError):
            return False
        return greeting.jetstream

    def _note_disconnect(self) -> None:
        self.disconnects += 1

    async def _connected(self, stack: AsyncExitStack, user: str, password: str) -> connect.BusClient:
        link = await connect.connect(
            self.url,
            connect.Login(user, password, f"_INBOX_{user}"),
            events=connect.LinkEvents(on_disconnect=self._note_disconnect),
        )
        stack.push_async_callback(self._closed, link)
        return link

    async def _closed(self, link: connect.BusClient) -> None:
        with contextlib.suppress(Exception):  # the server may have gone first
            await link.close()

    async def _fill(self) -> None:
        """Make the streams of all accounts, with something in each that a change of would show."""
        gateway, intake, feeds = (self.own[user] for user in (User.GATEWAY, User.INTAKE, User.FEEDS))
        await streams.ensure_streams(gateway, SMALL)
        await streams.ensure_mqtt_streams(intake, SMALL)
        await streams.ensure_subscriber_streams(feeds)
        for name in BUCKETS:
            self.buckets[name] = await KvBucket.open(gateway, name, bytes_max=SMALL.registry_bytes)
            for key in ("1" * 16, "2" * 16):
                token = Token(key, Role.SUBSCRIBER, Scope(HONEST), expires=2**60, name=CANARY.decode())
                row = msgspec.msgpack.encode(StoredToken(token, credentials.hash_secret("of another")))
                await self.buckets[name].put(key, row)
        self.log = JetStreamLog(gateway)
        await self.log.open()
        await self.write_others()
        for subject in ("audit.44.first", "audit.44.second", "hours.4403.1"):
            await self.request(User.GATEWAY, subject, CANARY)
        await self.request(
            User.INTAKE,
            f"$JS.API.CONSUMER.DURABLE.CREATE.{streams.MQTT_MESSAGES}.{DURABLE}",
            msgspec.json.encode(
                {
                    "stream_name": streams.MQTT_MESSAGES,
                    "config": {
                        "durable_name": DURABLE,
                        "ack_policy": "all",
                        "deliver_policy": "all",
                        "deliver_subject": "intake.deliver",
                        "filter_subject": "$MQTT.msgs.>",
                    },
                }
            ),
        )
        for user in (User.INTAKE, User.FEEDS):
            await self.request(user, "$MQTT.rmsgs.first", CANARY)
        await self.request(User.INTAKE, "$MQTT.msgs.first", CANARY)

    async def write_others(self) -> None:
        """Write what the centre took of the honest node to the log."""
        await self.log.write(
            [
                LogMessage(f"readings.{HONEST}.all.1", CANARY, 24),
                LogMessage(f"ledger.{HONEST}", CANARY, 24),
                LogMessage(f"commit.{HONEST}.live", CANARY, rollup=True),
            ]
        )

    async def request(self, user: User, subject: str, body: bytes = b"") -> bytes:
        """Ask over a connection of our own; return the answer."""
        answer: bytes = (await self.own[user].request(subject, body, timeout=60)).data
        return answer

    # ── the auth callout ─────────────────────────────────────────────────────────────────────────────

    def admit(self, user: str, admission: Admission) -> None:
        """Have the auth callout let a user in from now on."""
        self._admissions[user] = admission

    async def _answer_callout(self, message: Msg) -> None:
        result: Asked = decode_request(message.data)
        admission = self._admissions.get(result.connect_opts.user)
        now_s = int(time.time())
        if admission is None or admission.password != result.connect_opts.password:
            await message.respond(self._signer.refuse(result, "unknown", now_s=now_s))
            return
        answer = self._signer.admit(
            result,
            account=admission.account,
            name=result.connect_opts.user,
            rights=admission.rights,
            now_s=now_s,
            kind=admission.kind,
        )
        await message.respond(answer)

    # ── the centre ───────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, stack: AsyncExitStack) -> None:
        """Answer the questions of the nodes, and the control messages of subscribers."""
        if self._links:
            await self._serve_links(stack)
        else:
            await self._serve_anywhere(stack)
        feeds = self.own[User.FEEDS]

        async def control(message: Msg) -> None:
            grant = message.subject.split(".")[2]
            subscriber = {GRANT: SUBSCRIBER, OTHER_GRANT: OTHER_SUBSCRIBER}[grant]
            if reply := self.layout.control_reply(message.reply, subscriber):
                await feeds.publish(reply, b"{}")  # as the product answers where nothing is to be said

        await feeds.subscribe("sg.control.*.*", cb=control)
        await feeds.flush()

    async def _serve_links(self, stack: AsyncExitStack) -> None:
        links = NodeLinks(self._connect_slot, SystemClock(), quota=self._quota)

        async def answer(member: str, _payload: bytes) -> bytes:
            self.questions[member] = self.questions.get(member, 0) + 1
            return b"answered"

        async def take(member: str, payload: bytes) -> bytes:
            rows = LogMessage(f"readings.{member}.span", payload, 24, rollup=True)
            await self.log.write([rows, LogMessage(f"commit.{member}.x", b"{}", rollup=True)])
            return b"taken"

        links.serve(Channel.LIVE, take)
        links.serve(Channel.BACKLOG, take)
        links.answers["report"] = answer
        slots = {slot: slot for slot in (NODE, JOINED, HONEST, PEER)}
        links.assign(slots)
        running = asyncio.create_task(links.run(), name="node links")
        stack.push_async_callback(_cancelled, running)
        await eventually(lambda: links.connected == slots)

    async def _connect_slot(self, slot: str, *, on_reconnect: Callable[[], None] | None = None) -> connect.BusClient:
        return await connect.connect(
            self.url,
            connect.Login(centre_user(slot), centre_password(self.kept.slot_seed, slot), inbox_prefix(slot)),
            events=connect.LinkEvents(on_reconnect=on_reconnect, on_disconnect=self._note_disconnect),
            link_options=connect.LinkOptions(answering=True),
        )

    async def _serve_anywhere(self, stack: AsyncExitStack) -> None:
        for code in (NODE, JOINED, HONEST, PEER):
            user = self.layout.responders(code)
            nc: Client = (
                self.own[User.GATEWAY]
                if user == User.GATEWAY
                else await self._connected(stack, user, centre_password(self.kept.slot_seed, code))
            )

            async def answer(message: Msg, code: str = code, nc: Client = nc) -> None:
                self.questions[code] = self.questions.get(code, 0) + 1
                if message.reply:
                    await nc.publish(message.reply, b"answered")

            await nc.subscribe(self.layout.questions(code), cb=answer)
            await nc.flush()

    # ── others ───────────────────────────────────────────────────────────────────────────────────────

    async def _others(self, stack: AsyncExitStack) -> None:
        """Connect those who must go on being served, and those who listen for what should not be there."""
        account = self.layout.account_of
        self.admit(f"node-{JOINED}", Admission("s", account(JOINED), self._may(self.layout.rights_of(JOINED))))
        heard = (f"sg.feeds.{GRANT}.>", f"_INBOX_{SUBSCRIBER}.>")
        subscriber = Permissions((f"sg.control.{GRANT}.nats",), heard, respond=True)
        self.admit(SUBSCRIBER, Admission("s", "SUB", self._may(subscriber)))
        others = Permissions((f"sg.control.{OTHER_GRANT}.nats",), (f"sg.feeds.{OTHER_GRANT}.>",), respond=True)
        self.admit(OTHER_SUBSCRIBER, Admission("s", "SUB", others))
        self.admit(DEVICE, Admission("s", "DEVICES", self._may(Permissions(("up.gz-1",), ("down.gz-1",))), "MQTT"))
        self.admit(OTHER_DEVICE, Admission("s", "DEVICES", Permissions(("up.sz-1",), ("down.sz-1",)), "MQTT"))
        self.node = await stack.enter_async_context(self.wire(f"node-{HONEST}", self.secrets[HONEST]))
        # A consumer delivers only where somebody is subscribed to just that subject.
        await self.node.subscribe(f"_INBOX_{HONEST}.>", f"down.{HONEST}.>", f"_INBOX_{HONEST}.delivered")
        self.subscriber = await stack.enter_async_context(self.wire(OTHER_SUBSCRIBER, "s"))
        await self.subscriber.subscribe(f"sg.feeds.{OTHER_GRANT}.>")
        self.device = await stack.enter_async_context(Phone(self.kept.mqtt_port))
        assert await self.device.connect(OTHER_DEVICE, "s") == 0
        for user in (User.GATEWAY, User.INTAKE, User.FEEDS):
            tap = await stack.enter_async_context(self.wire(user, self.kept.passwords[user]))
            await tap.subscribe(">")
            self.taps[user.account] = tap
        assert await self.node.admitted()
        assert await self.subscriber.admitted()
        for tap in self.taps.values():
            assert await tap.admitted()

    def _may(self, rights: Permissions) -> Permissions:
        return rights if self.tight else ALL

    def wire(self, user: str, password: str) -> WireClient:
        """Return a raw connection, not yet open."""
        return WireClient(self.kept.port, user, password)

    async def served(self, *, but: str = "") -> list[str]:
        """Return who is not served, outside of an account: the gateway, the honest node, a device, a subscriber."""
        faults: list[str] = []
        try:
            await self.write_others()
        except (EngineError, Unavailable, StoreFull) as why:
            faults.append(f"the gateway's write: {why}")
        question, mark = self.layout.question(HONEST), random_secrets.token_hex(4)
        before = len(self.node.received)
        await self.node.send([Frame(question.subject, question.payload, f"{question.reply}{mark}")])
        if not await _soon(lambda: _received(self.node.received[before:], f"{question.reply}{mark}")):
            faults.append("the honest node's question")
        if but != User.INTAKE.account:
            try:
                await self.device.publish("up/sz-1", mark, 5.0)
            except TimeoutError:
                faults.append("the device's message")
        if but == User.FEEDS.account:
            return faults
        before = len(self.subscriber.received)
        await self.own[User.FEEDS].publish(f"sg.feeds.{OTHER_GRANT}.page", CANARY + mark.encode())
        if not await _soon(lambda: _received(self.subscriber.received[before:], f"sg.feeds.{OTHER_GRANT}.page")):
            faults.append("the subscriber's page")
        return faults

    def ended(self) -> list[str]:
        """Return which process or connection ended."""
        faults = [] if self.server.is_alive else ["the server ended"]
        if self.disconnects:
            faults.append(f"{self.disconnects} connections of the product were closed")
        others = {"node": self.node, "subscriber": self.subscriber, **self.taps}
        faults += [f"the connection of {name} was closed" for name, other in others.items() if other.closed.is_set()]
        return faults


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _soon(true: Callable[[], bool]) -> bool:
    try:
        await eventually(true, 20.0)
    except AssertionError:
        return False
    return True


def _received(received: list[Received], subject: str) -> bool:
    return any(message.subject == subject and message.is_answer for message in received)


@contextlib.asynccontextmanager
async def world(
    layout: Layout,
    directory: Path,
    *,
    tight: bool = True,
    links: bool = False,
    quota: NodeQuotaConfig | None = None,
) -> AsyncIterator[World]:
    """Yield a server under a layout in use, as `World` is made; all is ended afterwards."""
    made = World(layout, directory, tight=tight, links=links, quota=quota)
    async with AsyncExitStack() as stack:
        await made.start(stack)
        yield made
