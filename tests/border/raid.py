"""The raid: all that one who holds a credential may try, as frames over a raw connection.

A *route* makes the server or another process publish something where the raider may not: a direct get, the answer
where there is no message, the acknowledgement of a publish, a responder's answer, each with a foreign reply. A
*target* is where it is to land: a key of a stream, an inbox, or a request of the server's API. The raid tries every
route against every target, and besides what needs no reply: headers, open batches, subscriptions, requests.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from sensegate.authority import credentials
from sensegate.authority.scope import Role, Scope
from sensegate.authority.tokens import StoredToken, Token
from sensegate.bus import streams
from sensegate.bus.server_conf import User
from tests.border.layout import SMALL
from tests.border.wire import Frame
from tests.border.world import BUCKETS, DEVICE, DURABLE, HONEST, OTHER_GRANT

BATCHES = 520
"""More batches than a stream keeps open."""
TOKEN_ID, TOKEN_SECRET = "00000000deadbeef", "s" * 32
STREAMS = {
    User.GATEWAY.account: (streams.LOG, streams.LEDGER, streams.AUDIT, *(f"KV_{name}" for name in BUCKETS)),
    User.INTAKE.account: (streams.MQTT_MESSAGES, "$MQTT_sess", "$MQTT_rmsgs"),
}
ALL_STREAMS = tuple(itertools.chain.from_iterable(STREAMS.values()))


def admin_token() -> bytes:
    """Return a row of the token bucket that makes its owner an administrator of the province."""
    token = Token(TOKEN_ID, Role.ADMIN, Scope("44"), expires=2**60, name="raider")
    return msgspec.msgpack.encode(StoredToken(token, credentials.hash_secret(TOKEN_SECRET)))


KEYS = (
    f"$KV.tokens.{TOKEN_ID}",
    "$KV.nodes.4401",
    f"$KV.devices.{DEVICE}",
    "audit.forged",
    "hours.4403.1",
    f"ledger.{HONEST}",
    f"sequences.{HONEST}",
    f"commit.{HONEST}.live",
    f"commit.{HONEST}.backlog",
    f"readings.{HONEST}.all.1",
    "readings.4401.h6",
    "raw.4401.0",
    "quarantine.4401.0",
    "carried.4401",
    "seen.filler",
    f"up.{HONEST}.live",
    f"up.{HONEST}.questions",
    f"ask.{HONEST}.report",
    "$MQTT.msgs.up.sz-1",
    "$MQTT.sess.0",
    "$MQTT.rmsgs.down.sz-1",
    f"sg.feeds.{OTHER_GRANT}.page",
    f"sg.grants.{OTHER_GRANT}.page",
    f"sg.control.{OTHER_GRANT}.nats",
    "intake.deliver",
)
"""Subjects that lie on a stream, or that a process listens to."""
INBOXES = (f"_INBOX_{HONEST}.1", f"down.{HONEST}.1", *(f"_INBOX_{user}.1" for user in User))
SYSTEM = (
    "$SYS.REQ.USER.AUTH",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.SERVER.PING.JSZ",
    "$SYS.REQ.SERVER.PING.KICK",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.PING.STATZ",
    "$SYS.REQ.ACCOUNT.SG.CONNZ",
    "$SYS.REQ.ACCOUNT.SG.CLAIMS.UPDATE",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.CLAIMS.DELETE",
    "$SYS.ACCOUNT.SG.CONNECT",
    "$SYS.ACCOUNT.DEVICES.DISCONNECT",
)


def stream_request(name: str, **more: Any) -> tuple[str, bytes]:
    """Return the request that makes a stream."""
    settings = {"name": name, "storage": "file", "retention": "limits", "max_bytes": 1_048_576, **more}
    return f"$JS.API.STREAM.CREATE.{name}", json.dumps(settings).encode()


def consumer_request(stream: str, name: str, deliver: str) -> tuple[str, bytes]:
    """Return the request that has a whole stream delivered to a subject."""
    config = {"name": name, "deliver_subject": deliver, "ack_policy": "none", "deliver_policy": "all"}
    body = json.dumps({"stream_name": stream, "config": config}).encode()
    return f"$JS.API.CONSUMER.CREATE.{stream}.{name}", body


def republish_request(code: str) -> tuple[str, bytes]:
    """Return the request that has all that comes to the log published in the raider's inbox too."""
    changed = {**streams.log_stream(SMALL), "republish": {"src": ">", "dest": f"_INBOX_{code}.stolen.>"}}
    return f"$JS.API.STREAM.UPDATE.{streams.LOG}", json.dumps(changed).encode()


def api_requests(code: str) -> Iterator[tuple[str, bytes]]:
    """Yield requests of JetStream's API with the bodies that they need, the destructive ones last."""
    for name in ALL_STREAMS:
        tail = name.strip("$")
        yield stream_request(f"MIRROR_{tail}", mirror={"name": name})
        yield stream_request(f"SOURCE_{tail}", sources=[{"name": name}])
        for account, delivered in itertools.product(STREAMS, ("$JS.API", f"_INBOX_{HONEST}")):
            external = {"api": f"$JS.{account}.API", "deliver": f"{delivered}.x"}
            yield stream_request(f"FAR_{account}_{tail}", sources=[{"name": name, "external": external}])
        delivered_to = (f"_INBOX_{code}.read", "audit.forged", f"$KV.tokens.{TOKEN_ID}", "$JS.API.INFO")
        for place, deliver in enumerate(delivered_to):
            yield consumer_request(name, f"c{place}", deliver)
        yield f"$JS.API.STREAM.SNAPSHOT.{name}", f'{{"deliver_subject":"_INBOX_{code}.snapshot"}}'.encode()
        yield f"$JS.API.CONSUMER.MSG.NEXT.{name}.{DURABLE}", b'{"batch":100}'
        yield f"$JS.API.STREAM.INFO.{name}", b""
        yield f"$JS.API.STREAM.MSG.GET.{name}", b'{"seq":1}'
        yield f"$JS.API.DIRECT.GET.{name}", b'{"seq":1}'
    log = streams.log_stream(SMALL)
    yield republish_request(code)
    yield f"$JS.API.STREAM.UPDATE.{streams.LOG}", json.dumps({**log, "max_msgs": 1, "discard": "old"}).encode()
    yield stream_request("REPUBLISHED", subjects=["evil.>"], republish={"src": ">", "dest": f"_INBOX_{code}.stolen.>"})
    yield stream_request("CAPTURED", subjects=["up.>", "_INBOX_gateway.>", "down.>", "intake.>", "sg.>"])
    yield "$JS.API.STREAM.RESTORE.RESTORED", b'{"config":{"name":"RESTORED","subjects":["evil.>"]},"state":{}}'
    yield f"$JS.API.CONSUMER.PAUSE.{streams.MQTT_MESSAGES}.{DURABLE}", b'{"pause_until":"2100-01-01T00:00:00Z"}'
    yield f"$JS.API.CONSUMER.RESET.{streams.MQTT_MESSAGES}.{DURABLE}", b'{"seq":1}'
    yield f"$JS.API.CONSUMER.DELETE.{streams.MQTT_MESSAGES}.{DURABLE}", b""
    yield from ((f"$JS.API.STREAM.LEADER.STEPDOWN.{name}", b"") for name in ALL_STREAMS)
    yield from ((f"$JS.API.STREAM.MSG.DELETE.{name}", b'{"seq":1}') for name in ALL_STREAMS)
    yield from ((f"$JS.API.STREAM.PURGE.{name}", b"") for name in ALL_STREAMS)
    yield from ((f"$JS.API.STREAM.DELETE.{name}", b"") for name in ALL_STREAMS)
    yield from ((f"$JS.API.ACCOUNT.PURGE.{account}", b"") for account in STREAMS)
    yield "$JS.API.META.LEADER.STEPDOWN", b""
    yield "$JS.API.SERVER.REMOVE", b'{"peer":"border"}'


class Target(msgspec.Struct, frozen=True):
    """Where something is to land, and what would do harm there."""

    subject: str
    body: bytes = b"{}"


def targets(code: str) -> list[Target]:
    """Return all targets: keys, inboxes, subjects of the system, requests of the API (the destructive ones last)."""
    keys = [Target(key, admin_token()) for key in KEYS]
    return [
        *keys,
        *(Target(inbox, b"forged") for inbox in INBOXES),
        *(Target(subject) for subject in SYSTEM),
        Target("$JS.ACK.$MQTT_msgs.ingest-0.1.1.1.1700000000000000000.0", b"+ACK"),
        Target("$JS.FC.$MQTT_msgs.ingest-0.x", b""),
        *(Target(subject, body) for subject, body in api_requests(code)),
    ]


# ── routes: what publishes somewhere else ────────────────────────────────────────────────────────────────

Route = Callable[[str, Target], Iterator[Frame]]
"""(the raider's code, target) -> frames."""


def footholds(code: str) -> tuple[str, ...]:
    """Return subjects that a raider may perhaps publish on, in one layout or the other."""
    kinds = ("readings.all.1", "readings.h6", "observations.all.1", "ledger", "sequences", "commit.x", "commit.live")
    mapped = (f"up.{code}.{kind}" for kind in kinds)
    straight = (f"{kind.partition('.')[0]}.{code}.{kind.partition('.')[2]}".rstrip(".") for kind in kinds)
    channels = (f"up.{code}.{channel}" for channel in ("live", "backlog", "questions", "lease", "hello", "position"))
    return (*mapped, *straight, *channels, f"up.{code}.ask.report", f"ask.{code}.report")


def stored_bytes(code: str, target: Target) -> Iterator[Frame]:
    """Write the body under an own subject, then have it read to the target: the bytes are the raider's."""
    yield Frame(f"commit.{code}.x", target.body, headers=(("Nats-Rollup", "sub"),))
    yield Frame(f"$JS.API.DIRECT.GET.LOG.commit.{code}.x", reply=target.subject)


def stored_bytes_by_body(code: str, target: Target) -> Iterator[Frame]:
    """Do so with the subject in the request's body."""
    wanted = json.dumps({"last_by_subj": f"commit.{code}.x"}).encode()
    yield Frame(f"up.{code}.commit.x", target.body, headers=(("Nats-Rollup", "sub"),))
    for subject in ("$JS.API.DIRECT.GET.LOG", "$JS.API.STREAM.MSG.GET.LOG"):
        yield Frame(subject, wanted, reply=target.subject)
    many = json.dumps({"multi_last": [f"commit.{code}.x"], "batch": 10}).encode()
    yield Frame("$JS.API.DIRECT.GET.LOG", many, reply=target.subject)


def no_message(code: str, target: Target) -> Iterator[Frame]:
    """Read what is not there: the empty answer goes to the target."""
    yield Frame(f"$JS.API.DIRECT.GET.LOG.commit.{code}.absent", reply=target.subject)
    yield Frame(f"$JS.API.DIRECT.GET.DOWN.down.{code}.absent", reply=target.subject)


def acknowledgement(code: str, target: Target) -> Iterator[Frame]:
    """Write with the target as the place of the acknowledgement."""
    yield Frame(f"commit.{code}.y", b"{}", reply=target.subject)
    yield Frame(f"up.{code}.ledger", b"{}", reply=target.subject)
    yield Frame(f"$MQTT.msgs.{code}", b"{}", reply=target.subject)


def batch_acknowledgement(code: str, target: Target) -> Iterator[Frame]:
    """Commit an atomic batch with the target as the place of the acknowledgement, and one that is refused."""
    for last in ("0", "999999"):
        head = (("Nats-Batch-Id", f"a{code}{last}"), ("Nats-Batch-Sequence", "1"), ("Nats-Batch-Commit", "1"))
        expected = ("Nats-Expected-Last-Sequence", last)
        yield Frame(f"commit.{code}.z", b"{}", reply=target.subject, headers=(*head, expected))


def answer_of_responder(code: str, target: Target) -> Iterator[Frame]:
    """Ask the centre with the target as the place of the answer."""
    for foothold in (f"up.{code}.ask.report", f"ask.{code}.report", *footholds(code)[-8:-2]):
        yield Frame(foothold, target.body, reply=target.subject)
    yield Frame("sg.control.g1.nats", target.body, reply=target.subject)


def answer_of_server(code: str, target: Target) -> Iterator[Frame]:
    """Ask the server itself with the target as the place of the answer."""
    for subject in ("$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$JS.API.INFO", "$JS.API.STREAM.NAMES"):
        yield Frame(subject, reply=target.subject)


def straight(code: str, target: Target) -> Iterator[Frame]:
    """Publish to the target itself."""
    yield Frame(target.subject, target.body, reply=f"_INBOX_{code}.straight")
    yield Frame(target.subject, target.body, headers=(("Nats-Rollup", "all"),))


ROUTES: dict[str, Route] = {
    "stored bytes": stored_bytes,
    "stored bytes by body": stored_bytes_by_body,
    "no message": no_message,
    "acknowledgement": acknowledgement,
    "batch acknowledgement": batch_acknowledgement,
    "answer of a responder": answer_of_responder,
    "answer of the server": answer_of_server,
    "straight": straight,
}


# ── what needs no target ─────────────────────────────────────────────────────────────────────────────────

HEADERS = (
    (("Nats-Rollup", "sub"),),
    (("Nats-TTL", "1s"),),
    (("Nats-TTL", "never"),),
    (("Nats-Msg-Id", "1"),),
    (("Nats-Expected-Stream", "LOG"), ("Nats-Expected-Last-Sequence", "0")),
    (("Nats-Expected-Last-Subject-Sequence", "x"),),
    (("Nats-Schedule", "@at 2100-01-01T00:00:00Z"), ("Nats-Schedule-Target", "audit.forged")),
    (("Nats-Schedule", "@every 1s"), ("Nats-Schedule-Target", f"$KV.tokens.{TOKEN_ID}")),
    (("Nats-Incr", "1"),),
    (("KV-Operation", "PURGE"),),
    (("Nats-Stream-Source", "LOG 1 > > >"),),
    (("Nats-Service-Error-Code", "503"),),
    (("Nmqtt-Pub", "1"),),
    (("Nats-Batch-Id", "x" * 65), ("Nats-Batch-Sequence", "0")),
    (("Nats-Rollup", "all\r\nNats-TTL: 1s"),),
)


def headers(code: str) -> Iterator[Frame]:
    """Send every header that a server obeys on every own subject, those that empty a stream last."""
    for foothold, head in itertools.product(footholds(code), HEADERS):
        yield Frame(foothold, b"{}", headers=head)


def rollup_all(code: str) -> Iterator[Frame]:
    """Empty the stream on which an own subject lies."""
    for foothold in footholds(code):
        yield Frame(foothold, b"{}", headers=(("Nats-Rollup", "all"),))


def open_batches(code: str) -> Iterator[Frame]:
    """Begin more batches than a stream keeps open, and end none."""
    for number, foothold in itertools.product(range(BATCHES), (f"commit.{code}.x", f"up.{code}.live")):
        head = (("Nats-Batch-Id", f"open-{foothold[:2]}-{number}"), ("Nats-Batch-Sequence", "1"))
        yield Frame(foothold, b"{}", reply=f"_INBOX_{code}.batch", headers=head)


def foreign_names(code: str) -> Iterator[Frame]:
    """Publish under the names of others, with wildcards, and with subjects that no client would send."""
    for subject in (
        f"up.{HONEST}.live",
        f"up.{HONEST}.ledger",
        f"up.{HONEST}.ask.report",
        f"down.{HONEST}.orders",
        f"_INBOX_{HONEST}.1",
        "up.*.live",
        "up.>",
        ">",
        "*",
        "$JS.>",
        "commit.*.live",
        f"up..{code}",
        f".up.{code}",
        f"up.{code}.",
        f"up.{code}." + "x." * 1_000 + "x",
    ):
        yield Frame(subject, b"forged", reply=f"_INBOX_{code}.foreign")


def garbage(code: str) -> Iterator[Frame]:
    """Send what is neither span nor question where both are expected."""
    bodies = (b"", b"{}", b"\xc1" * 64, b"\x00" * 100_000, b"\xdd\xff\xff\xff\xff", b"[" * 10_000)
    for foothold, body in itertools.product(footholds(code), bodies):
        yield Frame(foothold, body, reply=f"_INBOX_{code}.garbage")


def topics() -> Iterator[tuple[str, bytes]]:
    """Yield what a device publishes by MQTT, where there is no reply: odd topics, then every target as a topic."""
    for topic in (
        "up/sz-1",
        "down/sz-1",
        "up/#",
        "+/sz-1",
        "$SYS/x",
        "a//b",
        "/",
        "",
        "x" * 4_000,
        "up/gz-1\r\nPUB x 0",
    ):
        yield topic, b"forged"
    for target in targets(DEVICE):
        yield target.subject.replace(".", "/"), target.body


FILTERS = ("#", "+/#", "up/#", "down/#", "$KV/#", "$SYS/#", "$JS/#", "$MQTT/#", "_INBOX/#", "+", "$share/callout/#")
"""What a device tries to hear."""
LISTENED = (
    ">",
    "*",
    "*.>",
    "$KV.>",
    "$JS.>",
    "$JS.API.>",
    "$SYS.>",
    "$MQTT.>",
    "_INBOX.>",
    f"_INBOX_{HONEST}.>",
    *(f"_INBOX_{user}.>" for user in User),
    f"down.{HONEST}.>",
    f"up.{HONEST}.>",
    "up.>",
    "ask.>",
    "readings.>",
    "commit.>",
    "audit.>",
    "sg.>",
    f"sg.feeds.{OTHER_GRANT}.>",
    "intake.>",
)
"""What a raider tries to hear."""
STOLEN_QUEUES = (("ask.*.*", "centre"), ("up.>", "centre"), ("$SYS.REQ.USER.AUTH", "callout"))
"""Subjects and the queue groups in which their listeners share them."""


def frames(code: str) -> Iterator[Frame]:
    """Yield the whole raid of one connection, what destroys most last."""
    yield from foreign_names(code)
    yield from garbage(code)
    yield from headers(code)
    everything = targets(code)
    for target, route in itertools.product(everything, ROUTES.values()):
        yield from route(code, target)
    yield from open_batches(code)
    yield from rollup_all(code)
