"""Reading a stream by sequence: batched direct gets, and waiting for new messages.

Of a replicated stream any copy answers direct gets, also one that lags behind. A copy's messages have no gaps, so what
it returns is a part of the stream; what it does not have is asked of the leader before it counts as missing.
"""

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
from sensegate.bus.connect import BusClient
from sensegate.bus.process import json_bytes
from sensegate.errors import EngineError, NotFound, StoreFull, Unavailable
from sensegate.model import LogEntry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STORED_MAX_US = (2**63 - 1) // 1_000
"""Greatest time of a message, in the year 2262: the server counts nanoseconds, and takes later times for early ones."""
_POLL_S = 0.5
"""Interval of polling the stream's last sequence without a notifying consumer."""
_POLL_FOLLOWED_S = 60.0
"""The same while the notifying consumer is known to work: its heartbeats give the sequence of its last message."""
_HEARTBEAT_S = 3.0
_FETCH_MAX = 1000
_FETCH_BYTES_MAX = 8 * 1024**2
_NS = 1_000_000_000


def parse_timestamp(text: str) -> int:
    """Return a timestamp of the server (RFC 3339, up to nanoseconds) in µs since 1970."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


def format_timestamp(time: int) -> str:
    """Return µs since 1970 as an RFC 3339 timestamp; of the years 1 to 9999."""
    return (_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_entry(message: Msg) -> LogEntry:
    """Return a stored message as a log entry."""
    headers = message.headers or {}
    return LogEntry(
        sequence=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        payload=message.data,
        time=parse_timestamp(headers["Nats-Time-Stamp"]),
        ttl_h=_hours(headers.get("Nats-TTL", "")),
        rollup="Nats-Rollup" in headers,
        ends_write="Nats-Batch-Commit" in headers,
    )


def _hours(text: str) -> int:
    """Return a lifetime as `bus.log` writes it, in hours; 0: there is none."""
    number = text.removesuffix("h")
    return int(number) if number.isdecimal() else 0


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class _Config(msgspec.Struct, frozen=True):
    metadata: dict[str, str] = {}


class StreamStatus(msgspec.Struct, frozen=True):
    """State of a stream as the server reports it."""

    created: str
    state: _State
    config: _Config = _Config()


class _StoredMessage(msgspec.Struct, frozen=True):
    subject: str
    seq: int
    time: str
    data: bytes = b""
    hdrs: bytes = b""


class _LeaderAnswer(msgspec.Struct, frozen=True):
    message: _StoredMessage


def _headers_of(block: bytes) -> dict[str, str]:
    """Return the headers of a stored message."""
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


class _PendingGet:
    """Responses to a batched get, until its end."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class StreamFollower:
    """Reads and follows a stream. `live`: subject filter of the messages that announce new entries; empty: all."""

    def __init__(self, nc: Client, stream: str, *, live: str = "") -> None:
        self._nc = nc
        self._stream = stream
        self._live = live
        self._get = f"$JS.API.DIRECT.GET.{stream}"
        self._inbox = nc.new_inbox()
        self._pending_gets: dict[str, _PendingGet] = {}
        self._response_futures = nc.response_futures if isinstance(nc, BusClient) else set()
        self._is_replicated = isinstance(nc, BusClient) and nc.replicas > 1
        """True if copies on other servers answer direct gets, and may lag behind the leader's."""
        self._count = 0
        self._subscription: Subscription | None = None
        self._last = 0
        self._advanced = asyncio.Event()
        self._tail: asyncio.Task[None] | None = None
        self._notified_at = float("-inf")
        self._notified_connection = -1

    def _is_followed(self) -> bool:
        """Return whether the notifying consumer works: it was heard recently, over the present connection."""
        recently = asyncio.get_running_loop().time() - self._notified_at < 2 * _HEARTBEAT_S + 1
        return recently and self._nc.is_connected and self._nc.stats["reconnects"] == self._notified_connection

    async def status(self) -> StreamStatus:
        """Return the state of the stream."""
        return msgspec.json.decode(
            await api.request(self._nc, f"$JS.API.STREAM.INFO.{self._stream}"), type=StreamStatus
        )

    async def bounds(self) -> tuple[int, int]:
        """Return (first, last) sequence present; (last + 1, last) when empty."""
        state = (await self.status()).state
        self.advance(state.last_seq)
        return (state.first_seq if state.messages else state.last_seq + 1), state.last_seq

    async def last(self, subject: str) -> Msg | None:
        """Return the last message of a literal subject."""
        if self._is_replicated:
            return await self._ask_leader({"last_by_subj": subject})
        with api.translate_client_errors(f"last of {subject}"):
            message = await self._nc.request(f"{self._get}.{subject}", b"", timeout=api.TIMEOUT_S)
        return None if self._is_missing(message) else message

    async def fetch(self, after: int, *, limit: int, max_bytes: int) -> list[Msg]:
        """Return the messages after a sequence, oldest first; at least one if there is one."""
        query = {"seq": after + 1, "batch": min(limit, _FETCH_MAX), "max_bytes": min(max_bytes, _FETCH_BYTES_MAX)}
        return await self._batch(query) or await self._confirm_end({"seq": after + 1, "next_by_subj": ">"})

    async def fetch_of(self, subject: str, after: int, *, limit: int) -> list[Msg]:
        """Return the messages of one subject after a sequence, oldest first."""
        query = {"seq": after + 1, "next_by_subj": subject, "batch": min(limit, _FETCH_MAX)}
        messages = await self._batch({**query, "max_bytes": _FETCH_BYTES_MAX})
        return messages or await self._confirm_end({"seq": after + 1, "next_by_subj": subject})

    async def first_since(self, time: int) -> int | None:
        """Return the sequence of the first message stored at or after `time` (µs, of any year)."""
        within = format_timestamp(min(max(time, 0), _STORED_MAX_US))
        if messages := await self._batch({"start_time": within, "batch": 1}):
            return int((messages[0].headers or {})["Nats-Sequence"])
        return await self._first_of_leader(time) if self._is_replicated else None

    async def _first_of_leader(self, time: int) -> int | None:
        """Return the first sequence since a time where a copy, which may lag behind, knows of none."""
        first, newest = await self.bounds()
        result, start, end = None, newest, newest + 1
        while start < end:
            message = await self._ask_leader({"seq": start, "next_by_subj": ">"})
            entry = None if message is None else to_entry(message)
            if entry is not None and entry.time < time:
                first = entry.sequence + 1
            else:
                result, end = result if entry is None else entry.sequence, start
            start = (first + end) // 2
        return result

    async def changed(self, after: int, timeout_s: float) -> bool:
        """Wait until the stream has a message after `after`; return False after `timeout_s`."""
        if self._tail is None:
            self._tail = asyncio.create_task(self._follow(), name=f"tail {self._stream}")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._last <= after:
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                return False
            try:
                # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(min(remaining_s, _POLL_FOLLOWED_S if self._is_followed() else _POLL_S)):
                    await self._advanced.wait()
            except TimeoutError:
                # The server may be unreachable: the caller gets that error when it reads.
                with contextlib.suppress(Unavailable):
                    await self.bounds()
        return True

    def advance(self, sequence: int) -> None:
        """Record that the stream has reached `sequence`; wakes up waiting callers."""
        if sequence > self._last:
            self._last = sequence
            self._advanced.set()
            self._advanced = asyncio.Event()

    async def close(self) -> None:
        """Stop following the stream."""
        if self._tail is not None:
            self._tail.cancel()
            await asyncio.gather(self._tail, return_exceptions=True)
            self._tail = None

    # ── reads of the leader ──────────────────────────────────────────────────────────────────────────

    async def _confirm_end(self, query: Mapping[str, Any]) -> list[Msg]:
        """Return what the leader has where a copy, which may lag behind it, had nothing."""
        message = await self._ask_leader(query) if self._is_replicated else None
        return [] if message is None else [message]

    async def _ask_leader(self, query: Mapping[str, Any]) -> Msg | None:
        """Return a message as the leader of the stream has it; None: it has none."""
        try:
            answer = await api.request(self._nc, f"$JS.API.STREAM.MSG.GET.{self._stream}", query)
        except NotFound:
            return None
        stored = msgspec.json.decode(answer, type=_LeaderAnswer).message
        headers = _headers_of(stored.hdrs)
        headers |= {"Nats-Sequence": str(stored.seq), "Nats-Subject": stored.subject, "Nats-Time-Stamp": stored.time}
        return Msg(self._nc, stored.subject, "", stored.data, headers)

    # ── batched direct get ───────────────────────────────────────────────────────────────────────────

    async def _batch(self, query: Mapping[str, Any]) -> list[Msg]:
        if self._subscription is None:
            with api.translate_client_errors("subscribe"):
                self._subscription = await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_response)
        self._count += 1
        key = str(self._count)
        waiting = self._pending_gets[key] = _PendingGet()
        self._response_futures.add(waiting.done)
        try:
            with api.translate_client_errors(f"read {self._stream}"):
                await self._nc.publish(self._get, json_bytes(query), reply=f"{self._inbox}.{key}")
                async with asyncio.timeout(2 * api.TIMEOUT_S):
                    status = await waiting.done
        finally:
            self._response_futures.discard(waiting.done)
            del self._pending_gets[key]
        if status not in {"204", "404"}:
            self._raise_status(status, waiting.messages)
        return waiting.messages

    async def _on_response(self, message: Msg) -> None:
        waiting = self._pending_gets.get(message.subject.rpartition(".")[2])
        if waiting is None:
            return
        status = (message.headers or {}).get("Status")
        if status is None:
            waiting.messages.append(message)
        elif not waiting.done.done():
            if status not in {"204", "404"}:
                waiting.messages.append(message)
            waiting.done.set_result(status)

    def _is_missing(self, message: Msg) -> bool:
        status = (message.headers or {}).get("Status")
        if status is None:
            return False
        if status != "404":
            self._raise_status(status, [message])
        return True

    def _raise_status(self, status: str, messages: list[Msg]) -> None:
        description = (messages[-1].headers or {}).get("Description", "") if messages else ""
        if status == "503":
            raise Unavailable(f"stream {self._stream} is temporarily unavailable")
        raise EngineError(f"read {self._stream}: {status} {description}")

    # ── following ────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        """Maintain an ephemeral consumer that reports stored messages, without payloads."""
        notified = asyncio.Event()

        async def on_message(message: Msg) -> None:
            notified.set()
            self._notified_at, self._notified_connection = (
                asyncio.get_running_loop().time(),
                self._nc.stats["reconnects"],
            )
            if message.reply.startswith("$JS.ACK."):
                self.advance(int(message.reply.split(".")[5]))
            elif (last := (message.headers or {}).get("Nats-Last-Stream", "")).isdecimal():
                self.advance(int(last))  # a heartbeat: a message before it may have been dropped on its way

        subscription: Subscription | None = None
        while True:
            try:
                with api.translate_client_errors("follow"):
                    if subscription is not None:
                        await subscription.unsubscribe()
                        subscription = None
                    inbox = self._nc.new_inbox()
                    subscription = await self._nc.subscribe(inbox, cb=on_message)
                await self._create_consumer(inbox)
                # Messages stored before the consumer existed.
                await self.bounds()
                while True:
                    notified.clear()
                    async with asyncio.timeout(2 * _HEARTBEAT_S + 1):
                        await notified.wait()
            except TimeoutError:
                continue  # no heartbeat: the consumer is gone (the server was restarted)
            except (Unavailable, EngineError, NotFound, StoreFull):
                await asyncio.sleep(_POLL_S)

    async def _create_consumer(self, inbox: str) -> None:
        config = {
            "deliver_subject": inbox,
            "deliver_policy": "new",
            "ack_policy": "none",
            "replay_policy": "instant",
            "headers_only": True,
            "mem_storage": True,
            "inactive_threshold": 60 * _NS,
            "idle_heartbeat": int(_HEARTBEAT_S * _NS),
            **({"filter_subject": self._live} if self._live else {}),
        }
        body = {"stream_name": self._stream, "config": config}
        await api.request(self._nc, f"$JS.API.CONSUMER.CREATE.{self._stream}", body)
