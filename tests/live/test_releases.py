"""The life of a profile at a running node: in force without a restart, for some first, and back again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import eventually
from tests.live.releasing import PATH, job, proposed, step, version
from tests.live.site import PLAIN, Made, Site, config_of, running
from tests.support.thermometer import THERMOMETER, write

pytestmark = pytest.mark.live


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node with the thermometer, version 1, in its folder."""
    folder = tmp_path_factory.mktemp("profiles")
    write(folder, THERMOMETER)
    config = config_of(tmp_path_factory.mktemp("node"), profiles=(str(folder), str(PLAIN)))
    async with running(config) as site:
        yield site


async def values(site: Site, device: Made) -> list[tuple[float, str]]:
    """Return (value, profile) of a device's readings."""
    return [(row["value"], row["profile"]) for row in await site.records(device=device.id)]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_release_is_in_force_without_a_restart(node: Site) -> None:
    """From the next message on, on the connection that is open; the folder's version can be gone back to."""
    device = await node.device("released-1", profile="acme/th")
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        await phone.publish("acme/released-1/up", '{"t": 200}')

        async def count(wanted: int) -> bool:
            return len(await values(node, device)) == wanted

        await eventually(lambda: count(1))
        await proposed(node, 2, scale=0.01)
        result = await step(node, "/versions/2/release", note="hundredths")
        assert result["applied"]
        assert [(release["version"], release["target"]) for release in result["force"]] == [(2, "4401")]
        await phone.publish("acme/released-1/up", '{"t": 2100}')
        await eventually(lambda: count(2))
        result = await step(node, "/rollback")
        assert [release["version"] for release in result["force"]] == [1]
        await phone.publish("acme/released-1/up", '{"t": 220}')
        await eventually(lambda: count(3))
        assert await values(node, device) == [(20, "acme/th@1"), (21, "acme/th@2"), (22, "acme/th@1")]
        assert phone.connected, "its rights were never others"
    rows = (await node.ask("GET", f"{PATH}/versions")).body["rows"]
    assert [(row["version"], row["state"], row["library"]) for row in rows] == [
        (1, "released", True),
        (2, "superseded", False),
    ]
    steps = [row["action"] for row in await node.audit() if row["target"].startswith("acme/th@")]
    assert steps == ["profile.draft", "profile.propose", "profile.release", "profile.rollback"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_refused_bears_the_version(node: Site) -> None:
    """In quarantine stands by which version a message could not be read."""
    device = await node.device("refused-1", profile="acme/th")
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        await phone.publish("acme/refused-1/up", "no JSON")

        async def refused() -> list[dict[str, Any]]:
            return await node.quarantine(device=device.id)

        row = (await eventually(refused))[0]
        body = (await node.ask("GET", f"{PATH}/history")).body
        assert row["profile"] == f"acme/th@{body['force'][0]['version']}"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_release_that_changes_topics_closes_connections(node: Site) -> None:
    """The device comes again with the new rights; the old topic is closed to it."""
    device = await node.device("moved-1", profile="acme/th")
    plain = await node.device("unmoved-1")
    async with node.phone() as phone, node.phone() as other:
        assert await phone.connect(device.id, device.password) == 0
        assert await other.connect(plain.id, plain.password) == 0
        await proposed(node, 3, topic="acme/{device}/now")
        await step(node, "/versions/3/release")
        await phone.next("closed")
        async with node.phone() as reconnected:
            assert await reconnected.connect(device.id, device.password) == 0
            await reconnected.publish("acme/moved-1/now", '{"t": 230}')

            async def there() -> bool:
                return await values(node, device) == [(23, "acme/th@3")]

            await eventually(there)
        assert other.connected, "a device of another profile is not disturbed"
    await step(node, "/rollback")


@pytest.mark.asyncio(loop_scope="module")
async def test_roles_and_scopes_over_rest(node: Site) -> None:
    """County proposes, city releases; others are told 403 or 404; wrong requests 400."""
    county, _ = await node.token("county_operator", "440106")
    city, _ = await node.token("city_operator", "4401")
    subscriber, _ = await node.token("subscriber", "4401")
    text = version(10)
    for token in (subscriber,):
        await step(node, "/versions", token, 403, text=text)
        assert (await node.ask("GET", f"{PATH}/versions", token)).status == 403
    await step(node, "/versions", county, 201, text=text)
    await step(node, "/versions/10/release", county, 403)
    await step(node, "/versions/10/release", city, 409)
    await step(node, "/versions/10/propose", county)
    await step(node, "/versions/10/canary", county, 403, share=0.1)
    await step(node, "/versions/10/canary", city, 400, share=0.1, devices=["x"])
    await step(node, "/versions/10/canary", city, 400, share=2)
    await step(node, "/versions/11/release", city, 404)
    await step(node, "/versions/x/release", city, 400)
    await step(node, "/versions/10/release", city, 400, target="9")
    await step(node, "/versions", county, 400, text=text.replace("acme/th", "acme/other"))
    wrong = await step(node, "/versions", county, 400, text=text.replace("air_temperature", "air_temprature"))
    assert "acme/th.yaml:9: messages[0].readings[0].property" in wrong["detail"]
    await step(node, "/versions/10/return", city, note="not yet")
    assert (await node.ask("DELETE", f"{PATH}/versions/10", county)).status == 200
    standard = "/api/v1/profiles/sensegate/plain/versions"
    plain = PLAIN.read_text(encoding="utf-8").replace("version: 1", "version: 2", 1)
    assert (await node.ask("POST", standard, city, json={"text": plain})).status == 201
    assert (await node.ask("POST", f"{standard}/2/propose", city, json={})).status == 200
    refused = await node.ask("POST", f"{standard}/2/release", city, json={})
    assert refused.status == 403
    assert "only the province (44)" in refused.body["detail"]


async def test_what_was_decided_outlives_a_restart(tmp_path: Path) -> None:
    """The release is in force from the first message after it; the laid-out files are not what decides."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    write(folder, THERMOMETER)
    config = config_of(tmp_path / "node", profiles=(str(folder), str(PLAIN)))
    async with running(config) as site:
        device = await site.device("kept-1", profile="acme/th")
        await proposed(site, 2, scale=0.01)
        await step(site, "/versions/2/release")
    for file in (tmp_path / "node" / "profiles").rglob("th.yaml"):
        file.write_text(THERMOMETER, encoding="utf-8")
    async with running(config) as site, site.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        await phone.publish("acme/kept-1/up", '{"t": 2100}')

        async def there() -> bool:
            return await values(site, device) == [(21, "acme/th@2")]

        await eventually(there)
    await asyncio.sleep(0)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_canary_that_does_worse_is_rolled_back(node: Site) -> None:
    """Out of range for a tenth of the devices: the gateway itself gives them back the version of the others."""
    devices = [await node.device(f"flock-{number}", profile="acme/th") for number in range(20)]
    await proposed(node, 20, scale=10)
    result = await step(node, "/versions/20/canary", share=0.1, least=10)
    count = result["canary"]["count"]
    assert count >= 2
    before = result["force"][0]["version"]

    async def ended() -> bool:
        for device in devices:
            await node.push(device, '{"t": 215}')
        return (await node.ask("GET", f"{PATH}/history")).body["canary"] is None

    await eventually(ended)
    rolled = next(
        row for row in await node.audit() if row["action"] == "profile.rollback" and row["target"] == "acme/th@20"
    )
    assert (rolled["actor"], rolled["role"]) == ("canary-watch", "admin")
    assert "doubted, the others 0.0%" in rolled["after"]["note"]
    assert rolled["after"]["measured"]["canary"]["faults"] >= 10
    rows = [(row["device"], row["profile"]) for row in await node.records() if row["device"].startswith("flock-")]
    assert 1 <= len({device for device, profile in rows if profile == "acme/th@20"}) <= count
    for device in devices:
        await node.push(device, '{"t": 220}')
    last = {row["device"]: row for row in await node.records() if row["device"].startswith("flock-")}
    assert {row["profile"] for row in last.values()} == {f"acme/th@{before}"}
    assert {(row["value"], row["quality"]) for row in last.values()} == {(22, "good")}, "no step between two versions"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_canary_that_does_well_goes_on(node: Site) -> None:
    """The control: the same traffic by a version without the fault."""
    devices = [await node.device(f"herd-{number}", profile="acme/th") for number in range(20)]
    await proposed(node, 21)
    await step(node, "/versions/21/canary", share=0.5, least=10)
    for _ in range(3):
        for device in devices:
            await node.push(device, '{"t": 215}')
    canary = (await node.ask("GET", f"{PATH}/history")).body["canary"]
    assert canary["version"] == 21
    assert canary["outcomes"] >= 10
    assert (canary["rejected"], canary["faults"]) == (0.0, 0.0)
    assert (await node.ask("DELETE", f"{PATH}/canary")).body["canary"] is None


async def as_the_folder_says(site: Site) -> None:
    """Have version 1 in force, whatever was before."""
    if (await site.ask("GET", f"{PATH}/history")).body["force"]:
        await step(site, "/rollback", to=1)


@pytest.mark.asyncio(loop_scope="module")
async def test_diff_over_what_the_log_recorded(node: Site) -> None:
    """What a version would change is named before it is in force; cut to the caller; messages in quarantine count."""
    await as_the_folder_says(node)
    near, far = await node.device("diff-1", profile="acme/th"), await node.device("diff-2", "440103", profile="acme/th")
    for value in range(200, 205):
        for device in (near, far):
            await node.push(device, f'{{"t": {value}}}')
    await node.push(near, "no JSON")
    chosen: dict[str, Any] = {"devices": ["diff-1", "diff-2"]}
    result = (await job(node, "/diff?since=1h", text=version(30, scale=1.0), **chosen))["report"]
    rows = {row["device"]: row for row in result["differences"]}
    assert rows["diff-1"] == {
        "kind": "value",
        "device": "diff-1",
        "property": "air_temperature",
        "unit": "Cel",
        "a": 20.0,
        "b": 200.0,
        "count": 5,
        "factor": 10.0,
    }
    assert rows["diff-2"]["count"] == 5
    assert (result["messages"], result["same"], result["b"]["outside"]) == (11, 0, 10)
    assert result["a"]["quarantined"] == result["b"]["quarantined"] == {"malformed": 1}
    county, _ = await node.token("county_operator", "440106")
    result = (await job(node, "/diff?since=1h", county, text=version(30, scale=1.0), **chosen))["report"]
    assert [row["device"] for row in result["differences"]] == ["diff-1"]
    result = (await job(node, "/diff?since=1h", a=1, b=2, **chosen))["report"]
    assert {row["factor"] for row in result["differences"]} == {0.1}
    assert (await node.ask("POST", f"{PATH}/diff", county, json={"a": 1, "b": 99})).status == 404
    assert (await node.ask("POST", f"{PATH}/diff", county, json={"a": 1, "b": 1})).status == 400
    assert (await node.ask("POST", f"{PATH}/diff?since=x", county, json={"a": 1, "b": 2})).status == 400
    subscriber, _ = await node.token("subscriber", "4401")
    assert (await node.ask("POST", f"{PATH}/diff", subscriber, json={"a": 1, "b": 2})).status == 403


@pytest.mark.asyncio(loop_scope="module")
async def test_a_shadow_beside_live_traffic(node: Site) -> None:
    """It tells what it would have said, and no reading bears its number."""
    await as_the_folder_says(node)
    device = await node.device("shadowed-1", profile="acme/th")
    await step(node, "/versions", text=version(31, scale=1.0), expect=201)
    await step(node, "/versions/31/shadow", devices=["shadowed-1"])

    async def warned() -> dict[str, Any] | None:
        await node.push(device, '{"t": 215}')
        answer = await node.ask("GET", f"{PATH}/shadow")
        return answer.body if answer.status == 200 and answer.body["report"]["differences"] else None

    result = await eventually(warned)
    row = result["report"]["differences"][0]
    assert (row["device"], row["a"], row["b"], row["factor"]) == ("shadowed-1", 21.5, 215, 10)
    assert result["left_out"] == 0
    assert {profile for _, profile in await values(node, device)} == {"acme/th@1"}
    assert (await node.ask("DELETE", f"{PATH}/shadow")).status == 200
    last = (await node.audit())[-1]
    assert (last["action"], last["target"]) == ("profile.shadow.end", "acme/th@31")
    assert last["after"]["report"]["differences"][0]["factor"] == 10
    assert (await node.ask("GET", f"{PATH}/shadow")).status == 404


async def test_a_release_for_qos_0_is_heard_without_a_restart(tmp_path: Path) -> None:
    """Until then messages of QoS 0 are not taken; the released version asks for them."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    write(folder, THERMOMETER)
    async with running(config_of(tmp_path / "node", profiles=(str(folder), str(PLAIN)))) as site, site.phone() as phone:
        device = await site.device("zero", profile="acme/th")
        assert await phone.connect(device.id, device.password) == 0
        phone.send("acme/zero/up", '{"t": 190}', qos=0)
        await phone.publish("acme/zero/up", '{"t": 200}')
        await eventually(lambda: has_values(site, device, [20]))
        text = version(2).replace("version: 2\n", "version: 2\nqos: 0\n", 1)
        await step(site, "/versions", text=text, expect=201)
        await step(site, "/versions/2/propose")
        await step(site, "/versions/2/release")

        async def taken() -> bool:
            phone.send("acme/zero/up", '{"t": 210}', qos=0)
            return await has_values(site, device, [20, 21])

        await eventually(taken)


async def has_values(site: Site, device: Made, wanted: list[float]) -> bool:
    """Return whether exactly these values are on the feed, each at least once."""
    return {value for value, _ in await values(site, device)} == set(wanted)
