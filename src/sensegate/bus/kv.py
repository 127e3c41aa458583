"""Key-value buckets: all in memory at run time, changes seen by every process within a second."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api, streams
from sensegate.bus.kv_row import Row
from sensegate.bus.names import Token, name_of, token
from sensegate.bus.reader import Reader
from sensegate.errors import Conflict, Fenced

_TOMBSTONE_TTL = "168h"
"""A process that was away longer loads everything anew."""
_WAIT_S = 30.0


class Bucket:
    """One bucket, opened with `open`. Keys are any text of up to 128 bytes."""

    def __init__(self, nc: Client, name: str) -> None:
        self._nc = nc
        self._stem = f"$KV.{name}."
        self._reader = Reader(nc, f"KV_{name}")

    @classmethod
    async def open(cls, nc: Client, name: str, *, bytes_max: int) -> Bucket:
        """Make the bucket unless it is there; `name` is letters, digits, `-` and `_`; `nc` of `User.GATEWAY`."""
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
                "num_replicas": 1,
                "allow_direct": True,
                "allow_rollup_hdrs": True,
                "allow_msg_ttl": True,
                "deny_delete": True,
            },
        )
        return cls(nc, name)

    async def get(self, key: str) -> Row | None:
        """Return the row of a key, None if it is not there or deleted."""
        row = await self._last(key)
        return None if row is None or row.value is None else row

    async def absence(self, key: str) -> int:
        """Return the revision of a key's absence: the one to expect when it is made; 0: it is there, or never was."""
        row = await self._last(key)
        return 0 if row is None or row.value is not None else row.revision

    async def _last(self, key: str) -> Row | None:
        message = await self._reader.last(self._stem + token(key))
        return None if message is None else self._row(message)

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        """Write a key; return its revision.

        `expected` is the revision that it must have now (0: it must not be there); None writes in any case.

        Raises:
            Conflict: it has another revision.
            StoreFull: no room. Unavailable: the outcome is unknown.
        """
        return await self._publish(key, value, {}, expected)

    async def delete(self, key: str, *, expected: int | None = None) -> int:
        """Delete a key; return the revision of its absence (the one to expect when it is made again)."""
        return await self._publish(key, b"", {"KV-Operation": "DEL", "Nats-TTL": _TOMBSTONE_TTL}, expected)

    async def load_all(self) -> tuple[list[Row], int]:
        """Return all present rows in order of revision, and the revision from which to `watch`."""
        present: dict[str, Row] = {}
        after = 0
        while rows := await self.changes(after):
            for row in rows:
                present.pop(row.key, None)
                if row.value is not None:
                    present[row.key] = row
            after = rows[-1].revision
        return list(present.values()), after

    async def changes(self, after: int, *, limit: int = 1000) -> list[Row]:
        """Return the rows changed after a revision, the newest state of each, deletions too."""
        messages = await self._reader.fetch(after, limit=limit, max_bytes=4 * 1024**2)
        return [self._row(message) for message in messages]

    async def watch(self, after: int) -> AsyncIterator[list[Row]]:
        """Yield each change after a revision, in order, without end; raises `Unavailable` while the server is away.

        The caller goes on with a new `watch` from the last revision it saw.
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
            answer = await api.call(self._nc, self._stem + token(key), value, headers=headers or None)
        except Fenced as why:
            raise Conflict(f"{key}: changed meanwhile; read it again") from why
        revision = msgspec.json.decode(answer, type=api.Answer).seq
        self._reader.advance(revision)
        return revision

    def _row(self, message: Msg) -> Row:
        headers = message.headers or {}
        gone = headers.get("KV-Operation") in {"DEL", "PURGE"}
        subject = headers["Nats-Subject"]
        return Row(
            name_of(Token(subject.removeprefix(self._stem))),
            None if gone else message.data,
            int(headers["Nats-Sequence"]),
        )
