"""A Sparkplug node over real MQTT: it is asked for the birth that is missing, and its death is that of its devices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sensegate.decode.formats.sparkplug import REBIRTH
from sensegate.decode.formats.sparkplug_payload import read
from tests.conftest import eventually
from tests.decode.formats.sparkplug_payloads import metric, payload
from tests.live.site import PLAIN, PROFILES, Made, Site, config_of, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

COMMANDS = "spBv1.0/Water/NCMD/pump-01"
AT = 1_767_225_600_000
UNIT = {"engUnit": ("String", "Cel")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Made]]:
    """A node of 4401 with the Sparkplug profiles, and the edge node's credential; one probe stands behind it."""
    directory: Path = tmp_path_factory.mktemp("sparkplug")
    profiles = (str(PLAIN), str(PROFILES / "sparkplug"))
    async with running(config_of(directory, profiles=profiles)) as site:
        node = await site.device("n1", profile="sparkplug/pump-station", alias="Water/pump-01")
        async with site.phone() as before:
            assert await before.connect(node.id, node.password) == 0
            await site.device("p1", profile="sparkplug/water-probe", alias="Water/pump-01/probe-A", gateway="n1")
            await before.next("closed")  # a device behind it widens its rights: it comes again
        await site.device("n2", profile="sparkplug/pump-station", alias="Water/pump-02")
        yield site, node


async def test_a_birth_that_is_missing_is_asked_for_and_heard(gateway: tuple[Site, Made]) -> None:
    """Values by alias are kept in quarantine, the node gets its command, and from its births on it is understood."""
    site, node = gateway
    async with site.phone() as phone:
        assert await phone.connect(node.id, node.password) == 0
        assert await phone.subscribe(COMMANDS) == 1
        assert await phone.subscribe("spBv1.0/Water/NCMD/pump-02") == 128
        assert await phone.subscribe("spBv1.0/STATE/host-01") == 1
        value = metric(alias=10, value=21.5, as_kind="Double", timestamp=AT - 60_000)
        phone.send("spBv1.0/Water/DDATA/pump-01/probe-A", payload(value, seq=7), qos=0)
        topic, command = await phone.next("message")
        assert topic == COMMANDS
        assert [(metric.name, metric.read(None)) for metric in read(command, 4).metrics] == [(REBIRTH, True)]
        rows = await eventually(site.quarantine)  # the command does not wait for the commit
        assert [(row["reason"], row["device"]) for row in rows] == [("unresolved", "p1")]

        level = metric("Level", "Double", 2.5, alias=1, timestamp=AT)
        phone.send("spBv1.0/Water/NBIRTH/pump-01", payload(metric("bdSeq", "UInt64", 4), level, seq=0, timestamp=AT), 0)
        born = metric("temperature", "Double", 20.5, alias=10, timestamp=AT, props=UNIT)
        phone.send("spBv1.0/Water/DBIRTH/pump-01/probe-A", payload(born, seq=1, timestamp=AT), 0)
        later = metric(alias=10, value=21.75, as_kind="Double", timestamp=AT + 1_000)
        phone.send("spBv1.0/Water/DDATA/pump-01/probe-A", payload(later, seq=2), 0)

        async def temperatures() -> list[float]:
            rows = [row for row in await site.records(device="p1") if row["property"] == "water_temperature"]
            return [row["value"] for row in rows] if len(rows) == 2 else []

        assert await eventually(temperatures) == [20.5, 21.75]

        # What came before the birth is read by it when it is decoded again.
        path = "/api/v1/profiles/sparkplug/water-probe/redecode"
        order = (await site.ask("POST", f"{path}?since=1h", json={"selection": "quarantine"})).body

        async def done() -> dict[str, Any] | None:
            row: dict[str, Any] = (await site.ask("GET", f"{path}/{order['id']}")).body
            return row if row["state"] not in {"waiting", "running"} else None

        result = await eventually(done, 30)
        assert (result["state"], result["recovered"], result["added"]) == ("done", 1, 1)
        values = [row["value"] for row in await site.records(device="p1") if row["property"] == "water_temperature"]
        assert sorted(values) == [20.5, 21.5, 21.75]
        await phone.publish("spBv1.0/Water/NDEATH/pump-01", payload(metric("bdSeq", "UInt64", 4), timestamp=None))

        async def gone() -> list[str]:
            rows = [row for row in await site.records() if row["property"] == "online" and row["value"] is False]
            return sorted(row["device"] for row in rows) if len(rows) == 2 else []

        assert await eventually(gone) == ["n1", "p1"]
    totals = await site.totals()
    assert totals["quarantined.unresolved"] == 1


async def test_another_nodes_topics_are_closed(gateway: tuple[Site, Made]) -> None:
    """A birth in the name of another node is dropped by the broker and counted."""
    site, node = gateway
    before = await site.metric('sensegate_permission_denied_total{operation="publish"}')
    async with site.phone() as phone:
        assert await phone.connect(node.id, node.password) == 0
        await phone.publish("spBv1.0/Water/NBIRTH/pump-02", payload(metric("Level", "Double", 9.0), seq=0))

        async def counted() -> bool:
            return await site.metric('sensegate_permission_denied_total{operation="publish"}') == before + 1

        await eventually(counted)
    assert await site.records(device="n2") == []
