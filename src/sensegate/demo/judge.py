"""Judge of a demo run: readings lost, duplicated, invented, altered or out of order. Independent of the gateway's code.

It imports the standard library and aiohttp only, and reads two things: the simulators' files (messages about to be
sent, and acknowledgements) and the feeds over HTTP, each by its own cursor (a *tap*).

The simulators' files (`*.ledger`) are append-only lines of words separated by spaces, times in µs UTC:

    D device                                  a device of the simulator; of others it is only known that a reading
                                              must not come twice
    C device                                  a camera of the simulator: its reports are objects, which are counted
    I rid t kind node device time of values   about to be sent (written before sending)
    A rid t                                   PUBACK received
    R rid t                                   sent again after a lost connection
    U rid t reason                            given up: may or may not appear
    E t                                       the last line

`of` is the rid whose reading this one repeats or contradicts, or ``-``. `values` are separated by ``;``: ``name=value``
must arrive, ``name~value`` may, ``name!value`` must not; the value is JSON without blanks. A JSON object matches a
record whose value is JSON with at least those members. ``-``: none.

Verdicts per tap; all must be 0:

    lost        acknowledged, but missing
    doubled     a reading delivered twice (under any cursor or id)
    phantom     a reading that was never sent
    corrupt     device, property and time match, the value differs
    disordered  older than a preceding reading of its series (including its channel) without a flag late, backlog,
    conflict unmarked    a late, future or conflicting reading without its flag
    leaked      a refused reading, one of another node, or one that contains the secret word `CANARY_WORD`

Objects of cameras must balance: acknowledged = delivered + duplicates + refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import aiohttp

VERDICTS = ("lost", "doubled", "phantom", "corrupt", "disordered", "unmarked", "leaked")
REQUIRED_FLAGS = {"late": {"late", "stale"}, "future": {"future"}, "conflict": {"conflict"}}
"""Kind of an intent -> flags, of which the record must carry one."""
OUT_OF_ORDER_FLAGS = {"late", "stale", "backlog", "conflict"}
"""Flags of readings that may be older than the preceding one."""
SAMPLES_MAX = 20
POLL_S = 0.05
CANARY_WORD = "CANARY"
"""Contained in every name and number plate that the simulated cameras send."""
DUPLICATE_KINDS = {"redelivery", "repeat"}
LATENCIES_MAX = 200_000
MANUAL_MAX = 100_000
"""Most readings sent by hand that are remembered, in each tap."""


class ExpectedReading:
    """A value about to be sent, and where it was delivered."""

    __slots__ = ("acknowledged", "ids", "intended_at", "message", "property", "requirement", "value")

    def __init__(self, message: SentMessage, name: str, requirement: str, value: object, taps: int) -> None:
        self.message = message
        self.property = name
        self.requirement = requirement
        self.value = value
        self.acknowledged = False
        self.ids: list[str | None] = [None] * taps

    def equals(self, value: object) -> bool:
        """Return whether a record's value is the one that was sent."""
        if isinstance(self.value, dict):
            document = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
            return isinstance(document, dict) and all(
                document.get(name) == member for name, member in self.value.items()
            )
        if isinstance(self.value, (bool, str)) or isinstance(value, (bool, str)):
            return self.value == value
        if isinstance(self.value, (int, float)) and isinstance(value, (int, float)):
            return math.isclose(self.value, value, rel_tol=1e-9, abs_tol=1e-9)
        return False


class SentMessage:
    """A message about to be sent."""

    __slots__ = ("device", "intended_at", "kind", "missing", "node", "readings", "rid")

    def __init__(self, rid: str, at: int, kind: str, node: str, device: str) -> None:
        self.rid = rid
        self.intended_at = at
        self.kind = kind
        self.node = node
        self.device = device
        self.readings: list[ExpectedReading] = []
        self.missing: list[int] = []
        """Per tap: number of required readings not yet seen."""


@dataclass(slots=True)
class FeedTap:
    """An observed feed."""

    name: str
    url: str
    feed: str
    token: str
    node: str = ""
    """Node of which readings are expected; empty: all nodes."""
    index: int = 0
    records: int = 0
    matched: int = 0
    objects: int = 0
    """Matched records that are objects of cameras."""
    attempts_failed: int = 0
    outstanding: int = 0
    """Number of messages with readings still missing here."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    samples: list[str] = field(default_factory=list)
    manual: set[str] = field(default_factory=set)
    """Ids of readings of devices that are not the simulator's."""
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    """(device, property) -> newest phenomenon time seen."""
    seen_intended_at: int = 0
    """Latest intent time among the readings seen: how fresh the tap is."""
    seen_by_node: dict[str, int] = field(default_factory=dict)
    """The same by node."""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_MAX))
    live_latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_MAX))

    def add_finding(self, verdict: str, detail: str) -> None:
        """Count a verdict and keep an example of it."""
        self.counts[verdict] += 1
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(f"{verdict}: {detail}")


def to_us(text: str) -> int:
    """Return µs since 1970 of ``2026-01-01T00:00:00[.ffffff]Z``."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    stamp = _SECONDS.get(head)
    if stamp is None:
        # Many readings share a second: parsing it once keeps the judge fast enough.
        parsed = time.strptime(head + "+0000", "%Y-%m-%dT%H:%M:%S%z")
        stamp = int(_calendar(parsed))
        if len(_SECONDS) > 100_000:
            _SECONDS.clear()
        _SECONDS[head] = stamp
    return stamp * 1_000_000 + int(f"{fraction:0<6}"[:6])


def _calendar(parsed: time.struct_time) -> int:
    from calendar import timegm  # noqa: PLC0415 - used once a second

    return timegm(parsed)


_SECONDS: dict[str, int] = {}


class FeedJudge:
    """Comparison of sent and delivered readings. Pure: lines and records in, counts out."""

    def __init__(self, taps: list[FeedTap], *, forget_s: float = 900.0) -> None:
        self.taps = taps
        for index, tap in enumerate(taps):
            tap.index = index
        self.forget_us = round(forget_s * 1e6)
        self.devices: set[str] = set()
        self.cameras: set[str] = set()
        self.objects = dict.fromkeys(("acknowledged", "duplicates", "refused"), 0)
        """Objects of cameras, including counts and states."""
        self.by_hand = 0
        """Records of devices that are not the simulator's."""
        self.messages: dict[str, SentMessage] = {}
        self.by_time: dict[tuple[str, int], list[ExpectedReading]] = {}
        self.order: deque[tuple[str, int, SentMessage]] = deque()
        """Intents in order of time, dropped once complete: a run may last for days."""
        self.intended = 0
        self.acknowledged = 0
        self.resent = 0
        self.given_up = 0
        self.readings = 0
        self.message_kinds: dict[str, int] = {}
        self.value_kinds: dict[str, int] = {}
        self.pending: dict[str, int] = {}
        """Node -> number of unacknowledged messages."""
        self.forgotten = 0
        self.ended = 0

    # ── the simulator's files ────────────────────────────────────────────────────────────────────────

    def read_line(self, text: str) -> None:
        """Process one line of a simulator's file."""
        words = text.split(" ")
        match words[0]:
            case "I":
                self._intend(words)
            case "A":
                self._acknowledge(words[1])
            case "D":
                self.devices.add(words[1])
            case "C":
                self.devices.add(words[1])
                self.cameras.add(words[1])
            case "R":
                self.resent += 1
            case "U":
                self._give_up(words[1])
            case "E":
                self.ended += 1

    def _intend(self, words: list[str]) -> None:
        _, rid, at, kind, node, device, when, of, values = words
        sent = SentMessage(rid, int(at), kind, node, device)
        origin = self.messages.get(of) if of != "-" else None
        place = (device, int(when))
        at_place = self.by_time.get(place)
        if at_place is None and values != "-":
            at_place = self.by_time[place] = []
        known = {id(reading): reading for reading in (*(origin.readings if origin else ()), *(at_place or ()))}
        count = 0
        if values != "-" and at_place is not None:
            for text in values.split(";"):
                name, need, value = _split(text)
                reading = next((r for r in known.values() if r.property == name and r.equals(value)), None)
                if reading is None:
                    reading = ExpectedReading(sent, name, need, value, len(self.taps))
                    self.readings += need == "="
                if all(reading is not other for other in at_place):
                    at_place.append(reading)
                sent.readings.append(reading)
                count += 1
        self.messages[rid] = sent
        self.order.append((device, place[1], sent))
        self.intended += 1
        self.message_kinds[kind] = self.message_kinds.get(kind, 0) + 1
        self.value_kinds[kind] = self.value_kinds.get(kind, 0) + count
        self.pending[node] = self.pending.get(node, 0) + 1
        for tap in self.taps:
            required = [r for r in sent.readings if r.message is sent and r.requirement == "="]
            left = len(required) if not tap.node or tap.node == node else 0
            sent.missing.append(left)
            tap.outstanding += left > 0

    def _acknowledge(self, rid: str) -> None:
        sent = self.messages.get(rid)
        if sent is None:
            return
        self.acknowledged += 1
        self.pending[sent.node] -= 1
        for reading in sent.readings:
            reading.acknowledged = True
        if sent.device in self.cameras:
            count = len(sent.readings)
            self.objects["acknowledged"] += count
            self.objects["duplicates"] += count if sent.kind in DUPLICATE_KINDS else 0
            self.objects["refused"] += sum(reading.requirement == "!" for reading in sent.readings)

    def _give_up(self, rid: str) -> None:
        self.given_up += 1
        if sent := self.messages.get(rid):
            self.pending[sent.node] -= 1

    def forget(self, now: int) -> None:
        """Drop old messages seen on every tap; a later delivery of them would be a phantom."""
        while self.order and self.order[0][2].intended_at < now - self.forget_us:
            device, when, sent = self.order[0]
            if any(r.requirement == "=" and (not r.acknowledged or self._missing(r)) for r in sent.readings):
                return
            self.order.popleft()
            self.by_time.pop((device, when), None)
            self.messages.pop(sent.rid, None)
            self.forgotten += 1

    # ── the feeds ────────────────────────────────────────────────────────────────────────────────────

    def read_record(self, tap: FeedTap, record: dict[str, Any], now: int) -> None:
        """Process one record of a feed, received at `now`."""
        device, name = record["device"], record["property"]
        if device not in self.devices:
            self._read_manual(tap, record)
            return
        tap.records += 1
        stamp = to_us(record["time"])
        flags = set(record["flags"])
        detail = f"{device} {name} {record['time']} = {record['value']!r} id {record['id']}"
        channelled = f"{name}#{record.get('channel', '')}"
        names = {name, channelled}
        candidates = [r for r in self.by_time.get((device, stamp), ()) if r.property in names]
        if not candidates:
            tap.add_finding("phantom", detail)
            return
        reading = next((r for r in candidates if r.equals(record["value"])), None)
        if reading is None:
            tap.add_finding("corrupt", f"{detail}, sent {candidates[0].value!r}")
            return
        sent = reading.message
        if reading.requirement == "!" or (tap.node and tap.node != sent.node):
            tap.add_finding("leaked", detail)
        first = reading.ids[tap.index]
        if first is not None:
            tap.add_finding("doubled", f"{detail}, first {first}")
            return
        reading.ids[tap.index] = f"{record['id']} {record['cursor']}"
        tap.matched += 1
        tap.objects += device in self.cameras
        if device in self.cameras and CANARY_WORD in str(record):
            tap.add_finding("leaked", f"a personal word in {record['id']}")
        if reading.requirement == "=" and sent.missing[tap.index]:
            sent.missing[tap.index] -= 1
            tap.outstanding -= sent.missing[tap.index] == 0
        self._judge_order(tap, (device, channelled), stamp, flags, detail)
        if (marks := REQUIRED_FLAGS.get(sent.kind)) and not marks & flags:
            tap.add_finding("unmarked", f"{detail} was sent as {sent.kind}, flags {sorted(flags)}")
        tap.seen_intended_at = max(tap.seen_intended_at, sent.intended_at)
        tap.seen_by_node[sent.node] = max(tap.seen_by_node.get(sent.node, 0), sent.intended_at)
        latency = (now - sent.intended_at) / 1000
        tap.latencies.append(latency)
        if "backlog" not in flags:
            tap.live_latencies.append(latency)

    def _read_manual(self, tap: FeedTap, record: dict[str, Any]) -> None:
        """Process a record of a device on which a person publishes."""
        self.by_hand += 1
        if record["id"] in tap.manual:
            detail = f"{record['device']} {record['property']} {record['time']} id {record['id']}"
            tap.add_finding("doubled", f"{detail}, sent by hand")
        elif len(tap.manual) < MANUAL_MAX:
            tap.manual.add(record["id"])

    def _judge_order(self, tap: FeedTap, series: tuple[str, str], stamp: int, flags: set[str], detail: str) -> None:
        newest = tap.newest.get(series, 0)
        if stamp < newest and not flags & OUT_OF_ORDER_FLAGS:
            tap.add_finding("disordered", f"{detail}, after {newest - stamp} µs newer")
        if stamp > newest and "future" not in flags:
            tap.newest[series] = stamp

    # ── the verdict ──────────────────────────────────────────────────────────────────────────────────

    def missing(self, tap: FeedTap) -> Iterator[ExpectedReading]:
        """Yield the readings that were acknowledged and are missing on a tap."""
        for sent in self.messages.values():
            if tap.node and tap.node != sent.node:
                continue
            for reading in sent.readings:
                if (
                    reading.message is sent
                    and reading.requirement == "="
                    and reading.acknowledged
                    and reading.ids[tap.index] is None
                ):
                    yield reading

    def _missing(self, reading: ExpectedReading) -> bool:
        return any(
            reading.ids[tap.index] is None for tap in self.taps if not tap.node or tap.node == reading.message.node
        )

    def status(self) -> dict[str, Any]:
        """Return the present status; cheap, called many times a second."""
        return {
            "intended": self.intended,
            "acknowledged": self.acknowledged,
            "pending": self.pending,
            "resent": self.resent,
            "ended": self.ended,
            "by_hand": self.by_hand,
            "taps": {
                tap.name: {
                    "records": tap.records,
                    "matched": tap.matched,
                    "outstanding": tap.outstanding,
                    "fresh": tap.seen_intended_at,
                    "by_node": tap.seen_by_node,
                    "failed": tap.attempts_failed,
                    **{verdict: tap.counts[verdict] for verdict in VERDICTS if verdict != "lost"},
                }
                for tap in self.taps
            },
        }

    def verdict(self) -> dict[str, Any]:
        """Return the verdict; `lost` is decided here, so call it when everything had time to arrive."""
        taps = {}
        for tap in self.taps:
            tap.counts["lost"] = 0
            other_samples = [sample for sample in tap.samples if not sample.startswith("lost")]
            tap.samples = other_samples
            for reading in self.missing(tap):
                sent = reading.message
                tap.add_finding("lost", f"{sent.rid} {sent.kind} {sent.node} {sent.device} {reading.property}")
            taps[tap.name] = {
                "records": tap.records,
                "matched": tap.matched,
                "objects": tap.objects,
                **tap.counts,
                "latency_ms": quantiles(tap.latencies),
                "live_latency_ms": quantiles(tap.live_latencies),
                "attempts_failed": tap.attempts_failed,
                "samples": tap.samples,
            }
        appeared = sum(
            1
            for sent in self.messages.values()
            if sent.readings and not sent.readings[0].acknowledged and any(sent.readings[0].ids)
        )
        return {
            "published": self.intended,
            "acknowledged": self.acknowledged,
            "unacknowledged": sum(self.pending.values()) + self.given_up,
            "unacknowledged_appeared": appeared,
            "resent": self.resent,
            "readings": self.readings,
            "injected_messages": dict(sorted(self.message_kinds.items())),
            "injected_values": dict(sorted(self.value_kinds.items())),
            "forgotten": self.forgotten,
            "by_hand": self.by_hand,
            "objects": self.objects,
            "taps": taps,
            "failed": any(counts[verdict] for counts in taps.values() for verdict in VERDICTS),
        }

    def complete(self) -> bool:
        """Return whether everything acknowledged has been seen on every tap."""
        return all(next(self.missing(tap), None) is None for tap in self.taps)


def _split(text: str) -> tuple[str, str, object]:
    for place, letter in enumerate(text):
        if letter in "=~!":
            return text[:place], letter, json.loads(text[place + 1 :])
    raise ValueError(f"not a value: {text}")


def quantiles(values: deque[float]) -> dict[str, float]:
    """Return p50, p99 and max; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {
        "p50": round(ordered[last // 2], 1),
        "p99": round(ordered[math.ceil(last * 0.99)], 1),
        "max": round(ordered[last], 1),
    }


class LedgerFiles:
    """The simulators' files, read in whole lines as they grow."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: dict[Path, TextIO] = {}
        self._rest: dict[Path, str] = {}

    def lines(self, limit: int = 20_000) -> Iterator[str]:
        """Yield up to about `limit` new lines, oldest first within each file."""
        for path in sorted(self.directory.glob("*.ledger")):
            if path not in self._open:
                self._open[path] = path.open(encoding="utf-8")
                self._rest[path] = ""
            text = self._rest[path] + self._open[path].read(limit * 150)
            complete, newline, partial = text.rpartition("\n")
            self._rest[path] = partial
            if newline:
                yield from complete.split("\n")

    def close(self) -> None:
        """Close the files."""
        for file in self._open.values():
            file.close()


class TapError(Exception):
    """A feed rejects the request: nothing can be judged."""


class JudgeRunner:
    """Runs the judge: tails the files, follows the taps, reports, and ends when everything was seen."""

    def __init__(
        self, judge: FeedJudge, files: LedgerFiles, *, settle_s: float, deadline_s: float, simulators: int
    ) -> None:
        self.judge = judge
        self.files = files
        self.settle_s = settle_s
        self.deadline_s = deadline_s
        self.simulators = simulators

    def read_files(self) -> None:
        """Process everything that the simulators have written so far."""
        while True:
            count = 0
            for text in self.files.lines():
                self.judge.read_line(text)
                count += 1
            if not count:
                return

    async def follow(self, session: aiohttp.ClientSession, tap: FeedTap) -> None:
        """Read a feed from its beginning until cancelled; resume from the last cursor after a broken connection."""
        url = f"{tap.url}/api/v1/feeds/{tap.feed}/records"
        headers = {"Authorization": f"Bearer {tap.token}", "Accept": "application/json"}
        after = ""
        while True:
            params = {"limit": "5000", "wait": "5", **({"after": after} if after else {})}
            try:
                async with session.get(url, params=params, headers=headers) as response:
                    if response.status in {400, 401, 403, 404, 406, 410}:
                        raise TapError(f"{tap.name}: {response.status} {await response.text()}")
                    if response.status != 200:
                        raise aiohttp.ClientPayloadError(str(response.status))
                    body = await response.read()
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                tap.attempts_failed += 1
                await asyncio.sleep(0.1)
                continue
            now = time.time_ns() // 1000
            answer = json.loads(body)
            # The simulator writes before it sends, so the files already have everything in the answer.
            self.read_files()
            for record in answer["records"]:
                self.judge.read_record(tap, record, now)
            after = answer["next"]

    async def report(self, out: TextIO) -> None:
        """Write the status as lines of JSON until everything is settled or the deadline has passed."""
        ended = quiet = 0.0
        seen = -1
        while True:
            self.read_files()
            now = time.monotonic()
            self.judge.forget(time.time_ns() // 1000)
            out.write(json.dumps(self.judge.status()) + "\n")
            out.flush()
            if self.judge.ended >= self.simulators:
                ended = ended or now
                records = sum(tap.records for tap in self.judge.taps)
                if records != seen:
                    seen, quiet = records, now
                if now - ended > self.deadline_s:
                    return
                if now - quiet > self.settle_s and self.judge.complete():
                    return
            await asyncio.sleep(POLL_S)

    async def run(self, out: TextIO) -> dict[str, Any]:
        """Return the verdict when the simulators have ended and their messages had time to arrive."""
        timeout = aiohttp.ClientTimeout(total=60, sock_connect=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            followers = [asyncio.create_task(self.follow(session, tap), name=tap.name) for tap in self.judge.taps]
            reporter = asyncio.create_task(self.report(out), name="report")
            done, running = await asyncio.wait([reporter, *followers], return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for task in done:
                task.result()
        return self.judge.verdict()


def _tap(text: str) -> FeedTap:
    name, _, options = text.partition("=")
    url, feed, token_file, *node = options.split(",")
    return FeedTap(
        name=name,
        url=url.rstrip("/"),
        feed=feed,
        token=Path(token_file).read_text(encoding="utf-8").strip(),
        node=node[0] if node else "",
    )


def main(arguments: list[str] | None = None) -> int:
    """Judge a run; the status goes to standard output, the verdict to a file; exit 1 if it failed, 2 on a tap error."""
    parser = argparse.ArgumentParser(prog="python -m sensegate.demo.judge", description=main.__doc__)
    parser.add_argument("--ledger", required=True, type=Path, help="directory of the simulators' *.ledger files")
    parser.add_argument(
        "--tap", required=True, action="append", type=_tap, help="NAME=URL,FEED,TOKENFILE[,NODE]; may be repeated"
    )
    parser.add_argument("--verdict", required=True, type=Path, help="file for the verdict (JSON)")
    parser.add_argument("--simulators", type=int, default=1, help="files that must have ended")
    parser.add_argument("--settle-s", type=float, default=2.0, help="quiet time after everything was seen")
    parser.add_argument("--deadline-s", type=float, default=60.0, help="longest wait after the simulators' end")
    parser.add_argument(
        "--forget-s", type=float, default=900.0, help="age at which readings seen on every tap are dropped"
    )
    given = parser.parse_args(arguments)
    judge = FeedJudge(given.tap, forget_s=given.forget_s)
    files = LedgerFiles(given.ledger)
    bench = JudgeRunner(judge, files, settle_s=given.settle_s, deadline_s=given.deadline_s, simulators=given.simulators)
    try:
        verdict = asyncio.run(bench.run(sys.stdout))
    except TapError as why:
        sys.stderr.write(f"judge: {why}\n")
        return 2
    finally:
        files.close()
    given.verdict.write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")
    return 1 if verdict["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
