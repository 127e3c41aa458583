"""Corrections: readings of a span withdrawn, set to another quality, taken back; once through restarts, everywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.conftest import eventually
from tests.live.site import Site, config_of, reading, running

MINUTES = 6
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=MINUTES)
"""Within the horizon of deduplication."""


def stamp(minute: int) -> str:
    """Return the time of a reading."""
    return (BEGIN + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")


async def ordered(site: Site, action: str, **more: Any) -> dict[str, Any]:
    """Order a correction of the minutes 2 and 3 and return it once it has ended."""
    body = {"action": action, "devices": ["air-1"], "begin": stamp(2), "end": stamp(4)}
    answer = await site.ask("POST", "/api/v1/corrections", json={**body, "note": "calibration", **more})
    assert answer.status == 202, answer.body

    async def ended() -> dict[str, Any] | None:
        row: dict[str, Any] = (await site.ask("GET", f"/api/v1/corrections/{answer.body['id']}")).body
        return row if row["state"] != "waiting" else None

    row: dict[str, Any] = await eventually(ended, 30)
    return row


async def newest(site: Site) -> dict[tuple[str, str], tuple[int, str, list[str]]]:
    """Return (device, time) -> (revision, quality, marks of corrections) of the newest revision in the feed."""
    rows: dict[tuple[str, str], tuple[int, str, list[str]]] = {}
    for record in await site.records():
        marks = sorted({"withdrawn", "corrected"} & {*record["flags"]})
        rows[record["device"], record["time"][:19] + "Z"] = (record["revision"], record["quality"], marks)
    return rows


async def test_readings_of_a_span_are_withdrawn_and_taken_back(tmp_path: Path) -> None:
    """Only those of the device in the span; a second time nothing; counted as revisions; duplicates are still known."""
    config = config_of(tmp_path)
    async with running(config) as site:
        devices = [await site.device("air-1"), await site.device("air-2")]
        for device in devices:
            for minute in range(MINUTES):
                assert (await site.push(device, reading(20 + minute, stamp(minute)))).status == 202
        before = await newest(site)
        assert {row[0] for row in before.values()} == {0}
        done = await ordered(site, "withdraw")
        assert (done["state"], done["corrected"], done["quality"]) == ("done", 2, "bad")
        expected = before | {("air-1", stamp(minute)): (1, "bad", ["withdrawn"]) for minute in (2, 3)}
        assert await newest(site) == expected
        assert (await ordered(site, "withdraw"))["corrected"] == 0
        other, _ = await site.token("county_operator", "440103")
        assert (await site.ask("GET", f"/api/v1/corrections/{done['id']}", other)).status == 404
    async with running(config) as site:
        assert await newest(site) == expected
        taken_back = await ordered(site, "annotate", quality="uncertain_calibration", properties=["air_temperature"])
        assert taken_back["corrected"] == 2
        marks = (2, "uncertain_calibration", ["corrected"])
        assert await newest(site) == before | {("air-1", stamp(minute)): marks for minute in (2, 3)}
        assert (await site.push(devices[0], reading(22, stamp(2)))).status == 202

        async def duplicates() -> bool:
            return sum(count for kind, count in (await site.totals()).items() if kind.startswith("duplicate.")) == 1

        # The ledger's page follows the log, a moment behind the answer.
        await eventually(duplicates, 30)
        totals = await site.totals()
        assert (totals["revised"], totals["accepted"]) == (4, 2 * MINUTES + 4)
        actions = {row["action"] for row in await site.audit()}
        assert {"readings.withdraw", "readings.withdraw.done", "readings.annotate"} <= actions
        assert (await site.ask("GET", "/readyz", "")).body["reasons"] == []


async def test_what_cannot_be_ordered_is_refused(tmp_path: Path) -> None:
    """By its key, with the remedy; a device of another scope is not there."""
    async with running(config_of(tmp_path)) as site:
        await site.device("air-1")
        body = {"action": "withdraw", "devices": ["air-1"], "begin": "2026-01-01T00:00:00Z", "note": "x"}
        for changes, status, words in (
            ({"end": "2026-01-01"}, 400, "no time with a zone"),
            ({"end": "2025-01-01T00:00:00Z"}, 400, "not before"),
            ({"end": "2027-01-01T00:00:00Z", "action": "annotate"}, 400, "quality"),
            ({"end": "2027-01-01T00:00:00Z", "quality": "good"}, 400, "leave it out"),
            ({"end": "2027-01-01T00:00:00Z", "devices": ["air-9"]}, 404, "no device air-9"),
            ({"end": "2027-01-01T00:00:00Z", "properties": ["pm25#b"]}, 400, "did you mean 'pm2_5'"),
        ):
            answer = await site.ask("POST", "/api/v1/corrections", json={**body, **changes})
            assert (answer.status, words in answer.body["detail"]) == (status, True), answer.body
