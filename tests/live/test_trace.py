"""One reading traced from its message at the node to the span at the centre and to those who read it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sensegate.cli import app
from tests.conftest import eventually
from tests.live.site import Site, reading, tiers

pytestmark = pytest.mark.live


def steps_of(answer: Any) -> dict[str, str]:
    """Return the detail of each step of a trace."""
    return {step["step"]: step.get("detail", "") for step in answer["steps"]}


async def of_device(site: Site, device: str) -> list[dict[str, Any]]:
    """Return the records of a device."""
    answer = await site.ask("GET", f"/api/v1/feeds/all/records?device={device}")
    records: list[dict[str, Any]] = answer.body["records"]
    return records


async def test_the_way_of_a_reading(tmp_path: Path) -> None:
    """At the node: message, batch, commit, span, deliveries; at the centre: the span and its commit; by every name."""
    async with tiers(tmp_path) as (node, centre):
        device = await node.device("traced-1")
        stamp = datetime.fromtimestamp(int(time.time()) - 60, UTC).isoformat()
        # Others before and after it: the trace must not take theirs.
        for value, at in ((20.5, "2026-01-01T00:00:00Z"), (21.5, stamp), (22.5, "2026-01-01T00:01:00Z")):
            assert (await node.push(device, reading(value, at))).status == 202  # committed by then, each by itself
        record = next(row for row in await of_device(node, device.id) if row["value"] == 21.5)
        token, _ = await node.token("subscriber", "4401")
        async with node.stream(token) as stream:
            for _ in range(3):
                await stream.record()

            async def confirmed() -> bool:
                answer = await node.ask("GET", "/api/v1/trace", params={"record": record["id"]})
                return "confirmed by the centre" in steps_of(answer.body).get("span", "")

            await eventually(confirmed)
            traces = [
                (await node.ask("GET", "/api/v1/trace", params=query)).body
                for query in (
                    {"record": record["id"]},
                    {"record": record["cursor"]},
                    {"device": device.id, "time": stamp, "property": "air_temperature"},
                )
            ]
        for trace in traces:
            assert (trace["record"], trace["device"], trace["property"]) == (record["id"], device.id, "air_temperature")
            assert [step["step"] for step in trace["steps"]][:4] == ["message", "commit", "reading", "span"]
            details = steps_of(trace)
            assert "bytes of messages as received" in details["message"]
            assert "replaced" in details["commit"], "the third has one of its own by now"
            assert "sensegate/plain" in details["reading"]
            assert any(step["step"] == "delivery" and "is past it" in step["detail"] for step in trace["steps"])
            sequences = [step["sequence"] for step in trace["steps"] if step.get("sequence")]
            assert len(sequences) == 2
            assert sequences[0] < sequences[1], "the message, then its reading"
        last = next(row for row in await of_device(node, device.id) if row["value"] == 22.5)
        trace = (await node.ask("GET", "/api/v1/trace", params={"record": last["id"]})).body
        assert [step["step"] for step in trace["steps"]][:5] == ["message", "batch", "commit", "reading", "span"]
        assert "commit.4401-0" in steps_of(trace)["commit"]
        sequences = [step["sequence"] for step in trace["steps"] if step.get("sequence")]
        assert sequences[0] < sequences[2] < sequences[1], "the message, its reading, then the commit"
        other = next(row for row in await of_device(node, device.id) if row["value"] == 20.5)
        apart = (await node.ask("GET", "/api/v1/trace", params={"record": other["id"]})).body
        assert apart["steps"][0]["sequence"] != traces[0]["steps"][0]["sequence"]

        async def at_centre() -> Any:
            return len(await of_device(centre, device.id)) == 3

        await eventually(at_centre)
        trace = (await centre.ask("GET", "/api/v1/trace", params={"record": last["id"]})).body
        assert trace["record"] == last["id"]
        assert "taken here" in steps_of(trace)["span"]
        for query, status in (
            ({}, 400),
            ({"record": "nonsense"}, 400),
            ({"device": device.id}, 400),
            ({"record": record["id"], "device": "x", "time": stamp}, 400),
            ({"record": "4401-0-00000000999999-1"}, 404),
            ({"record": record["id"].rpartition("-")[0] + "-999"}, 404),
            ({"device": "absent", "time": stamp}, 404),
        ):
            assert (await node.ask("GET", "/api/v1/trace", params=query)).status == status, query
        assert (await node.ask("GET", "/api/v1/trace", token, params={"record": record["id"]})).status == 403
        elsewhere, _ = await node.token("county_operator", "440103")
        refused = await node.ask("GET", "/api/v1/trace", elsewhere, params={"record": record["id"]})
        absent = await node.ask("GET", "/api/v1/trace", elsewhere, params={"record": "4401-0-00000000999999-1"})
        assert (refused.status, refused.body["detail"]) == (absent.status, absent.body["detail"])
        command = ["trace", record["id"], "--url", node.addresses.http, "--token", node.admin]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.output
        assert f"{record['id']}: traced-1 air_temperature of 440106" in result.output
        assert "message" in result.output
