"""Fail-over of whole centres: the active one is killed, subscribers go on at the other, the old one is fenced.

``python -m tests.live.test_sites --rate 1000 --seconds 60`` is the drill under load.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from sensegate.authority.audit_opening import KEY
from sensegate.authority.chain import SignedHead, check_export
from sensegate.bus.ledger import ACCEPTED
from sensegate.failover import terms
from sensegate.failover.standby import TAIL_FILE
from sensegate.share.wiring import PSEUDONYM_KEY, STATEMENT_KEY
from tests.border.lies import SENDER
from tests.border.raider import Raider
from tests.conftest import eventually
from tests.live.centres import Centre, reply_of, two_sites
from tests.live.site import Site

pytestmark = [pytest.mark.live]
COPIED_S = 30.0
"""So soon a node has on its disk what a centre has; far more than it takes, for a machine with other work."""


class Reader:
    """A subscriber of the province that knows both centres and goes on from its cursor at whichever answers."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str], token: str) -> None:
        self._session = session
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {token}"}
        self.after = ""
        self.records: list[dict[str, Any]] = []
        self.silent_s = 0.0
        self.why = ""
        """What went wrong last."""
        """Longest time between two answers."""

    async def run(self) -> None:
        """Read until cancelled."""
        turn, last = 0, time.monotonic()
        while True:
            query = {"limit": "5000", "wait": "1", **({"after": self.after} if self.after else {})}
            url = f"{self._urls[turn]}/api/v1/feeds/all/records"
            try:
                async with self._session.get(
                    url, headers=self._headers, params=query, timeout=aiohttp.ClientTimeout(total=5)
                ) as response:
                    if response.status != 200:
                        raise aiohttp.ClientError(f"{response.status} {await response.text()}")  # noqa: TRY301
                    page = await response.json()
            except (aiohttp.ClientError, TimeoutError, OSError) as why:
                self.why = f"{url}: {why!r}"
                turn = (turn + 1) % len(self._urls)
                await asyncio.sleep(0.1)
                continue
            now = time.monotonic()
            self.silent_s, last = max(self.silent_s, now - last), now
            self.records += page["records"]
            self.after = page["next"]

    def faults(self, sent: int, device: str) -> dict[str, int]:
        """Return how many values of a device (0 to sent) are lost, twice, or out of order without a mark; ids twice."""
        values = [round(row["value"]) for row in self.records if row["device"] == device]
        unmarked = [
            round(row["value"])
            for row in self.records
            if row["device"] == device and "backlog" not in row.get("flags", ())
        ]
        ids = Counter(row["id"] for row in self.records)
        return {
            "lost": len(set(range(sent)) - set(values)),
            "doubled": len(values) - len(set(values)),
            "ids": sum(count - 1 for count in ids.values()),
            "disordered": sum(earlier > other for earlier, other in pairwise(unmarked)),
        }


class Sender:
    """A device of the node that counts."""

    def __init__(self, node: Site, device: Any, rate: float, batch: int) -> None:
        self._node = node
        self._device = device
        self._pause_s = batch / rate
        self._batch = batch
        self._stopping = asyncio.Event()
        self.sent = 0

    async def stop(self, running: asyncio.Task[None]) -> None:
        """End `run` after the batch that is on its way: all that the node has taken is counted."""
        self._stopping.set()
        await running
        self._stopping.clear()

    async def run(self) -> None:
        """Send until `stop`; each message is acknowledged before the next."""
        while not self._stopping.is_set():
            values = range(self.sent, self.sent + self._batch)
            body = [{"time": 1_767_225_600 + value, "values": {"lamp_switches": value}} for value in values]
            answer = await self._node.push(self._device, json.dumps(body))
            assert answer.status == 202, answer.body
            self.sent += self._batch
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._stopping.wait()


async def _known_together(first: Centre, node: Site) -> None:
    """Return when the node knows that the other centre has all: until it has heard so, it grants it nothing."""
    own, there = Path(node.config.directory), first.directory
    await eventually(lambda: not terms.read(there).unreplicated and terms.read(there).voters[-1].nodes != (), 30)
    heard = time.monotonic()
    await eventually(lambda: terms.read(own).voters_version != (0, 0) and not terms.read(own).unreplicated, 30)
    assert time.monotonic() - heard < COPIED_S


async def drill(directory: Path, *, rate: float, seconds: float, batch: int, automatic: bool) -> dict[str, Any]:
    """Kill the active centre under load; return what the subscriber saw, and how the old one came back."""
    async with two_sites(directory, automatic=automatic) as (first, second, node):
        device = await node.device("count-1")
        token = (first.directory / "admin.token").read_text().strip()
        auditor, head = await noted(first)
        async with aiohttp.ClientSession() as session:
            reader = Reader(session, [first.url, second.url], token)
            sender = Sender(node, device, rate, batch)
            raider = hostile_at(first, second)
            work = [asyncio.create_task(reader.run()), asyncio.create_task(sender.run())]
            try:
                await eventually(second.copied, 30)
                if automatic:
                    await _known_together(first, node)
                await eventually(lambda: sender.sent >= rate * seconds / 3 and len(reader.records) > 0, 30)
                if not automatic:
                    work.append(await raid(raider))
                late = "" if automatic else await strand(first, second)
                await first.kill()
                killed = time.monotonic()
                result = len(reader.records)
                if not automatic:
                    second.hold(signal.SIGCONT)
                    second.promote()
                await eventually(lambda: len(reader.records) > result + batch, 30)
                resumed_s = time.monotonic() - killed
                before = sender.sent
                await eventually(lambda: sender.sent >= before + rate * seconds / 3, 120)
                await first.start()
                await eventually(first.copied, 60)
                fenced = terms.read(first.directory)
                before = sender.sent
                await eventually(lambda: sender.sent >= before + rate * seconds / 3, 120)
                await sender.stop(work[1])
                await eventually(lambda: reader.faults(sender.sent, "count-1")["lost"] == 0, 30)
                back_s = 0.0 if automatic else await fail_back(first, second, reader, sender, batch)
                active = second if automatic else first
                seen_then = {"books": await counted(active, sender.sent), **await trail_of(active, auditor, head)}
                if automatic:
                    seen_then["votes"] = await votes(first, second)
                else:
                    seen_then["late"] = await status_of(active, late)
            except AssertionError as why:
                seen_at = (await node.ask("GET", "/api/v1/nodes")).body
                raise AssertionError(
                    f"{why}; sent {sender.sent}, read {len(reader.records)}: {reader.why}; {seen_at}"
                ) from why
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)
            return {
                "sent": sender.sent,
                **reader.faults(sender.sent, "count-1"),
                "resumed_s": round(resumed_s, 2),
                "back_s": round(back_s, 2),
                "old centre": "fenced" if not fenced.active and fenced.number > 1 else "ACTIVE",
                "keys": "same" if _keys(first) == _keys(second) else "OTHERS",
                "set aside": len(list(first.directory.glob("aside-*"))),
                "hostile": raider,
                **seen_then,
            }


def hostile_at(first: Centre, second: Centre) -> Raider:
    """Return a node that lies, raids and floods at whichever centre answers."""
    secret = (first.directory.parent / SENDER).read_text(encoding="utf-8")
    ports = [centre.config.engine.port for centre in (first, second)]
    return Raider(ports, secret, foreign_device="count-1", pause_s=0.05)


async def raid(raider: Raider) -> asyncio.Task[None]:
    """Have a hostile node begin; it is configured, so that centres whose nodes join by code have no place for it."""
    task = asyncio.create_task(raider.run())
    await eventually(lambda: raider.refused.total() > 0, 30)
    return task


async def strand(first: Centre, second: Centre) -> str:
    """Have the first change something of which the second never hears; return the token that it made."""
    second.hold(signal.SIGSTOP)
    for _ in range(6):  # questions that are on their way are answered with the first of them
        late = (await reply_of(first, "POST", "/api/v1/tokens", body={"role": "subscriber", "scope": "44"}))["token"]
    return str(late)


async def fail_back(first: Centre, second: Centre, reader: Reader, sender: Sender, batch: int) -> float:
    """Stop the second in order and order the first; return after how long the subscriber went on."""
    await eventually(first.copied, 30)
    await second.stop()
    first.promote()
    began, rows = time.monotonic(), len(reader.records)
    sending = asyncio.create_task(sender.run())
    try:
        await eventually(lambda: len(reader.records) > rows + batch, 30)
        back_s = time.monotonic() - began
    finally:
        await sender.stop(sending)
    await eventually(lambda: reader.faults(sender.sent, "count-1")["lost"] == 0, 30)
    return back_s


async def noted(first: Centre) -> tuple[str, SignedHead]:
    """Return the token of an auditor, and the head of the trail that it notes."""
    auditor = (first.directory / "auditor.token").read_text().strip()
    return auditor, msgspec.convert(await reply_of(first, "GET", "/api/v1/audit/head", token=auditor), SignedHead)


async def status_of(active: Centre, token: str) -> int:
    """Return what comes of asking with a token."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{active.url}/api/v1/feeds/all/records") as response,
    ):
        return response.status


async def counted(active: Centre, sent: int) -> str:
    """Return whether the books of the active centre count all that was ever sent, whichever centre took it in."""
    totals: dict[str, int] = {}

    async def whole() -> bool:
        answer = await reply_of(active, "GET", "/api/v1/ledger?since=2h")
        totals.update(answer["totals"])
        return bool(answer["balanced"] and answer["totals"].get(ACCEPTED, 0) >= sent)

    with contextlib.suppress(AssertionError):
        await eventually(whole, 30)
    return "whole" if totals.get(ACCEPTED) == sent else f"{totals}, not {sent}"


async def trail_of(active: Centre, auditor: str, head: SignedHead) -> dict[str, Any]:
    """Return what comes of checking the trail, with the head noted at the first centre before; and what is on it."""
    lines = (await reply_of(active, "GET", "/api/v1/audit/export", token=auditor)).removesuffix(b"\n").split(b"\n")
    report = check_export(lines, heads=[head], key=base64.b64decode(head.key))
    records = [json.loads(line) for line in lines[:-1]]
    asides = [record["after"] for record in records if record["action"] == "centre.aside"]
    return {
        "trail": "whole" if report.fault is None and report.heads == 1 else str(report),
        "named": asides,
        "terms": sum(record["action"] == "centre.active" for record in records),
    }


async def votes(first: Centre, second: Centre) -> list[tuple[str, ...]]:
    """Return who votes at the active centre, then at both once the node is expelled."""
    before = electorate(second)
    await reply_of(second, "POST", "/api/v1/nodes/4401/expel", body={})
    await eventually(lambda: not electorate(second), 30)
    await eventually(lambda: not electorate(first), 30)
    return [before, electorate(second), electorate(first)]


def electorate(centre: Centre) -> tuple[str, ...]:
    """Return who votes, as a centre has it on its disk."""
    return terms.read(centre.directory).voters[-1].nodes


def _keys(centre: Centre) -> list[bytes]:
    """Return of what pseudonyms are made, and whose signature receipts and heads of the trail bear."""
    files = [centre.directory / name for name in (PSEUDONYM_KEY, STATEMENT_KEY, KEY, "statements.pub", "audit.pub")]
    assert all(file.stat().st_mode & 0o077 == 0 for file in files[:3])
    return [file.read_bytes() for file in files]


GOOD = {"lost": 0, "doubled": 0, "ids": 0, "disordered": 0, "old centre": "fenced", "keys": "same"} | {
    "books": "whole",
    "trail": "whole",
}


@pytest.mark.parametrize("automatic", [False, True], ids=["by order", "granted by the nodes"])
async def test_fail_over(tmp_path: Path, *, automatic: bool) -> None:
    """The active centre is killed with its server: none lost, none twice, cursors go on, the old one is fenced."""
    result = await drill(tmp_path, rate=200, seconds=3, batch=20, automatic=automatic)
    assert {key: result[key] for key in GOOD} == GOOD, result
    assert len(result["named"]) == result["set aside"], result
    assert result["terms"] == (1 if automatic else 2), result
    if automatic:
        assert result["votes"] == [("4401.1",), (), ()], result
        return
    assert not result["hostile"].wrong, result
    assert result["hostile"].good, result
    # What only the first had is named, lies beside its old store, and is in force nowhere.
    (named,) = result["named"]
    tail = [
        json.loads(line) for line in (tmp_path / "centre0" / named["directory"] / TAIL_FILE).read_text().splitlines()
    ]
    assert [record["number"] for record in tail] == list(range(named["trail_after"] + 1, named["trail_last"] + 1))
    assert "token.create" in [record["action"] for record in tail]
    assert result["late"] == 401


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--automatic", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        outcome = asyncio.run(
            drill(Path(place), rate=given.rate, seconds=given.seconds, batch=100, automatic=given.automatic)
        )
    sys.stdout.write(json.dumps(outcome, default=str) + "\n")
    sys.exit(0 if {key: outcome[key] for key in GOOD} == GOOD and outcome["resumed_s"] < 30 else 1)
