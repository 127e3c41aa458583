"""The judge of a raid: all streams of all accounts, byte for byte, before and after."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Protocol

import msgspec

from sensegate.bus.server_conf import User

MESSAGES_MAX = 50_000
"""Most messages of a stream that are read."""
_READERS = {User.GATEWAY.account: User.GATEWAY, User.INTAKE.account: User.INTAKE, User.FEEDS.account: User.FEEDS}


class Storage(Protocol):
    """A server that can be asked over connections of the product's own users."""

    async def request(self, user: User, subject: str, body: bytes = b"") -> bytes: ...


class StreamSnapshot(msgspec.Struct, frozen=True):
    """A stream as it stands."""

    config: bytes
    state: bytes
    consumers: bytes
    messages: dict[int, bytes]
    """Sequence -> digest of subject, headers, time and body."""


class Snapshot(msgspec.Struct, frozen=True):
    """All that the server stores."""

    server: str
    """Identity of the process."""
    streams: dict[str, StreamSnapshot]
    """``ACCOUNT/STREAM`` -> it."""


def _stable(tree: Any) -> bytes:
    return msgspec.json.encode(tree, order="deterministic")


async def snapshot(storage: Storage) -> Snapshot:
    """Return what the server stores now, in every account that has a store."""
    body = b'{"accounts":true,"streams":true,"consumer":true,"config":true,"limit":1024}'
    answer = msgspec.json.decode(await storage.request(User.SYSTEM, "$SYS.REQ.SERVER.PING.JSZ", body))
    streams: dict[str, StreamSnapshot] = {}
    for account in answer["data"].get("account_details") or ():
        for stream in account.get("stream_detail") or ():
            reader = _READERS.get(account["name"])
            messages = await _messages(storage, reader, stream["name"]) if reader else {}
            state = {key: value for key, value in stream["state"].items() if key != "consumer_count"}
            consumers = [
                {key: value for key, value in consumer.items() if key not in {"ts", "cluster"}}
                for consumer in sorted(stream.get("consumer_detail") or (), key=lambda consumer: str(consumer["name"]))
            ]
            streams[f"{account['name']}/{stream['name']}"] = StreamSnapshot(
                _stable(stream["config"]), _stable(state), _stable(consumers), messages
            )
    return Snapshot(answer["server"]["id"], streams)


async def _messages(storage: Storage, reader: User, stream: str) -> dict[int, bytes]:
    digests: dict[int, bytes] = {}
    sequence = 1
    while len(digests) < MESSAGES_MAX:
        message = await message_of(storage, reader, stream, {"seq": sequence, "next_by_subj": ">"})
        if message is None:
            return digests
        digests[message["seq"]] = hashlib.sha256(_stable(message)).digest()
        sequence = message["seq"] + 1
    raise AssertionError(f"{stream} holds more than {MESSAGES_MAX} messages; the judge reads no more")


async def message_of(storage: Storage, reader: User, stream: str, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Return a message of a stream with its body decoded, None where there is none or no such stream."""
    answer = msgspec.json.decode(
        await storage.request(reader, f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(wanted))
    )
    if "error" in answer:
        return None
    message: dict[str, Any] = answer["message"]
    return {**message, "data": base64.b64decode(message.get("data", ""))}


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what is not as it was, a sentence each."""
    lines = [] if before.server == after.server else ["the server is another process"]
    for name in sorted({*before.streams, *after.streams}):
        old, new = before.streams.get(name), after.streams.get(name)
        if old is None or new is None:
            lines.append(f"{name} {'appeared' if old is None else 'is gone'}")
            continue
        lines += [
            f"{name}: {part} was {getattr(old, part)!r}, is {getattr(new, part)!r}"
            for part in ("config", "state", "consumers")
            if getattr(old, part) != getattr(new, part)
        ]
        if old.messages != new.messages:
            lost = sorted(old.messages.keys() - new.messages.keys())
            added = sorted(new.messages.keys() - old.messages.keys())
            changed = [at for at in old.messages.keys() & new.messages.keys() if old.messages[at] != new.messages[at]]
            lines.append(f"{name}: messages lost {lost[:10]}, added {added[:10]}, changed {changed[:10]}")
    return lines
