"""Cameras' metadata through a running gateway: cut before the first write, observations and counts on one feed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec import structs

from sensegate.clock import SystemClock
from sensegate.config import EngineConfig, NodeUserConfig, UplinkConfig
from sensegate.config.video import BasisConfig, VideoConfig
from sensegate.video.formats import FORMATS
from tests.conftest import eventually
from tests.live.site import PLAIN, Made, Site, config_of, running
from tests.video import tiny

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

NOW = SystemClock().now()
PLATE, NAME = "粤B12345", "李雷"


def sighting(number: int, **more: Any) -> bytes:
    observation = {"id": str(number), "at": NOW + number, "class": "vehicle", **more}
    return json.dumps(observation, ensure_ascii=False).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Made]]:
    """A node of 4401 with a camera of the tests' own format."""
    directory: Path = tmp_path_factory.mktemp("video")
    profile = directory / "acme" / "tiny-camera.yaml"
    profile.parent.mkdir()
    profile.write_text(tiny.PROFILE, encoding="utf-8")
    secret = directory / "secret"
    secret.write_text("s" * 32)
    centre_config = structs.replace(
        config_of(directory / "44", "44"), nodes=(NodeUserConfig(division="4401", secret_file=str(secret)),)
    )
    node_config = config_of(directory / "4401", profiles=(str(PLAIN), str(profile)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, tiny.NAME, tiny.FORMAT)
        async with running(centre_config) as centre:
            uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50)
            async with running(structs.replace(node_config, uplink=uplink)) as site:
                made = await site.device("cam1", profile="acme/tiny-camera")
                site.centre = centre
                yield site, made


async def test_a_sighting_becomes_an_observation_and_a_count_a_reading(gateway: tuple[Site, Made]) -> None:
    """What may be kept comes out of the feed, the plate as a pseudonym; each field taken out is counted."""
    site, camera = gateway
    async with site.phone() as phone:
        assert await phone.connect(camera.id, camera.password) == 0
        phone.send("cam/cam1/meta", sighting(1, plate=PLATE, name=NAME, track="t1", sure=0.5))
        phone.send("cam/cam1/meta", sighting(2, plate=PLATE, track="t1", sure=0.5))
        phone.send("cam/cam1/meta", sighting(3, plate=PLATE, track="t1", sure=0.5, end=True))
        phone.send("cam/cam1/meta", sighting(3, plate=PLATE, track="t1", sure=0.5, end=True))
        phone.send("cam/cam1/meta", json.dumps({"at": NOW, "count": 7, "lane": 2, "who": NAME}).encode())

        async def stored() -> list[dict[str, Any]]:
            rows = await site.records(device="cam1")
            return rows if len(rows) == 3 else []

        rows = await eventually(stored)
    documents = [json.loads(row["value"]) for row in rows if row["property"] == "video_observation"]
    counts = [row for row in rows if row["property"] == "object_count"]
    assert [document["native_id"] for document in documents] == ["1", "3"]
    assert {document["plate"]["region"] for document in documents} == {"粤B"}
    assert len({document["plate"]["token"] for document in documents}) == 1
    assert [(row["value"], row["unit"], row["channel"]) for row in counts] == [(7, "1", "lane2")]
    assert PLATE not in json.dumps(rows, ensure_ascii=False)

    async def above() -> list[dict[str, Any]]:
        records = await site.centre.records(device="cam1")
        return records if len(records) == 3 else []

    # Observations and readings are parts of their own on the link, so that their order may differ above.
    result = await eventually(above)
    assert sorted(str(row["value"]) for row in result) == sorted(str(row["value"]) for row in rows)
    feed = {"name": "traffic", "divisions": ["44"]}
    assert (await site.centre.ask("POST", "/api/v1/feeds", json=feed)).status == 201
    answer = await site.centre.ask("GET", "/api/v1/feeds/traffic/records")
    assert [row["property"] for row in answer.body["records"]] == ["object_count"]

    totals = await site.totals()
    assert totals["downsampled"] == 1
    assert totals["removed.tiny.name"] == totals["removed.tiny.who"] == 1
    assert totals["duplicate.redelivery"] + totals.get("duplicate.repeat", 0) == 1
    assert await site.metric('sensegate_video_fields_removed_total{field="name",format="tiny"}') == 1


async def test_what_cannot_be_cut_is_not_kept(gateway: tuple[Site, Made]) -> None:
    """Quarantine tells what happened, and holds nothing of the message; so with a bug in the format."""
    site, camera = gateway
    async with site.phone() as phone:
        assert await phone.connect(camera.id, camera.password) == 0
        phone.send("cam/cam1/meta", f'{{"name": "{NAME}", '.encode())
        phone.send("cam/cam1/meta", NAME.encode("gb18030"))
        phone.send("cam/cam1/meta", json.dumps({"at": "crash", "nothing": [], "name": NAME}).encode())

        async def refused() -> list[dict[str, Any]]:
            rows = await site.quarantine()
            return rows if len(rows) == 3 else []

        rows = await eventually(refused)
    assert sorted(row["reason"] for row in rows) == ["crashed", "malformed", "not_utf8"]
    assert {row["device"] for row in rows} == {"cam1"}
    for row in rows:
        assert row["payload"].startswith('{"video":"tiny"')
    assert NAME not in json.dumps(rows, ensure_ascii=False)


async def test_topics_and_messages_that_no_rule_reads(gateway: tuple[Site, Made]) -> None:
    """A level of a topic that is free text is hidden; what a camera's profile ignores is not kept either."""
    site, camera = gateway
    async with site.phone() as phone:
        assert await phone.connect(camera.id, camera.password) == 0
        before = len(await site.records(device="cam1"))
        phone.send(f"cam/cam1/seen/{NAME}", sighting(11))
        phone.send("cam/cam1/seen/gate_2", sighting(12))
        phone.send("cam/cam1/alive", f"{NAME} is here".encode())

        async def is_stored() -> bool:
            return len(await site.records(device="cam1")) == before + 2

        await eventually(is_stored)
    assert (await site.totals())["removed.tiny.topic"] == 1


async def test_by_http_the_same(gateway: tuple[Site, Made]) -> None:
    """What a camera pushes by HTTP is cut as well; the answer comes after the commit."""
    site, camera = gateway
    assert (await site.push(camera, sighting(21, plate=PLATE, name=NAME))).status == 202
    rows = await site.records(device="cam1")
    assert json.loads(rows[-1]["value"])["native_id"] == "21"
    assert (await site.push(camera, f'{{"name": "{NAME}"}}'.encode())).status == 202
    assert NAME not in json.dumps(await site.quarantine(), ensure_ascii=False)


async def test_a_legal_basis_lets_its_field_pass_and_is_on_the_trail(tmp_path: Path) -> None:
    """With a written basis the number of a plate stands in observations; purpose and law stand in the audit trail."""
    profile = tmp_path / "acme" / "tiny-camera.yaml"
    profile.parent.mkdir()
    profile.write_text(tiny.PROFILE, encoding="utf-8")
    basis = BasisConfig(
        purpose="stolen vehicles",
        law="decision 12/2026",
        kinds=("vehicle",),
        fields=("plate.number",),
        expires="2099-12-31",
    )
    config = structs.replace(
        config_of(tmp_path / "run", profiles=(str(PLAIN), str(profile))), video=VideoConfig(basis=(basis,))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, tiny.NAME, tiny.FORMAT)
        async with running(config) as site:
            camera = await site.device("cam1", profile="acme/tiny-camera")
            assert (await site.push(camera, sighting(31, plate=PLATE, name=NAME))).status == 202
            [row] = await site.records(device="cam1")
            assert json.loads(row["value"])["plate"]["number"] == PLATE
            assert NAME not in row["value"]
            [matches] = [record for record in await site.audit() if record["action"] == "video.basis"]
            assert (matches["after"]["purpose"], matches["after"]["fields"]) == ("stolen vehicles", ["plate.number"])


async def test_what_is_kept_of_a_message_is_decoded_again(gateway: tuple[Site, Made]) -> None:
    """A redecode reads the bodies on the log to the same observations: nothing is added, revised or lost."""
    site, _ = gateway
    before = [row["id"] for row in await site.records(device="cam1")]
    path = "/api/v1/profiles/acme/tiny-camera/redecode"
    answer = await site.ask("POST", f"{path}?since=1h", json={"selection": "both"})
    assert answer.status in {200, 201, 202}, answer.body

    async def done() -> dict[str, Any] | None:
        row: dict[str, Any] = (await site.ask("GET", f"{path}/{answer.body['id']}")).body
        return row if row["state"] not in {"waiting", "running"} else None

    result = await eventually(done, 30)
    assert result["state"] == "done", result
    assert (result["added"], result["revised"], result["recovered"]) == (0, 0, 0), result
    assert [row["id"] for row in await site.records(device="cam1")] == before
    assert await site.totals()


async def test_cameras_that_come_later_wait_for_an_encrypted_store(tmp_path: Path) -> None:
    """Where the store is in clear, cameras of a profile that comes in force have no topics; by HTTP they may send."""
    folder = tmp_path / "profiles" / "acme"
    folder.mkdir(parents=True)
    (folder / "plain.yaml").write_bytes(PLAIN.read_bytes().replace(b"sensegate/plain", b"acme/plain"))
    config = config_of(tmp_path / "run", profiles=(str(folder),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, tiny.NAME, tiny.FORMAT)
        async with running(config) as site:
            assert not any("cameras" in sentence for sentence in (await site.ready())[1])
            (folder / "tiny-camera.yaml").write_text(tiny.PROFILE, encoding="utf-8")

            async def warned() -> bool:
                return any("may not publish by MQTT" in sentence for sentence in (await site.ready())[1])

            await eventually(warned, 30)
            camera = await site.device("cam1", profile="acme/tiny-camera")
            assert camera.topics == []
            assert (await site.device("t1", profile="acme/plain")).topics == ["sg/t1/up", "sg/t1/status"]
            assert (await site.push(camera, sighting(41, name=NAME))).status == 202
            assert len(await site.records(device="cam1")) == 1
        assert not (Path(config.directory) / "engine" / "store.json").exists()
        converted = structs.replace(config, engine=EngineConfig(encryption="convert"))
        async with running(converted) as site:
            assert not any("cameras" in sentence for sentence in (await site.ready())[1])
            assert len(await site.records(device="cam1")) == 1
            assert (await site.device("cam2", profile="acme/tiny-camera")).topics
