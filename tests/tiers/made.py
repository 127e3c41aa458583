"""A node's log made by hand, a centre that fails on demand, and what must hold at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
import numpy as np

from sensegate.bus import columns
from sensegate.bus.batch import Batch, Origins, WordColumn
from sensegate.bus.commit_records import encode_commit
from sensegate.bus.contract import Log
from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US, Clock, FakeClock
from sensegate.config import StoreConfig
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.model import CommitRecord, LogMessage
from sensegate.quantities.quality import Flag
from sensegate.tiers.judging import Judge
from sensegate.tiers.receiver import MemberChecks, Receiver
from sensegate.tiers.refused_store import RefusedBodyCipher
from sensegate.tiers.span import LEDGER_SOURCE
from sensegate.tiers.verdict import MemberFacts, Rules
from sensegate.tiers.writers import WriterState

NODE = "4401"
GRADES = (1, 2, 4)
"""Of device 0, 1, 2; with `grade_max` 3 the last one's readings are withheld."""


def batch_of(device: int, rows: int, now: int, *, alarm: bool = False) -> Batch:
    """Readings of one device, a millisecond apart."""
    words, place = WordColumn.of(["x"]), WordColumn.of(["440106"])
    return Batch(
        NODE,
        0,
        Origins(
            [f"d{device}"],
            place,
            words,
            words,
            words,
            np.array([113.3]),
            np.array([23.1]),
            np.array([GRADES[device]], np.uint8),
        ),
        ["air_temperature"],
        np.zeros(rows, np.uint32),
        np.zeros(rows, np.uint16),
        now + np.arange(rows, dtype=np.int64) * 1_000,
        now // 1_000 * 1_000 + np.zeros(rows, np.int64),
        np.arange(rows, dtype=np.float64) + now % 1_000_003,
        {},
        np.zeros(rows, np.uint8),
        np.full(rows, Flag.ALARM if alarm else 0, np.uint32),
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.int64),
        np.arange(rows, dtype=np.uint32),
    )


class Node:
    """Commits as `persist` writes them."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self.log = log
        self.clock = clock
        self.number = 0
        self.ledger = Ledger()

    async def commit(self, parts: Sequence[tuple[int, int]], *, alarm: bool = False) -> int:
        """Commit (device, rows) each; return the log's last sequence."""
        self.number += 1
        members, counts = [LogMessage("raw.4401-0", b"raw" * 10, 72)], Ledger()
        now = self.clock.now()
        for device, rows in parts:
            if rows:
                batch = batch_of(device, rows, now + self.number * 100_000, alarm=alarm)
                members.append(LogMessage(f"readings.4401.440106.{GRADES[device]}", columns.encode(batch), 168))
            for kind, count in (("messages", rows), ("decoded", rows), ("values", rows), ("accepted", rows)):
                if count:
                    counts.add(now // HOUR_US, f"d{device}", "mqtt", kind, count)
        totals = Ledger()
        totals.merge(self.ledger)
        totals.merge(counts)
        record = CommitRecord(f"n{self.number}", self.number, now, {}, totals.totals())
        members.append(LogMessage("ledger.4401-0", counts.encode(), 168))
        members.append(LogMessage("commit.4401-0", encode_commit(record), rollup=True))
        self.ledger.merge(counts)
        return await self.log.write(members)


class Owners:
    """Every device is the member's own, but for some."""

    def __init__(self) -> None:
        self.foreign: set[str] = set()

    def owner(self, device: str) -> str:
        """Return the owner of a device."""
        return "4403" if device in self.foreign else NODE

    def may_send(self, member: str, device: str) -> bool:
        """Return whether a member may send rows of a device."""
        return self.owner(device) == member

    def room(self, _member: str) -> int:
        """Return how many devices more a member may own."""
        return 1_000


class Centre:
    """A centre's receiver over a log in memory, and the link to it: requests and answers get lost.

    `fault` of the next request: ``before`` (it does not arrive), ``after`` (its answer is lost), ``late`` (it arrives
    when `land` is called), ``down`` (nobody answers), ``unsure`` (the centre itself does not know what it wrote).
    """

    def __init__(self, log: MemoryLog, clock: Clock, *, request_bytes_max: int = 2**20) -> None:
        self.log = log
        self.clock = clock
        self.payload_bytes_max = request_bytes_max
        """Largest body of a request."""
        self.owners = Owners()
        self.areas: tuple[str, ...] = ("4401",)
        self.alive: set[str] = set()
        self.fault = ""
        self.late: list[bytes] = []
        self.sent: list[bytes] = []
        self.vault = RefusedBodyCipher(bytes(32))
        self.receiver = self.fresh()

    def fresh(self, log_share: float = 1.0) -> Receiver:
        """Return a receiver as of a new process."""
        self.receiver = Receiver(
            self.log,
            Judge(lambda member: MemberFacts(member, member, self.areas), Rules(self.owners, lambda _name, _dep: 1)),
            self.clock,
            StoreConfig(),
            log_share=log_share,
            members=MemberChecks(self.probe),
            cipher=self.vault,
        )
        return self.receiver

    async def probe(self, _member: str, token: str) -> bool:
        """Return whether a process answers."""
        return token in self.alive

    async def ask(self, question: str, payload: bytes = b"", timeout_s: float = 10.0) -> bytes:
        """Return the answer to a question."""
        del timeout_s
        await asyncio.sleep(0)
        if self.fault == "down":
            self.fault = ""
            raise Unavailable("down")
        handlers = {
            "position": self.receiver.position,
            "claim": self.receiver.claim,
            "refused": self.receiver.refused,
        }
        return await handlers[question](NODE, payload)

    async def send_span(self, lane: str, payload: bytes, timeout_s: float = 10.0) -> bytes:
        """Return the answer to a span."""
        del lane, timeout_s
        fault, self.fault = self.fault, ""
        self.sent.append(payload)
        if fault == "late":
            self.late.append(payload)
            raise Unavailable("on its way")
        if fault in {"before", "down"}:
            raise Unavailable("lost on its way")
        if fault == "unsure":
            self.log.fail_next_write(written=True)
        try:
            answer = await self.receiver.span(NODE, payload)
        finally:
            self.log._failure_pending = None  # of a span that was refused, it would hit the write of another one
        if fault == "after":
            raise Unavailable("its answer was lost")
        return answer

    async def land(self) -> None:
        """Let what is on its way arrive."""
        for payload in self.late:
            with contextlib.suppress(Unavailable, PermissionDenied):
                await self.receiver.span(NODE, payload)
        self.late.clear()


class MemoryKeeper:
    """A store's state of its claims, in memory."""

    def __init__(self, state: WriterState | None = None) -> None:
        self.state = state

    async def read(self) -> WriterState | None:
        """Return the state."""
        return self.state

    async def write(self, state: WriterState) -> None:
        """Keep the state."""
        self.state = state

    def copy(self) -> MemoryKeeper:
        """Return what a copied machine has."""
        return MemoryKeeper(self.state)


async def drive(clock: FakeClock, step: Coroutine[Any, Any, Any]) -> Any:
    """Run a step to its end, moving the clock on whenever it sleeps."""
    task = asyncio.ensure_future(step)
    while not task.done():
        for _ in range(5):
            await asyncio.sleep(0)
        if not task.done():
            await clock.advance(0.05)
    return task.result()


class Rows(msgspec.Struct):
    """Readings found in a log, in its order."""

    ids: list[str] = []
    values: dict[str, tuple[int, float]] = {}
    flags: dict[str, int] = {}
    devices: dict[str, str] = {}


async def rows_of(log: Log, *, shared_only: bool = False) -> Rows:
    """Return every reading of a log."""
    rows = Rows([], {}, {}, {})
    after = 0
    while entries := await log.fetch(after):
        for entry in entries:
            after = entry.sequence
            if not entry.subject.startswith("readings."):
                continue
            if shared_only and int(entry.subject.rpartition(".")[2]) > 3:
                continue
            batch = columns.decode(entry.payload, sequence=entry.sequence)
            for row in range(len(batch)):
                name = batch.record_id(row)
                rows.ids.append(name)
                rows.values[name] = (int(batch.time[row]), float(batch.value[row]))
                rows.flags[name] = int(batch.flags[row])
                rows.devices[name] = batch.origins.device[int(batch.origin[row])]
    return rows


async def check(node: Node, centre: Log) -> None:
    """Nothing lost, nothing doubled, nothing altered, order kept or marked, the ledger equal."""
    sent, got = await rows_of(node.log, shared_only=True), await rows_of(centre)
    doubled = [name for name, count in Counter(got.ids).items() if count > 1]
    assert not doubled, f"doubled: {doubled}"
    assert set(got.ids) == set(sent.ids), "lost or made up"
    assert got.values == sent.values
    latest: dict[str, int] = {}
    for name in got.ids:
        if not got.flags[name] & Flag.BACKLOG:
            assert latest.get(got.devices[name], 0) <= got.values[name][0], "out of order without a mark"
            latest[got.devices[name]] = got.values[name][0]
    up = Ledger()
    after = 0
    while entries := await centre.fetch(after):
        for entry in entries:
            after = entry.sequence
            if entry.subject == f"ledger.{NODE}":
                up.merge(Ledger.decode(entry.payload))
    up.check()
    own = {(row.hour, row.device, row.kind): row.count for row in up.rows() if row.source != LEDGER_SOURCE}
    assert own == {(row.hour, row.device, row.kind): row.count for row in node.ledger.rows()}
    accepted: Counter[tuple[int, str]] = Counter()
    for row in up.rows():
        if row.kind == "accepted":
            accepted[row.hour, row.device] += row.count
        if row.source == LEDGER_SOURCE:
            accepted[row.hour, row.device] -= row.count
    assert not +accepted, "accepted and neither forwarded nor withheld"
    assert not -accepted, "more forwarded than accepted"
