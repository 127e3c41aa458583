"""The lease of a node's committer on a cluster: one gateway commits, others of the same node stand by.

    await_lease() ─▶ stands by, keeps its deduplication index near the end of the log ─▶ takes the lease
    flow.run with it ─▶ renews it ─▶ another gateway has taken it: `Superseded`, and it stands by again

The lease decides who tries; it does not protect the log. That is done by the expected sequence of the commit record: a
gateway that was replaced and does not know it yet is refused by the log. So a standby need not wait for the end of the
lease where the holder's connection is gone; only a holder that is silent, which may be on its way, is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.authority.divisions import Divisions
from sensegate.authority.index import DeviceIndex, unchanged
from sensegate.authority.slots import node_slots
from sensegate.bus import api, streams, timelines
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import KvBucket
from sensegate.bus.log import JetStreamLog
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import Conflict, EngineError, NotFound, StoreFull, Superseded, Unavailable
from sensegate.persist.commit import Committer, CommitWriter
from sensegate.persist.duplicates import Deduplicator

BUCKET, KEY = "lease", "committer"
RENEW_S = 1.0
LEASE_S = 12.0
"""A silent holder is replaced after this time without a renewal; an election of the servers may take 9 s of it."""
ABSENT_S = 1.0
"""A holder without a connection is replaced after this time; it reconnects to another server sooner."""
POLL_S = 0.25
PRESENCE_S = 0.5
WARM_S = 15.0
"""Interval at which a standby brings its deduplication index to the end of the log."""
SHARED_FILES = ("audit.key", "statements.key", "masks.key", "video.keys", "viid.key", "ca.key", "refused.key")
"""Generated keys in a gateway's directory that must be the same at all gateways of a node."""

_log = structlog.get_logger("failover")


class LeaseRow(msgspec.Struct, frozen=True):
    """The lease as it is stored."""

    token: str = ""
    """Random token of the process that holds it; empty: nobody does."""
    host: str = ""
    since: int = 0
    """Time when the lease was taken, µs UTC."""
    files: Mapping[str, str] = {}
    """Shared file -> digest, as the holder has it."""
    format: int = 1


_decode = msgspec.json.Decoder(LeaseRow).decode


class HolderWatch:
    """Decides, by a monotonic clock, when the holder of a lease may be replaced."""

    def __init__(self) -> None:
        self._revision = -1
        self._changed_at = 0.0
        self._absent_since: float | None = None

    def observe(self, revision: int, now_s: float, *, absent: bool) -> bool:
        """Record what was seen of the holder; return whether it may be replaced.

        Call `interrupt` where nothing could be seen.

        Args:
            revision: of the lease.
            now_s: monotonic time.
            absent: whether the servers know that the holder has no connection.
        """
        if revision != self._revision:
            self._revision, self._changed_at, self._absent_since = revision, now_s, None
        if not absent:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now_s
        gone = self._absent_since is not None and now_s - self._absent_since >= ABSENT_S
        return gone or now_s - self._changed_at >= LEASE_S

    def interrupt(self) -> None:
        """Record that the lease could not be read or taken: nor could the holder renew it, so the time begins anew."""
        self._revision, self._absent_since = -1, None


class CommitterLease:
    """The lease of this process, once `take` has succeeded; `hold` renews it."""

    def __init__(self, bucket: KvBucket, connection: Client, clock: Clock, directory: Path) -> None:
        self._bucket = bucket
        self._connection = connection
        self._clock = clock
        self._directory = directory
        self._revision = 0
        self._stack = contextlib.AsyncExitStack()
        self._row = LeaseRow(secrets.token_hex(8), socket.gethostname())
        self._differing: tuple[str, ...] = ()

    def close_with(self, stack: contextlib.AsyncExitStack) -> None:
        """Close these connections too when the lease is closed."""
        self._stack = stack

    def warnings(self) -> list[str]:
        """Return which keys differ from those of the gateway that had the lease before."""
        if not self._differing:
            return []
        names = ", ".join(self._differing)
        return [f"standby: {names} differ from the gateway that was active before; copy them from it, and restart"]

    async def take(self, present: LeaseRow, revision: int) -> bool:
        """Take the lease, which has this revision now; return whether it is ours.

        Raises:
            Unavailable: the outcome is unknown; if it is ours, the next look at the lease says so.
        """
        files = await asyncio.to_thread(digests, self._directory, SHARED_FILES)
        row = msgspec.structs.replace(self._row, since=self._clock.now(), files=files)
        try:
            self._revision = await self._bucket.put(KEY, msgspec.json.encode(row), expected=revision)
        except Conflict:
            return False
        self._row = row
        self._differing = tuple(name for name, digest in present.files.items() if files.get(name) != digest)
        with api.translate_client_errors("presence"):
            await self._connection.subscribe(presence_subject(row.token), cb=_answer_presence)
        return True

    def is_own(self, row: LeaseRow) -> bool:
        """Return whether a lease is ours."""
        return row.token == self._row.token

    async def hold(self) -> None:
        """Renew the lease until cancelled. Raises `Superseded` when another gateway has taken it."""
        while True:
            await self._clock.sleep(RENEW_S)
            with contextlib.suppress(Unavailable, StoreFull):  # a cluster without a majority gives it to nobody
                await self._renew()

    async def _renew(self) -> None:
        try:
            self._revision = await self._bucket.put(KEY, msgspec.json.encode(self._row), expected=self._revision)
        except Conflict as why:
            row = await self._bucket.get(KEY)
            stored = _decode(row.value) if row and row.value else LeaseRow()
            if row is None or not self.is_own(stored):
                raise Superseded(f"{stored.host or 'another gateway'} has taken the lease of the committer") from why
            self._revision = row.revision  # the renewal before had succeeded without an answer

    async def close(self) -> None:
        """Give the lease back, so that a standby takes it at once, and close the connections."""
        with contextlib.suppress(Conflict, Unavailable, StoreFull):
            released = LeaseRow(host=self._row.host, since=self._clock.now(), files=self._row.files)
            await self._bucket.put(KEY, msgspec.json.encode(released), expected=self._revision)
        await self._stack.aclose()


async def _answer_presence(message: Msg) -> None:
    with contextlib.suppress(Unavailable), api.translate_client_errors("presence"):
        await message.respond(b"")


def presence_subject(token: str) -> str:
    """Return the subject on which the holder of a lease answers while it is connected."""
    return f"lease.present.{token}"


def digests(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Return file -> digest of those files in a directory that exist."""
    by_name: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            by_name[name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()[:16]
    return by_name


async def await_lease(config: Config, clock: Clock) -> CommitterLease:
    """Stand by until no other gateway of this node holds the lease; return it. Raises `EngineError`, `ConfigError`."""
    async with contextlib.AsyncExitStack() as stack:
        engine = Engine.of(config, clock, slots=node_slots(config))
        await engine.start()
        stack.push_async_callback(engine.stop)
        connection = await engine.connect(User.GATEWAY, name="lease")
        stack.push_async_callback(connection.close)
        bucket = await _open_bucket(connection, config, clock)
        stack.push_async_callback(bucket.close)
        lease = CommitterLease(bucket, connection, clock, Path(config.directory))
        await _Standby(config, clock, connection, bucket, lease).run()
        lease.close_with(stack.pop_all())
        return lease


async def _open_bucket(connection: Client, config: Config, clock: Clock) -> KvBucket:
    while True:
        try:
            return await KvBucket.open(connection, BUCKET, bytes_max=config.store.registry_bytes)
        except Unavailable as why:
            _log.warning("cluster not available; waiting for it", reason=str(why))
            await clock.sleep(POLL_S)


class _Standby:
    """A gateway that waits for the lease."""

    def __init__(
        self, config: Config, clock: Clock, connection: Client, bucket: KvBucket, lease: CommitterLease
    ) -> None:
        self._config = config
        self._clock = clock
        self._connection = connection
        self._bucket = bucket
        self._lease = lease
        self._reported = ""

    async def run(self) -> None:
        """Return once the lease is ours."""
        watch = HolderWatch()
        warm = asyncio.create_task(self._keep_warm(), name="standby index")
        try:
            while not await self._try(watch):
                await self._clock.sleep(POLL_S)
        finally:
            warm.cancel()
            await asyncio.gather(warm, return_exceptions=True)

    async def _try(self, watch: HolderWatch) -> bool:
        try:
            row = await self._bucket.get(KEY)
            revision = row.revision if row else await self._bucket.tombstone_revision(KEY)
            present = _decode(row.value) if row and row.value else LeaseRow()
            may_take = not present.token or self._lease.is_own(present)
            if not may_take:
                self._report(present)
                absent = await self._is_absent(present)
                may_take = watch.observe(revision, self._clock.monotonic(), absent=absent)
            if may_take and await self._lease.take(present, revision):
                if present.token:
                    _log.warning("this gateway is active now: the one before is gone", before=present.host)
                return True
        except Unavailable as why:
            watch.interrupt()
            _log.debug("lease not read", reason=str(why))
        return False

    def _report(self, present: LeaseRow) -> None:
        if present.token != self._reported:
            self._reported = present.token
            _log.info("standing by: another gateway of this node is active", host=present.host)

    async def _is_absent(self, present: LeaseRow) -> bool:
        """Return whether the servers know that the holder has no connection; False where that is unknown."""
        try:
            await self._connection.request(presence_subject(present.token), b"", timeout=PRESENCE_S)
        except nats.errors.NoRespondersError:
            return True
        except (nats.errors.Error, TimeoutError, OSError):
            return False
        return False

    async def _keep_warm(self) -> None:
        """Keep the deduplication index of this machine near the end of the log: a take-over reads only the rest."""
        while True:
            try:
                await self._warm()
            except (Unavailable, StoreFull, NotFound, EngineError) as why:
                _log.info("deduplication index of the standby not renewed; trying again", reason=str(why))
            await self._clock.sleep(WARM_S)

    async def _warm(self) -> None:
        config, directory = self._config, Path(self._config.directory)
        await streams.created_at(self._connection, streams.LOG)  # a node that never ran has no log
        log = JetStreamLog(self._connection)
        await log.open(directory)
        duplicates = Deduplicator(
            directory / "duplicates",
            clock=self._clock,
            horizon_h=config.duplicates.horizon_h,
            device_id=_no_device,
        )
        try:
            if await timelines.follow(log):
                index = DeviceIndex(await asyncio.to_thread(Divisions.load), unchanged)
                committer = Committer(log, duplicates, index, (), self._clock, writer=CommitWriter(config.member_id))
                await committer.follow()
        finally:
            await asyncio.to_thread(duplicates.close)
            await log.close()


def _no_device(_number: int) -> str:
    raise LookupError("a standby judges nothing")
