"""Emergency drills on whole gateways: a plan written, approved by another, ordered; it widens, tells, sheds, ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.live.site import Answer, Site, config_of, running, tiers

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
PLAN = {
    "title": "防汛 · flood",
    "place": "4401",
    "hours_max": 24,
    "tasks": [
        {
            "profile": "sensegate/plain",
            "task": "report-interval",
            "parameters": {"interval": 5},
            "afterwards": {"interval": 300},
        }
    ],
    "shed": ["illuminance"],
}


async def write(site: Site, name: str, plan: dict[str, Any], token: str | None = None) -> Answer:
    """Write a plan."""
    return await site.ask("PUT", f"/api/v1/emergency-plans/{name}", token, json=plan)


async def approve(site: Site, name: str, revision: int, token: str) -> Answer:
    """Approve it as it is at a revision."""
    headers = {"If-Match": f'"{revision}"'}
    return await site.ask("POST", f"/api/v1/emergency-plans/{name}/approval", token, headers=headers)


async def order(site: Site, name: str, token: str | None = None, **more: Any) -> Answer:
    """Put it in force."""
    wanted = {"plan": name, "hours": 1, "reason": "river rises", **more}
    return await site.ask("POST", "/api/v1/mode-orders", token, json=wanted)


async def state(site: Site, order_id: str) -> dict[str, Any]:
    """Return an order."""
    body: dict[str, Any] = (await site.ask("GET", f"/api/v1/mode-orders/{order_id}")).body
    return body


async def approved(site: Site, name: str, plan: dict[str, Any]) -> None:
    """Write and approve a plan, by two."""
    other, _ = await site.token("city_operator", "4401")
    row = (await write(site, name, plan)).body
    answer = await approve(site, name, row["revision"], other)
    assert answer.status == 200, answer.body


async def test_a_plan_needs_two(node: Site) -> None:
    """A draft cannot be ordered; its writer cannot approve it; a change makes it a draft again."""
    first, _ = await node.token("city_operator", "4401")
    second, _ = await node.token("city_operator", "4401")
    row = (await write(node, "two", PLAN, first)).body
    assert (await order(node, "two", first)).status == 403
    assert (await approve(node, "two", row["revision"], first)).status == 403
    row = (await approve(node, "two", row["revision"], second)).body
    assert row["approved_by"]
    headers = {"If-Match": f'"{row["revision"]}"'}
    changed = {**PLAN, "hours_max": 12}
    row = (await node.ask("PUT", "/api/v1/emergency-plans/two", first, json=changed, headers=headers)).body
    assert row["approved_by"] == ""
    assert (await order(node, "two", first)).status == 403


async def test_who_may(node: Site) -> None:
    """A county may not; another city sees nothing; longer than the plan, without a reason, elsewhere: refused."""
    await approved(node, "who", PLAN)
    county, _ = await node.token("county_operator", "440106")
    assert (await order(node, "who", county)).status == 403
    assert (await order(node, "who", hours=25)).status == 400
    assert (await order(node, "who", reason=" ")).status == 400
    assert (await order(node, "who", place="4403")).status == 403
    assert (await write(node, "bad", {**PLAN, "shed": ["illuminanc"]})).status == 400
    assert (await write(node, "bad", {"title": "t", "place": "4401"})).status == 400


async def test_a_name_taken_elsewhere_tells_nothing(node: Site) -> None:
    """Two places have a plan of the name; neither writer learns of the other; who sees both says which by its id."""
    result, _ = await node.token("city_operator", "440106")
    other, _ = await node.token("city_operator", "440103")
    first = await write(node, "same", {**PLAN, "place": "440106"}, result)
    second = await write(node, "same", {**PLAN, "place": "440103"}, other)
    assert (first.status, second.status) == (200, 200)
    assert (await write(node, "same", {**PLAN, "place": "440106"}, result)).status == 409, "negative control: its own"
    assert (await node.ask("GET", "/api/v1/emergency-plans/same", other)).body["place"] == "440103"
    assert (await node.ask("GET", f"/api/v1/emergency-plans/{first.body['id']}", other)).status == 404
    assert (await node.ask("GET", "/api/v1/emergency-plans/same")).status == 409
    answer = await node.ask("GET", f"/api/v1/emergency-plans/{first.body['id']}")
    assert (answer.status, answer.body["name"], answer.body["place"]) == (200, "same", "440106")
    headers = {"If-Match": f'"{answer.body["revision"]}"'}
    changed = {**PLAN, "place": "440106", "title": "x"}
    path = f"/api/v1/emergency-plans/{first.body['id']}"
    assert (await node.ask("PUT", path, json=changed, headers=headers)).body["name"] == "same"
    assert (await node.ask("PUT", path, result, json=changed, headers=headers)).status == 412, "changed meanwhile"
    assert (await node.ask("DELETE", path)).status == 204
    assert (await node.ask("GET", "/api/v1/emergency-plans/same")).body["place"] == "440103"


async def test_a_drill(node: Site) -> None:
    """Each device of its place is told once, and told back at the end; every record of it says that it was a drill."""
    inside = [await node.device(f"g{number}", division="440106") for number in (1, 2)]
    await node.device("g3", division="440103")
    await approved(node, "drill", PLAN)
    made = (await order(node, "drill", place="440106", drill=True)).body
    await eventually(lambda: steps(node, made["id"], 2))
    rows = (await node.ask("GET", "/api/v1/tasks")).body["rows"]
    mine = [row for row in rows if row["order"] == made["id"]]
    assert sorted(row["device"] for row in mine) == ["g1", "g2"]
    assert all(row["note"] == "drill: river rises" for row in mine)
    for device in inside:
        await node.push(device, json.dumps({"values": {"report_interval": 5}}))
    assert (await order(node, "drill", place="440106")).status == 409
    assert (await node.ask("DELETE", f"/api/v1/mode-orders/{made['id']}")).status == 200
    ended = await eventually(lambda: is_ended(node, made["id"]))
    assert [step["step"] for step in ended["steps"]] == ["task", "shed", "task.end", "shed.end"]
    assert all(step["problem"] == "" or step["step"].startswith("shed") for step in ended["steps"])
    back = [row for row in (await node.ask("GET", "/api/v1/tasks")).body["rows"] if row["order"] == f"{made['id']}.end"]
    assert sorted((row["device"], row["parameters"]["interval"]) for row in back) == [("g1", 300), ("g2", 300)]
    selected = [row for row in await node.audit() if row["after"] and row["after"].get("order") == made["id"]]
    assert {row["action"] for row in selected} >= {"mode.order", "mode.step", "mode.end"}
    assert all(row["after"]["drill"] for row in selected if row["action"].startswith("mode."))


async def steps(site: Site, order_id: str, count: int) -> bool:
    """Return whether an order has done so many steps."""
    return len((await state(site, order_id))["steps"]) >= count


async def is_ended(site: Site, order_id: str) -> dict[str, Any] | None:
    """Return an order once it is undone."""
    order = await state(site, order_id)
    return order if order["state"] == "ended" else None


async def test_it_ends_by_itself_through_a_restart(tmp_path: Path) -> None:
    """An order of two seconds is over, and undone, by the gateway that comes after the one that took it."""
    config = config_of(tmp_path)
    async with running(config) as site:
        await site.device("r1")
        await approved(site, "short", PLAN)
        made = (await order(site, "short", hours=2 / 3600)).body
        await eventually(lambda: steps(site, made["id"], 2))
    async with running(config) as site:
        ended = await eventually(lambda: is_ended(site, made["id"]))
        assert ended["ended_by"] == ""
        rows = [row["order"] for row in (await site.ask("GET", "/api/v1/tasks")).body["rows"]]
        assert sorted(rows) == [made["id"], f"{made['id']}.end"]


async def test_it_widens_grants(node: Site) -> None:
    """A subscriber of another county reads the feed while the order holds, in its place only, and not longer."""
    device, other = await node.device("w1", division="440112"), await node.device("w2", division="440103")
    stranger, stranger_id = await node.token("subscriber", "440105")
    await approved(node, "wide", {**PLAN, "tasks": [], "grants": [{"feed": "all", "subscriber": stranger_id}]})
    made = (await order(node, "wide", place="440112")).body
    await eventually(lambda: steps(node, made["id"], 2))
    for name in (device, other):
        await node.push(name, json.dumps({"values": {"air_temperature": 20}}))
    await eventually(lambda: reads(node, stranger, {"w1"}))
    await node.ask("DELETE", f"/api/v1/mode-orders/{made['id']}")
    await eventually(lambda: is_ended(node, made["id"]))
    assert await reads(node, stranger, set())


async def reads(site: Site, token: str, devices: set[str]) -> bool:
    """Return whether a token reads of these devices, and of no other."""
    answer = await site.ask("GET", "/api/v1/feeds/all/records", token)
    return answer.status == 200 and {row["device"] for row in answer.body["records"]} == devices


async def test_what_is_shed_stays_at_the_node_and_is_accounted_for(tmp_path: Path) -> None:
    """Low priority is withheld from the centre while the order holds, all else goes on; then it comes up, once."""
    async with tiers(tmp_path) as (node, centre):
        device = await node.device("s1")
        await approved(node, "shed", PLAN)

        async def say(value: float, second: int) -> None:
            body = {
                "time": f"2026-01-01T00:00:{second:02d}Z",
                "values": {"illuminance": value, "air_temperature": value},
            }
            assert (await node.push(device, json.dumps(body))).status == 202

        await say(1, 1)
        await eventually(lambda: is_stored(centre, "illuminance", 1))
        made = (await order(node, "shed")).body
        await eventually(lambda: steps(node, made["id"], 2))
        await say(2, 2)
        await eventually(lambda: is_stored(centre, "air_temperature", 2))
        (own, *_) = (await node.ask("GET", "/api/v1/nodes")).body["rows"]
        assert (own["forwarded"], own["withheld"]) == (3, 1)
        assert not await is_stored(centre, "illuminance", 2), "negative control"
        await node.ask("DELETE", f"/api/v1/mode-orders/{made['id']}")
        await eventually(lambda: is_ended(node, made["id"]))
        await say(3, 3)
        await eventually(lambda: is_stored(centre, "illuminance", 3))
        await eventually(lambda: is_stored(centre, "illuminance", 2))
        rows = [row for row in await centre.records() if row["property"] == "illuminance"]
        assert sorted(row["value"] for row in rows) == [1, 2, 3]
        assert [row["value"] for row in rows if "backlog" in row.get("flags", ())] == [2]
        assert [row["value"] for row in await node.records() if row["property"] == "illuminance"] == [1, 2, 3]
        (own, *_) = (await node.ask("GET", "/api/v1/nodes")).body["rows"]
        assert (own["forwarded"], own["withheld"]) == (6, 0)


async def is_stored(site: Site, name: str, value: float) -> bool:
    """Return whether a value has come."""
    return any(row["property"] == name and row["value"] == value for row in await site.records())
