"""What devices may not do, whole: from the socket of a real client to the ledger, the audit trail and the feed."""

from __future__ import annotations

import time

import pytest

from tests.conftest import eventually
from tests.live.phone import NOT_AUTHORISED
from tests.live.site import Site, reading

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


async def _refused(site: Site, device: str) -> dict[str, int]:
    """Return what the ledger of refusals says of a device."""
    answer = await site.ask("GET", "/metrics", "")
    assert device.encode() not in answer.body, "metrics name no device"
    return {}


async def test_a_wrong_password(node: Site) -> None:
    """CONNACK 5, counted; the right one gets in."""
    device = await node.device("wrong-password")
    before = await node.metric('sensegate_refused_total{what="connect"}')
    async with node.phone() as thief, node.phone() as owner:
        assert await thief.connect(device.id, "x" + device.password[1:]) == NOT_AUTHORISED
        assert await node.metric('sensegate_refused_total{what="connect"}') == before + 1
        assert await owner.connect(device.id, device.password) == 0


async def test_publishing_to_the_topic_of_another(node: Site) -> None:
    """Dropped, counted as refused for that device, alarmed on the audit trail; its own topic gets through."""
    device, victim = await node.device("forger"), await node.device("victim")
    before = await node.metric('sensegate_refused_total{what="publish"}')
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        await phone.publish(f"sg/{victim.id}/up", reading(66))
        await phone.publish(f"sg/{device.id}/up", reading(22))

        async def own() -> object:
            return await node.records(device=device.id)

        assert [row["value"] for row in await eventually(own)] == [22]
    assert await node.records(device=victim.id) == []
    assert await node.metric('sensegate_refused_total{what="publish"}') == before + 1

    async def alarm() -> object:
        return [row for row in await node.audit() if row["action"] == "refused.publish"]

    row = (await eventually(alarm))[0]
    assert (row["actor"], row["after"]["detail"], row["after"]["count"]) == (device.id, f"sg.{victim.id}.up", 1)
