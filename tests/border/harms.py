"""What a raid can do where it succeeds, each with how it shows: the control of the raid asserts every one of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from enum import IntFlag

import msgspec

from sensegate.authority.scope import Role
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import streams
from sensegate.bus.server_conf import User
from sensegate.clock import SystemClock
from sensegate.errors import EngineError, PermissionDenied, Unavailable
from sensegate.model import LogMessage
from tests.border import raid
from tests.border.judge import message_of
from tests.border.raid import Target
from tests.border.wire import Frame, WireClient
from tests.border.world import CANARY, HONEST, World


class Who(IntFlag):
    """Who can do it where nodes are users of the gateway's account."""

    NODE = 1
    PEER = 2
    UNRESTRICTED = 4
    """A node, but only without permissions."""
    SUBSCRIBER = 8


class Scene(msgspec.Struct, frozen=True):
    """One raider and what it raids."""

    world: World
    raider: WireClient
    code: str

    async def has(self, stream: str, user: User = User.GATEWAY) -> bool:
        """Return whether a stream exists."""
        answer = await self.world.request(user, f"$JS.API.STREAM.INFO.{stream}")
        return b'"error"' not in answer

    async def config(self, stream: str) -> dict[str, object]:
        """Return the settings of a stream of the gateway's; empty where there is none."""
        answer = json.loads(await self.world.request(User.GATEWAY, f"$JS.API.STREAM.INFO.{stream}"))
        config: dict[str, object] = answer.get("config", {})
        return config

    async def count(self, stream: str) -> int:
        """Return how many messages a stream of the gateway's holds."""
        answer = json.loads(await self.world.request(User.GATEWAY, f"$JS.API.STREAM.INFO.{stream}"))
        return int(answer["state"]["messages"]) if "state" in answer else 0

    async def last(self, stream: str, subject: str) -> bytes:
        """Return the body of the last message under a subject; empty where there is none."""
        message = await message_of(self.world, User.GATEWAY, stream, {"last_by_subj": subject})
        return bytes(message["data"]) if message else b""


Probe = Callable[[Scene], Awaitable[bool]]


class Harm(msgspec.Struct, frozen=True):
    """One success of a raider."""

    name: str
    who: Who
    frames: Callable[[str], Iterator[Frame]]
    """The raider's code -> what it sends."""
    seen: Probe


# ── how each shows ───────────────────────────────────────────────────────────────────────────────────────


async def _administers(scene: Scene) -> bool:
    tokens = Tokens(scene.world.buckets["tokens"], MemoryTrail(), SystemClock())
    try:
        await tokens.load()
        return tokens.verify(f"sg_{raid.TOKEN_ID}_{raid.TOKEN_SECRET}").role is Role.ADMIN
    except (PermissionDenied, msgspec.DecodeError):  # an empty row: the bytes were not yet stored when they were read
        return False


async def _audit_forged(scene: Scene) -> bool:
    return b'"LOG"' in await scene.last(streams.AUDIT, "audit.acknowledged")


async def _audit_emptily_forged(scene: Scene) -> bool:
    return await message_of(scene.world, User.GATEWAY, streams.AUDIT, {"last_by_subj": "audit.missed"}) is not None


async def _audit_answered(scene: Scene) -> bool:
    return await scene.last(streams.AUDIT, f"audit.answered.{scene.code}") == b"answered"


async def _row_answered(scene: Scene) -> bool:
    return await scene.last("KV_nodes", f"$KV.nodes.{scene.code}") == b"answered"


async def _lane_overwritten(scene: Scene) -> bool:
    return await scene.last(streams.LOG, f"commit.{HONEST}.live") != CANARY


async def _inbox_forged(scene: Scene) -> bool:
    return any(message.subject == f"_INBOX_{HONEST}.9" for message in scene.world.node.received)


async def _own_inbox_forged(scene: Scene) -> bool:
    heard = scene.world.taps[User.GATEWAY.account].received
    return any(message.subject == "_INBOX_gateway.9" and b'"LOG"' in message.payload for message in heard)


async def _own_life(scene: Scene) -> bool:
    message = await message_of(scene.world, User.GATEWAY, streams.LOG, {"last_by_subj": f"readings.{scene.code}.all.1"})
    return message is not None and "hdrs" in message


async def _foreign_batch(scene: Scene) -> bool:
    return await scene.last(streams.LOG, f"readings.{scene.code}.h6") == b"{}"


async def _republished(scene: Scene) -> bool:
    if "republish" not in await scene.config(streams.LOG):
        return False
    await scene.world.write_others()
    await scene.raider.flush()
    return any(CANARY in message.payload for message in scene.raider.received)


async def _delivered(scene: Scene) -> bool:
    await scene.raider.flush()
    heard = scene.raider.received
    return any(message.subject.startswith("$KV.tokens.") and CANARY in message.payload for message in heard)


async def _delivered_elsewhere(scene: Scene) -> bool:
    return any(message.subject.startswith("audit.") for message in scene.world.node.received)


async def _mirrored(scene: Scene) -> bool:
    return await scene.count("MIRROR") >= 1


async def _sourced(scene: Scene) -> bool:
    return await scene.count("SOURCE") >= 1


async def _commits_stopped(scene: Scene) -> bool:
    try:
        await scene.world.log.write([LogMessage("seen.probe", b""), LogMessage("seen.probe", b"")])
    except (Unavailable, EngineError):
        return True
    return False


async def _purged(scene: Scene) -> bool:
    return await scene.has("KV_devices") and await scene.count("KV_devices") == 0


async def _log_emptied(scene: Scene) -> bool:
    return await scene.has(streams.LOG) and await scene.last(streams.LOG, f"readings.{HONEST}.all.1") == b""


async def _heard(scene: Scene) -> bool:
    await scene.world.write_others()
    await scene.raider.flush()
    return any(CANARY in message.payload for message in scene.raider.received)


async def _feed_forged(scene: Scene) -> bool:
    return any(message.payload == b"{}" for message in scene.world.subscriber.received)


def _gone(stream: str, user: User = User.GATEWAY) -> Probe:
    async def gone(scene: Scene) -> bool:
        return not await scene.has(stream, user)

    return gone


# ── how each is done ─────────────────────────────────────────────────────────────────────────────────────


def _by(route: raid.Route, subject: str, body: bytes = b"{}") -> Callable[[str], Iterator[Frame]]:
    return lambda code: route(code, Target(subject.replace("CODE", code), body))


def _asking(request: Callable[[str], tuple[str, bytes]]) -> Callable[[str], Iterator[Frame]]:
    """Have bytes that the raider stored published as a request of the API."""
    return lambda code: raid.stored_bytes(code, Target(*request(code)))


def _with(head: tuple[str, str], subject: str) -> Callable[[str], Iterator[Frame]]:
    return lambda code: iter((Frame(subject.replace("CODE", code), b"{}", headers=(head,)),))


ANY = Who.NODE | Who.PEER
HARMS = (
    Harm(
        "administers", Who.NODE, _by(raid.stored_bytes, f"$KV.tokens.{raid.TOKEN_ID}", raid.admin_token()), _administers
    ),
    Harm("audit record, acknowledgement", Who.NODE, _by(raid.acknowledgement, "audit.acknowledged"), _audit_forged),
    Harm("audit record, no message", Who.NODE, _by(raid.no_message, "audit.missed"), _audit_emptily_forged),
    Harm("audit record, responder", ANY, _by(raid.answer_of_responder, "audit.answered.CODE"), _audit_answered),
    Harm("other's lane record", Who.NODE, _by(raid.acknowledgement, f"commit.{HONEST}.live"), _lane_overwritten),
    Harm("other's inbox", Who.NODE, _by(raid.acknowledgement, f"_INBOX_{HONEST}.9"), _inbox_forged),
    Harm("gateway's inbox", Who.NODE, _by(raid.batch_acknowledgement, "_INBOX_gateway.9"), _own_inbox_forged),
    Harm("life of its own choice", Who.NODE, _with(("Nats-TTL", "1000h"), "up.CODE.readings.all.1"), _own_life),
    Harm("garbage on the log", Who.NODE, _with(("x", "y"), "up.CODE.readings.h6"), _foreign_batch),
    Harm("mirror", Who.NODE, _asking(lambda _: raid.stream_request("MIRROR", mirror={"name": "AUDIT"})), _mirrored),
    Harm(
        "source", Who.NODE, _asking(lambda _: raid.stream_request("SOURCE", sources=[{"name": "KV_tokens"}])), _sourced
    ),
    Harm("republish", Who.NODE, _asking(raid.republish_request), _republished),
    Harm(
        "deliver subject of its own",
        Who.NODE,
        _asking(lambda code: raid.consumer_request("KV_tokens", f"r{code}", f"_INBOX_{code}.read")),
        _delivered,
    ),
    Harm(
        "deliver subject of another",
        Who.NODE,
        _asking(lambda code: raid.consumer_request(streams.AUDIT, f"w{code}", f"_INBOX_{HONEST}.delivered")),
        _delivered_elsewhere,
    ),
    Harm("purge", Who.NODE, _by(raid.stored_bytes, "$JS.API.STREAM.PURGE.KV_devices", b"{}"), _purged),
    Harm("hears others", Who.UNRESTRICTED, lambda _: iter(()), _heard),
    Harm("other's feed", Who.SUBSCRIBER, _by(raid.answer_of_responder, "sg.feeds.g2.forged"), _feed_forged),
    Harm(
        "deletes the subscribers' queue",
        Who.SUBSCRIBER,
        _by(raid.answer_of_responder, "$JS.API.STREAM.DELETE.$MQTT_rmsgs"),
        _gone("$MQTT_rmsgs", User.FEEDS),
    ),
    Harm("row by responder", ANY, _by(raid.answer_of_responder, "$KV.nodes.CODE"), _row_answered),
    Harm(
        "deletes KV_nodes itself",
        Who.UNRESTRICTED,
        _by(raid.straight, "$JS.API.STREAM.DELETE.KV_nodes", b""),
        _gone("KV_nodes"),
    ),
    Harm("deletes LEDGER", Who.NODE, _by(raid.no_message, "$JS.API.STREAM.DELETE.LEDGER"), _gone("LEDGER")),
    Harm("deletes AUDIT", Who.NODE, _by(raid.no_message, "$JS.API.STREAM.DELETE.AUDIT"), _gone("AUDIT")),
    Harm("rollup empties the log", Who.NODE, raid.rollup_all, _log_emptied),
    Harm("open batches", Who.NODE, raid.open_batches, _commits_stopped),
    Harm("deletes LOG", Who.NODE, _by(raid.no_message, "$JS.API.STREAM.DELETE.LOG"), _gone("LOG")),
)
"""In an order in which none hides the next."""
