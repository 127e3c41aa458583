"""The drill: a wrong scale, named by the diff, tried as a canary, rolled back by itself, its span decoded again.

Everything through a real node: devices push, people use REST, the feed is read as a subscriber reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from sensegate.config import NodeUserConfig, UplinkConfig
from sensegate.lifecycle.canaries import CanaryAnalysis
from sensegate.persist.previous_readings import PreviousReadings
from tests.conftest import eventually
from tests.live.releasing import PATH, job, step, version
from tests.live.site import PLAIN, Made, Site, config_of, running
from tests.support.thermometer import THERMOMETER, write

pytestmark = pytest.mark.live

DEVICES = 40
FIRST = int(time.time()) // 60 * 60 - 3_600
"""An hour ago, epoch seconds: what is older than the horizon of duplicates is not judged when it is sent again."""
TIMED = "    time: {field: at, format: epoch_s}\n    readings:"


def iso(round_: int) -> str:
    """Return the time of a round as the feed writes it."""
    return datetime.fromtimestamp(FIRST + 60 * round_, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def timed(text: str) -> str:
    """Return a version whose messages carry their time."""
    text = text.replace("    readings:", TIMED).replace('payload: {"t": 215}', f'payload: {{"t": 215, "at": {FIRST}}}')
    return text.replace(
        "- {property: air_temperature, value", f"- {{property: air_temperature, time: '{iso(0)}', value"
    )


WRONG = timed(version(2, scale=1.0))
Spoiled = dict[tuple[str, str], list[dict[str, Any]]]


def truth(device: int, round_: int) -> float:
    """Return the temperature that a device measured."""
    return 20 + device / 10 + round_ / 10


class City:
    """The devices of a node with the thermometer, and what they sent."""

    def __init__(self, site: Site, devices: list[Made]) -> None:
        self.site = site
        self.devices = devices
        self.sent: dict[tuple[str, str], float] = {}
        self.round = 0

    async def speak(self) -> None:
        """Let every device push one reading, tenths of a degree."""
        pushes = []
        for number, device in enumerate(self.devices):
            value, at = truth(number, self.round), FIRST + 60 * self.round
            pushes.append(self.site.push(device, f'{{"t": {round(value * 10)}, "at": {at}}}'))
            self.sent[device.id, iso(self.round)] = value
        assert {answer.status for answer in await asyncio.gather(*pushes)} == {202}
        self.round += 1

    async def steps(self) -> list[tuple[str, str, str]]:
        """Return (role, action, target) of what the trail says of profiles."""
        rows = await self.site.audit()
        return [(row["role"], row["action"], row["target"]) for row in rows if row["action"].startswith("profile.")]

    async def history(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Return (device, time) -> records of the feed, in its order."""
        result: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in await self.site.records():
            result.setdefault((row["device"], row["time"]), []).append(row)
        return result


async def redecoded(site: Site, query: str, token: str | None = None, **body: Any) -> dict[str, Any]:
    """Have recorded messages decoded again; return the order once it is done."""
    order = await step(site, f"/redecode?{query}", token, 202, **body)

    async def ended() -> dict[str, Any] | None:
        row: dict[str, Any] = (await site.ask("GET", f"{PATH}/redecode/{order['id']}")).body
        return row if row["state"] not in {"waiting", "running"} else None

    result: dict[str, Any] = await eventually(ended, 30)
    assert result["state"] == "done", result
    assert result["share"] == 1
    return result


@contextlib.asynccontextmanager
async def city_with_thermometers(directory: Path, uplink: UplinkConfig | None = None) -> AsyncIterator[City]:
    """Run a node with the devices of the drill; version 1 is the folder's."""
    folder = directory / "profiles"
    folder.mkdir()
    write(folder, timed(THERMOMETER))
    config = config_of(directory / "node", profiles=(str(folder), str(PLAIN)))
    async with running(structs.replace(config, uplink=uplink or UplinkConfig())) as site:
        devices = [await site.device(f"thermo-{number}", profile="acme/th") for number in range(DEVICES)]
        yield City(site, devices)


async def spoil(city: City, operator: str) -> tuple[str, Spoiled]:
    """Try the wrong version as a canary until it is rolled back; return when it began and what it spoiled."""
    site = city.site
    result = await step(site, "/versions/2/canary", operator, share=0.1, least=6)
    assert result["canary"]["count"] == DEVICES // 10

    async def rolled_back() -> bool:
        await city.speak()
        return (await site.ask("GET", f"{PATH}/history")).body["canary"] is None

    await eventually(rolled_back, 30)
    await city.speak()
    spoiled = {key: rows for key, rows in (await city.history()).items() if rows[0]["profile"] == "acme/th@2"}
    assert 1 <= len({device for device, _ in spoiled}) <= DEVICES // 10
    assert all(rows[-1]["value"] == pytest.approx(10 * city.sent[key]) for key, rows in spoiled.items())
    assert all(rows[-1]["quality"].startswith("bad") for rows in spoiled.values())
    return result["canary"]["since"], spoiled


def wrong_in(city: City, history: Spoiled, spoiled: Spoiled) -> list[str]:
    """Return what is wrong with a history that should end right, with one revision of what was spoiled."""
    texts = [f"{key}: missing or made up" for key in history.keys() ^ city.sent.keys()]
    for key in history.keys() & city.sent.keys():
        rows, revisions = history[key], [0, 1] if key in spoiled else [0]
        last = rows[-1]
        if [row["revision"] for row in rows] != revisions:
            texts.append(f"{key}: revisions {[row['revision'] for row in rows]}, not {revisions}")
        if (
            last["value"] != pytest.approx(city.sent[key])
            or last["quality"] != "good"
            or last["profile"] != "acme/th@1"
        ):
            texts.append(f"{key}: ends as {last['value']} by {last['profile']}, {last['quality']}")
        if ("redecoded" in last["flags"]) != (key in spoiled):
            texts.append(f"{key}: flags {last['flags']}")
    return texts


async def test_the_drill(tmp_path: Path) -> None:
    """Wrong scale as canary to 10 %, rolled back by itself, its span redecoded; history, trail and ledger are right."""
    async with city_with_thermometers(tmp_path) as city:
        site = city.site
        county, _ = await site.token("county_operator", "440106")
        operator, _ = await site.token("city_operator", "4401")
        for _ in range(3):
            await city.speak()
        # A county's mistake: tenths of a degree taken for degrees. The diff names it beforehand.
        report = (await job(site, "/diff?since=1h", county, text=WRONG))["report"]
        named = {
            (row["kind"], row["property"], row["unit"], row["count"], row["factor"]) for row in report["differences"]
        }
        assert named == {("value", "air_temperature", "Cel", 3, 10.0)}
        assert (len(report["differences"]), report["same"], report["b"]["outside"]) == (DEVICES, 0, 3 * DEVICES)

        await step(site, "/versions", county, 201, text=WRONG)
        await step(site, "/versions/2/propose", county, note="degrees, says the maker")
        await step(site, "/versions/2/canary", county, 403, share=0.1)
        since, spoiled = await spoil(city, operator)
        await step(site, "/redecode", county, 403)
        done = await redecoded(site, f"since={since}", operator)
        assert (done["revised"], done["added"], done["recovered"]) == (len(spoiled), 0, 0)
        assert done["messages"] == done["revised"] + done["equal"]

        history = await city.history()
        assert wrong_in(city, history, spoiled) == []
        assert await city.steps() == [
            ("county_operator", "profile.draft", "acme/th@2"),
            ("county_operator", "profile.propose", "acme/th@2"),
            ("city_operator", "profile.canary", "acme/th@2"),
            ("admin", "profile.rollback", "acme/th@2"),
            ("city_operator", "profile.redecode", "acme/th"),
            ("admin", "profile.redecode.done", "acme/th"),
        ]
        assert (await site.audit())[-1]["after"]["revised"] == len(spoiled)
        totals = await site.totals()
        assert totals["messages"] == totals["decoded"] == len(city.sent)
        assert totals["redecoded"] == totals["reread"] == done["messages"]
        assert totals["accepted"] == len(city.sent) + len(spoiled)
        assert (totals["revised"], totals["equal"]) == (len(spoiled), done["equal"])

        repeated = await redecoded(site, f"since={since}", operator)
        assert (repeated["revised"], repeated["added"], repeated["equal"]) == (0, 0, repeated["messages"])
        assert await city.history() == history, "once more changes nothing"


async def test_control_a_redecode_that_knows_nothing_of_the_log_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the priors blind, every message of the span comes twice, and the drill's own check says so."""
    monkeypatch.setattr(PreviousReadings, "add", lambda *_args, **_more: None)
    async with city_with_thermometers(tmp_path) as city:
        operator, _ = await city.site.token("city_operator", "4401")
        await step(city.site, "/versions", operator, 201, text=WRONG)
        await step(city.site, "/versions/2/propose", operator)
        since, spoiled = await spoil(city, operator)
        done = await redecoded(city.site, f"since={since}", operator)
        assert (done["revised"], done["equal"]) == (0, 0)
        wrong = wrong_in(city, await city.history(), spoiled)
        assert len(wrong) >= done["messages"]
        assert any("revisions [0, 0], not [0]" in problem for problem in wrong)


async def test_control_without_the_watch_a_canary_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the watch asleep the same faults end nothing: it is the watch that the drill sees at work."""
    monkeypatch.setattr(CanaryAnalysis, "run", lambda _self: asyncio.Event().wait())
    async with city_with_thermometers(tmp_path) as city:
        operator, _ = await city.site.token("city_operator", "4401")
        await step(city.site, "/versions", operator, 201, text=WRONG)
        await step(city.site, "/versions/2/propose", operator)
        await step(city.site, "/versions/2/canary", operator, share=0.1, least=6)
        for _ in range(5):
            await city.speak()
        canary = (await city.site.ask("GET", f"{PATH}/history")).body["canary"]
        assert canary is not None
        assert canary["faults"] > 0.9
        assert await city.steps() == [
            ("city_operator", "profile.draft", "acme/th@2"),
            ("city_operator", "profile.propose", "acme/th@2"),
            ("city_operator", "profile.canary", "acme/th@2"),
        ]


async def test_what_was_in_quarantine_is_recovered(tmp_path: Path) -> None:
    """A version that refuses what devices send: after its repair their messages become readings, once."""
    async with city_with_thermometers(tmp_path) as city:
        site = city.site
        operator, _ = await site.token("city_operator", "4401")
        blind = timed(version(2)).replace("    time: {field: at", "    where: {kind: other}\n    time: {field: at")
        blind = blind.replace('payload: {"t": 215, ', 'payload: {"kind": "other", "t": 215, ')
        await step(site, "/versions", operator, 201, text=blind)
        await step(site, "/versions/2/propose", operator)
        await step(site, "/versions/2/release", operator)
        await city.speak()
        assert await city.history() == {}
        assert len(await site.quarantine(reason="schema")) == DEVICES
        await step(site, "/rollback", operator)
        await city.speak()
        done = await redecoded(site, "since=1h", operator, selection="quarantine")
        assert (done["messages"], done["recovered"], done["added"]) == (DEVICES, DEVICES, DEVICES)
        history = await city.history()
        assert {len(rows) for rows in history.values()} == {1}
        assert {key: rows[0]["value"] for key, rows in history.items()} == pytest.approx(city.sent)
        totals = await site.totals()
        assert totals["recovered"] == totals["added"] == totals["quarantined.schema"] == DEVICES
        # What was recovered has left the quarantine; a second run recovers nothing, and counts no value of traffic.
        assert await site.quarantine(reason="schema") == []
        empty = await redecoded(site, "since=1h", operator, selection="quarantine")
        assert (empty["messages"], empty["recovered"], empty["added"], empty["equal"]) == (0, 0, 0, 0)
        unknown = await site.ask("POST", "/api/v1/profiles/acme/none/redecode?since=1h", operator, json={})
        assert (unknown.status, "no profile acme/none" in unknown.body["detail"]) == (404, True)
        done = await redecoded(site, "since=1h", operator, devices=["thermo-3"])
        assert (done["messages"], done["equal"], done["added"]) == (2, 2, 0)
        after = await site.totals()
        assert (after["values"], after["equal"]) == (totals["values"], 2)
        assert not [kind for kind in after if kind.startswith("duplicate.")]
        assert await city.history() == history
        # A device that sends such a message again is told by what it says now.
        answer = await site.push(city.devices[0], f'{{"t": 200, "at": {FIRST}}}')
        assert answer.status == 202
        assert await city.history() == history


async def test_orders_are_examined(tmp_path: Path) -> None:
    """Who may order what; what is kept no longer cannot be decoded again; an order is seen in its scope only."""
    async with city_with_thermometers(tmp_path) as city:
        site = city.site
        operator, _ = await site.token("city_operator", "4401")
        other, _ = await site.token("county_operator", "440103")
        beyond = await step(site, "/redecode?since=30d", operator, 400)
        assert "decoded messages are retained for 72 h" in beyond["detail"]
        done = await redecoded(site, "since=30d", operator, selection="quarantine")
        assert done["messages"] == 0
        await step(site, "/redecode?since=1h&until=2h", operator, 400)
        await step(site, "/redecode", operator, 400, selection="everything")
        await step(site, "/redecode", operator, 400, target="4403")
        assert (await site.ask("GET", f"{PATH}/redecode/{done['id']}", other)).status == 404
        assert (await site.ask("GET", f"{PATH}/redecode", other)).body["rows"] == []
        assert (await site.ask("DELETE", f"{PATH}/redecode/{done['id']}", operator)).status == 409
        assert (await site.ask("GET", f"/api/v1/profiles/acme/other/redecode/{done['id']}", operator)).status == 404


async def test_the_centre_hears_of_it(tmp_path: Path) -> None:
    """Revisions go up like any reading; the centre's history ends right, and the books of both tiers agree."""
    secret = tmp_path / "secret"
    secret.write_text("secret-of-4401", encoding="utf-8")
    above = structs.replace(
        config_of(tmp_path / "centre", "44"), nodes=(NodeUserConfig(division="4401", secret_file=str(secret)),)
    )
    async with running(above) as centre:
        uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50)
        async with city_with_thermometers(tmp_path, uplink) as city:
            operator, _ = await city.site.token("city_operator", "4401")
            await step(city.site, "/versions", operator, 201, text=WRONG)
            await step(city.site, "/versions/2/propose", operator)
            since, spoiled = await spoil(city, operator)
            await redecoded(city.site, f"since={since}", operator)

            async def history() -> Spoiled:
                return await City(centre, []).history()

            async def all_there() -> bool:
                return sum(map(len, (await history()).values())) == len(city.sent) + len(spoiled)

            await eventually(all_there, 30)
            assert wrong_in(city, await history(), spoiled) == []

            async def carried() -> bool:
                totals = await city.site.totals()
                return totals["accepted"] == totals.get("forwarded", 0)

            await eventually(carried, 30)
            answer = await centre.ask("GET", "/api/v1/ledger", params={"since": "1h", "by": "reason"})
            assert answer.body["balanced"]
            assert answer.body["totals"]["revised"] == len(spoiled)
