"""Reading a stream back by sequence: batched direct gets, and waiting for what comes next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sensegate.bus import api
from sensegate.bus.connect import Link
from sensegate.bus.process import dumps
from sensegate.errors import EngineError, Unavailable
from sensegate.model import Entry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_POLL_S = 0.5
"""Nobody told us for so long: look."""
_SURE_S = 5.0
"""The same while the consumer that tells us is known to live: many streams are watched, few change."""
_HEARTBEAT_S = 3
_FETCH_MAX = 1000
_FETCH_BYTES_MAX = 8 * 1024**2
_NS = 1_000_000_000


def micros(text: str) -> int:
    """Return a timestamp of the server (RFC 3339, up to nanoseconds) in µs."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


def stamp(time: int) -> str:
    """Return µs as the server writes them."""
    return (_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def entry(message: Msg) -> Entry:
    """Return a stored message."""
    headers = message.headers or {}
    return Entry(
        sequence=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        payload=message.data,
        time=micros(headers["Nats-Time-Stamp"]),
    )


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class _Config(msgspec.Struct, frozen=True):
    metadata: dict[str, str] = {}


class StreamStatus(msgspec.Struct, frozen=True):
    """What the server says of a stream."""

    created: str
    state: _State
    config: _Config = _Config()


class _Consumer(msgspec.Struct, frozen=True):
    name: str


class _Waiting:
    """The answers to one batched get, until its end."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class Reader:
    """One stream, read by one process. `live` is the filter of the messages that announce something new."""

    def __init__(self, nc: Client, stream: str, *, live: str = "") -> None:
        self._nc = nc
        self._stream = stream
        self._live = live
        self._get = f"$JS.API.DIRECT.GET.{stream}"
        self._inbox = nc.new_inbox()
        self._answers: dict[str, _Waiting] = {}
        self._waiting = nc.waiting if isinstance(nc, Link) else set()
        self._count = 0
        self._subscription: Subscription | None = None
        self._last = 0
        self._moved = asyncio.Event()
        self._tail: asyncio.Task[None] | None = None
        self._heard_at = float("-inf")
        self._heard_in = -1

    def _sure(self) -> bool:
        """Return whether somebody tells us of what is new: heard lately, over the connection that there is now."""
        lately = asyncio.get_running_loop().time() - self._heard_at < 2 * _HEARTBEAT_S + 1
        return lately and self._nc.is_connected and self._nc.stats["reconnects"] == self._heard_in

    async def status(self) -> StreamStatus:
        """Return the state of the stream."""
        return msgspec.json.decode(await api.call(self._nc, f"$JS.API.STREAM.INFO.{self._stream}"), type=StreamStatus)

    async def bounds(self) -> tuple[int, int]:
        """Return (first, last) sequence present; (last + 1, last) when empty."""
        state = (await self.status()).state
        self.advance(state.last_seq)
        return (state.first_seq if state.messages else state.last_seq + 1), state.last_seq

    async def last(self, subject: str) -> Msg | None:
        """Return the last message of a literal subject."""
        with api.lost(f"last of {subject}"):
            message = await self._nc.request(f"{self._get}.{subject}", b"", timeout=api.TIMEOUT_S)
        return None if self._absent(message) else message

    async def fetch(self, after: int, *, limit: int, max_bytes: int) -> list[Msg]:
        """Return the messages after a sequence, oldest first; at least one if there is one."""
        asked = {"seq": after + 1, "batch": min(limit, _FETCH_MAX), "max_bytes": min(max_bytes, _FETCH_BYTES_MAX)}
        return await self._batch(asked)

    async def fetch_of(self, subject: str, after: int, *, limit: int) -> list[Msg]:
        """Return the messages of one subject after a sequence, oldest first."""
        asked = {"seq": after + 1, "next_by_subj": subject, "batch": min(limit, _FETCH_MAX)}
        return await self._batch({**asked, "max_bytes": _FETCH_BYTES_MAX})

    async def first_since(self, time: int) -> int | None:
        """Return the sequence of the first message stored at or after `time` (µs)."""
        found = await self._batch({"start_time": stamp(time), "batch": 1})
        return int((found[0].headers or {})["Nats-Sequence"]) if found else None

    async def changed(self, after: int, timeout_s: float) -> bool:
        """Wait until there is a message after `after`; False after `timeout_s`."""
        if self._tail is None:
            self._tail = asyncio.create_task(self._follow(), name=f"tail {self._stream}")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._last <= after:
            left_s = deadline - loop.time()
            if left_s <= 0:
                return False
            try:
                # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(min(left_s, _SURE_S if self._sure() else _POLL_S)):
                    await self._moved.wait()
            except TimeoutError:
                # The server may be away: then there is nothing new as far as we can know, and the reader hears of
                # the loss when it reads.
                with contextlib.suppress(Unavailable):
                    await self.bounds()
        return True

    def advance(self, sequence: int) -> None:
        """Note that the stream has come to `sequence`; wakes who waits."""
        if sequence > self._last:
            self._last = sequence
            self._moved.set()
            self._moved = asyncio.Event()

    async def close(self) -> None:
        """Stop following the stream."""
        if self._tail is not None:
            self._tail.cancel()
            await asyncio.gather(self._tail, return_exceptions=True)
            self._tail = None

    # ── batched direct get ───────────────────────────────────────────────────────────────────────────

    async def _batch(self, asked: Mapping[str, Any]) -> list[Msg]:
        if self._subscription is None:
            with api.lost("subscribe"):
                self._subscription = await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        self._count += 1
        key = str(self._count)
        waiting = self._answers[key] = _Waiting()
        self._waiting.add(waiting.done)
        try:
            with api.lost(f"read {self._stream}"):
                await self._nc.publish(self._get, dumps(asked), reply=f"{self._inbox}.{key}")
                async with asyncio.timeout(2 * api.TIMEOUT_S):
                    status = await waiting.done
        finally:
            self._waiting.discard(waiting.done)
            del self._answers[key]
        if status not in {"204", "404"}:
            self._refuse(status, waiting.messages)
        return waiting.messages

    async def _on_answer(self, message: Msg) -> None:
        waiting = self._answers.get(message.subject.rpartition(".")[2])
        if waiting is None:
            return
        status = (message.headers or {}).get("Status")
        if status is None:
            waiting.messages.append(message)
        elif not waiting.done.done():
            if status not in {"204", "404"}:
                waiting.messages.append(message)
            waiting.done.set_result(status)

    def _absent(self, message: Msg) -> bool:
        status = (message.headers or {}).get("Status")
        if status is None:
            return False
        if status != "404":
            self._refuse(status, [message])
        return True

    def _refuse(self, status: str, messages: list[Msg]) -> None:
        said = (messages[-1].headers or {}).get("Description", "") if messages else ""
        if status == "503":
            raise Unavailable(f"stream {self._stream} is not there now")
        raise EngineError(f"read {self._stream}: {status} {said}")

    # ── what comes next ──────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        """Keep an ephemeral consumer that says, without payloads, when something was stored."""
        heard = asyncio.Event()

        async def on_message(message: Msg) -> None:
            heard.set()
            self._heard_at, self._heard_in = asyncio.get_running_loop().time(), self._nc.stats["reconnects"]
            if message.reply.startswith("$JS.ACK."):
                self.advance(int(message.reply.split(".")[5]))

        subscription: Subscription | None = None
        while True:
            try:
                with api.lost("follow"):
                    if subscription is not None:
                        await subscription.unsubscribe()
                        subscription = None
                    inbox = self._nc.new_inbox()
                    subscription = await self._nc.subscribe(inbox, cb=on_message)
                await self._consumer(inbox)
                # What came before the consumer was there.
                await self.bounds()
                while True:
                    heard.clear()
                    async with asyncio.timeout(2 * _HEARTBEAT_S + 1):
                        await heard.wait()
            except TimeoutError:
                continue  # no heartbeat: the consumer is gone (the server was started again)
            except (Unavailable, EngineError):
                await asyncio.sleep(_POLL_S)

    async def _consumer(self, inbox: str) -> None:
        config = {
            "deliver_subject": inbox,
            "deliver_policy": "new",
            "ack_policy": "none",
            "replay_policy": "instant",
            "headers_only": True,
            "mem_storage": True,
            "inactive_threshold": 60 * _NS,
            "idle_heartbeat": _HEARTBEAT_S * _NS,
            **({"filter_subject": self._live} if self._live else {}),
        }
        body = {"stream_name": self._stream, "config": config}
        await api.call(self._nc, f"$JS.API.CONSUMER.CREATE.{self._stream}", body)
