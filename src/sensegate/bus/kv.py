"""Key-value buckets on JetStream: read, write with an expected revision, load and watch."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api, streams
from sensegate.bus.kv_row import KvRow, KvWrite
from sensegate.bus.names import Token, name_of, token
from sensegate.bus.reader import StreamFollower
from sensegate.errors import Conflict, EngineError, Fenced, Unavailable

_TOMBSTONE_TTL = "168h"
"""Lifetime of tombstones; a process that was disconnected for longer must reload the bucket."""
_WAIT_S = 30.0
_BATCH_S = 30.0


class KvBucket:
    """A key-value bucket; create it with `open`. Keys are text of up to 128 bytes."""

    def __init__(self, nc: Client, name: str) -> None:
        self._nc = nc
        self._stem = f"$KV.{name}."
        self._reader = StreamFollower(nc, f"KV_{name}")

    @classmethod
    async def open(cls, nc: Client, name: str, *, bytes_max: int) -> KvBucket:
        """Create the bucket unless it exists; `name`: letters, digits, - and _; `nc`: client of `User.GATEWAY`."""
        await streams.ensure(
            nc,
            {
                "name": f"KV_{token(name)}",
                "subjects": [f"$KV.{token(name)}.>"],
                "retention": "limits",
                "storage": "file",
                "discard": "new",
                "max_bytes": bytes_max,
                "max_age": 0,
                "max_msgs": -1,
                "max_msgs_per_subject": 1,
                "allow_atomic": True,
                "allow_direct": True,
                "allow_rollup_hdrs": True,
                "allow_msg_ttl": True,
                "deny_delete": True,
            },
        )
        return cls(nc, name)

    async def get(self, key: str) -> KvRow | None:
        """Return the row of a key; None where it does not exist or was deleted."""
        row = await self._last(key)
        return None if row is None or row.value is None else row

    async def tombstone_revision(self, key: str) -> int:
        """Return the revision of a key's tombstone, to expect when it is created again; 0: it has none."""
        row = await self._last(key)
        return 0 if row is None or row.value is not None else row.revision

    async def _last(self, key: str) -> KvRow | None:
        message = await self._reader.last(self._stem + token(key))
        return None if message is None else self._row(message)

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        """Write the value of a key; return its revision.

        `expected`: the revision that the key must have now (0: it must not exist); None writes unconditionally.

        Raises:
            Conflict: the key has another revision.
            StoreFull: the bucket or disk is full. Unavailable: the outcome is unknown.
        """
        return await self._publish(key, value, {}, expected)

    async def put_all(self, writes: Sequence[KvWrite]) -> list[int]:
        """Write several keys, all or none (at most 1,000); return their revisions.

        Raises: as `put`.
        """
        batch, final = secrets.token_hex(8), len(writes)
        operation = f"write of {final} keys"
        if not writes:
            return []
        if not self._nc.is_connected:
            raise Unavailable(f"{operation}: not connected; nothing was sent")
        with api.translate_client_errors(operation):
            # Only the last message asks for a response, which is for all of them: they are synced to disk together.
            for number, write in enumerate(writes, 1):
                headers = {
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(number),
                    "Nats-Expected-Last-Subject-Sequence": str(write.expected),
                }
                subject = self._stem + token(write.key)
                if number < final:
                    await self._nc.publish(subject, write.value, headers=headers)
                    continue
                headers["Nats-Batch-Commit"] = "1"
                reply = await self._nc.request(subject, write.value, timeout=_BATCH_S, headers=headers)
        response = msgspec.json.decode(reply.data, type=api.ApiResponse)
        if response.error:
            try:
                api.raise_api_error(response.error, operation)
            except Fenced as why:
                raise Conflict("one of the keys was changed meanwhile; read them again") from why
        if response.count != final:
            raise EngineError(f"{operation}: the server stored {response.count}; is allow_atomic of the bucket off?")
        self._reader.advance(response.seq)
        return list(range(response.seq - final + 1, response.seq + 1))

    async def delete(self, key: str, *, expected: int | None = None) -> int:
        """Delete a key; return the revision of its tombstone, to expect when it is created again."""
        return await self._publish(key, b"", {"KV-Operation": "DEL", "Nats-TTL": _TOMBSTONE_TTL}, expected)

    async def load_all(self) -> tuple[list[KvRow], int]:
        """Return all existing rows in order of revision, and the revision from which to `watch`."""
        present: dict[str, KvRow] = {}
        after = 0
        while rows := await self.changes(after):
            for row in rows:
                present.pop(row.key, None)
                if row.value is not None:
                    present[row.key] = row
            after = rows[-1].revision
        return list(present.values()), after

    async def changes(self, after: int, *, limit: int = 1000) -> list[KvRow]:
        """Return the rows changed after a revision, including deletions, each in its newest state."""
        messages = await self._reader.fetch(after, limit=limit, max_bytes=4 * 1024**2)
        return [self._row(message) for message in messages]

    async def watch(self, after: int) -> AsyncIterator[list[KvRow]]:
        """Yield changes after a revision, in order, without end. Raises `Unavailable` if the server does not respond.

        The caller then continues with a new `watch` from the last revision that it received.
        """
        while True:
            rows = await self.changes(after)
            if rows:
                after = rows[-1].revision
                yield rows
            else:
                await self._reader.changed(after, _WAIT_S)

    async def close(self) -> None:
        """Stop following."""
        await self._reader.close()

    async def _publish(self, key: str, value: bytes, headers: dict[str, str], expected: int | None) -> int:
        if expected is not None:
            headers = {**headers, "Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            answer = await api.request(self._nc, self._stem + token(key), value, headers=headers or None)
        except Fenced as why:
            raise Conflict(f"{key}: was changed meanwhile; read it again") from why
        revision = msgspec.json.decode(answer, type=api.ApiResponse).seq
        self._reader.advance(revision)
        return revision

    def _row(self, message: Msg) -> KvRow:
        headers = message.headers or {}
        gone = headers.get("KV-Operation") in {"DEL", "PURGE"}
        subject = headers["Nats-Subject"]
        return KvRow(
            name_of(Token(subject.removeprefix(self._stem))),
            None if gone else message.data,
            int(headers["Nats-Sequence"]),
        )
