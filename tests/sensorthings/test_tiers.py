"""Observations of nodes at their centre, and those that only the history holds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sensegate.config.history import HistoryConfig
from sensegate.sensorthings.ids import ID_MAX, identity_of, node_number, observation_id
from sensegate.sensorthings.instants import instant_text
from tests.conftest import eventually
from tests.live.site import Site, config_of, reading, running
from tests.sensorthings.serving import HOUR_US, things_serving
from tests.share.made import NOW, Place, make_batch

CITIES = ("4401", "4403", "4453")
COMMITS = 40


@pytest.mark.asyncio
async def test_every_observation_of_every_node_is_found_by_its_id() -> None:
    """At the centre, where the records of several nodes interleave and have the sequences of their homes."""
    async with things_serving(places=()) as things:
        for number in range(COMMITS):
            for city in CITIES[: 1 + number % 3]:
                place = Place(f"d-{city}", f"{city}06", "env", "air")
                rows = [(0, "air_temperature", float(number)), (0, "relative_humidity", 50.0)]
                batch = make_batch(rows, places=[place], node=city, start=NOW + number * HOUR_US)
                home = np.full(len(batch), 1_000 * (1 + CITIES.index(city)) + 7 * number, np.int64)
                await things.write(msgspec.structs.replace(batch, seq=home), f"readings.{city}.all.1")
        listed = await things.values("Observations", top=50)
        assert len({entity["@iot.id"] for entity in listed}) == len(listed) > 2 * COMMITS
        for entity in listed:
            assert await things.ask(f"Observations({entity['@iot.id']})") == entity
        for absent in (observation_id("4403", 2_001, 0), observation_id("4420", 2_000, 0), ID_MAX, 1):
            await things.ask(f"Observations({absent})", expect=404)


@given(
    st.sampled_from(["44", "4401", "4453", "4401-port", "440106"]),
    st.integers(0, 2**37 - 1),
    st.integers(0, 2**20 - 1),
)
def test_the_id_of_an_observation_holds_its_identity(node: str, sequence: int, index: int) -> None:
    """Up to the sequences for which its index leaves bits: the smaller the index, the more."""
    bits = next(bits for bits in (8, 12, 16, 20) if index < 1 << bits)
    sequence &= (1 << (45 - bits)) - 1
    number = observation_id(node, sequence, index)
    assert 0 <= number <= ID_MAX
    identity = identity_of(number)
    assert (identity.node, identity.sequence, identity.index) == (node_number(node), sequence, index)


def test_cities_have_numbers_of_their_own() -> None:
    """Each city of a province, and the province; members with other ids share the rest."""
    codes = [f"44{number:02d}" for number in range(1, 54)]
    numbers = {node_number(code) for code in ("44", *codes)}
    assert len(numbers) == len(codes) + 1
    assert node_number("4401-port") not in numbers


def _things(site: Site) -> Any:
    """Return a function that asks the API as the admin."""

    async def ask(path: str) -> Any:
        answer = await site.ask("GET", f"/sta/v1.1/{path}")
        assert answer.status == 200, (path, answer.body)
        return answer.body

    return ask


@pytest.mark.live
@pytest.mark.asyncio
async def test_history_and_log_together(tmp_path: Path) -> None:
    """The same Observations, in the same order and under the same ids, wherever each of them is read from."""
    config = replace(config_of(tmp_path), history=HistoryConfig(enabled=True, flush_s=0.2))
    begin = int(time.time() // 3_600 * 3_600 - 7_200) * 1_000_000
    async with running(config) as site:
        ask, device = _things(site), await site.device("gz-1", lon=113.36, lat=23.12)
        for number in range(30):
            assert (await site.push(device, reading(number, instant_text(begin + number * 60_000_000)))).status == 202
        (stream,) = (await ask("Datastreams"))["value"]
        path = f"Datastreams({stream['@iot.id']})/Observations"

        async def is_written() -> bool:
            history = await site.ask("GET", "/api/v1/feeds/all/history?from=1d&limit=100")
            return len(history.body["records"]) == 30

        await eventually(is_written)
        for number in range(30, 40):
            assert (await site.push(device, reading(number, instant_text(begin + number * 60_000_000)))).status == 202
        whole = (await ask(f"{path}?$top=100"))["value"]
        assert [entity["result"] for entity in whole] == list(range(39, -1, -1))
        paged: list[Any] = []
        page = await ask(f"{path}?$top=7&$orderby=phenomenonTime")
        while True:
            paged += page["value"]
            if "@iot.nextLink" not in page:
                break
            page = await ask(page["@iot.nextLink"].partition("/sta/v1.1/")[2])
        assert paged == whole[::-1]
        assert (await ask(f"{path}?$count=true&$top=0"))["@iot.count"] == 40
        assert (await ask(f"{path}?$filter=result%20lt%205&$count=true&$top=2"))["@iot.count"] == 5
        answers = [await ask(f"Observations({entity['@iot.id']})") for entity in whole]
        assert json.dumps(answers) == json.dumps(whole)
