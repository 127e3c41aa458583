"""Profiles changed while a node runs: what is good is taken up, of what is broken the last good version stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.live.phone import NOT_AUTHORISED
from tests.live.site import PLAIN, Site, config_of, running
from tests.support.thermometer import THERMOMETER, write

pytestmark = pytest.mark.live


async def rows(site: Site) -> dict[str, dict[str, object]]:
    """Return the profiles as listed, by id."""
    return {row["id"]: row for row in (await site.ask("GET", "/api/v1/profiles")).body["rows"]}


async def complaints(site: Site, file: Path) -> list[str]:
    """Return what /readyz says of a file; a warning of another matter, a busy disk for one, is not of interest here."""
    return [reason for reason in (await site.ready())[1] if file.name in reason]


async def values(site: Site, device: str) -> list[tuple[float, str]]:
    """Return (value, profile) of a device's readings."""
    return [(row["value"], row["profile"]) for row in await site.records(device=device)]


async def test_profiles_of_a_running_node(tmp_path: Path) -> None:
    """A new one works at once, a broken change is named with file and line and has no effect, a good one has."""
    folder = tmp_path / "profiles"
    (folder / "sensegate").mkdir(parents=True)
    shutil.copy(PLAIN, folder / "sensegate" / "plain.yaml")
    async with running(config_of(tmp_path / "node", profiles=(str(folder),))) as site, site.phone() as phone:
        new = {"id": "t1", "division": "440106", "profile": "acme/th"}
        assert (await site.ask("POST", "/api/v1/devices", json=new)).status == 400, "the control: not there yet"
        file = write(folder, THERMOMETER)

        async def known() -> bool:
            return "acme/th" in await rows(site)

        await eventually(known)
        device = await site.device("t1", profile="acme/th")
        assert device.topics == ["acme/t1/up"]
        assert await phone.connect(device.id, device.password) == 0
        await phone.publish("acme/t1/up", '{"t": 200}')

        async def count(wanted: int) -> bool:
            return len(await values(site, "t1")) == wanted

        await eventually(lambda: count(1))

        write(folder, THERMOMETER.replace("air_temperature, unit: Cel", "air_temprature, unit: Cel"))

        async def named() -> bool:
            status, reasons = await site.ready()
            return status == 200 and any(f"{file}:9" in reason and "air_temperature" in reason for reason in reasons)

        await eventually(named)
        row = (await rows(site))["acme/th"]
        assert f"{file}:9" in str(row["problem"])
        assert row["version"] == 1
        assert (await rows(site))["sensegate/plain"]["problem"] == ""
        assert phone.connected, "a broken file disturbs nobody"
        await phone.publish("acme/t1/up", '{"t": 210}')
        await eventually(lambda: count(2))

        finer = THERMOMETER.replace("version: 1", "version: 2").replace("scale: 0.1", "scale: 0.01")
        write(folder, finer.replace("value: 21.5", "value: 2.15"))

        async def healed() -> bool:
            return not await complaints(site, file)

        await eventually(healed)
        await phone.publish("acme/t1/up", '{"t": 2200}')
        await eventually(lambda: count(3))
        assert await values(site, "t1") == [(20, "acme/th@1"), (21, "acme/th@1"), (22, "acme/th@2")]
        assert phone.connected, "its rights are the same"

        other = THERMOMETER.replace("version: 1", "version: 3").replace('["acme/{device}/up"]', '["acme/{device}/now"]')
        write(folder, other.replace("topic: acme/d1/up", "topic: acme/d1/now"))
        await phone.next("closed")  # its rights have changed: it comes again with the new ones
        async with site.phone() as reconnected:
            assert await reconnected.connect(device.id, device.password) == 0
            await reconnected.publish("acme/t1/now", '{"t": 230}')
            await eventually(lambda: count(4))


async def test_a_file_that_was_never_good(tmp_path: Path) -> None:
    """The node starts without it, names it in /readyz and among the profiles, and takes it once it is mended."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    file = write(folder, THERMOMETER.replace("version: 1", "version: one"))
    async with running(config_of(tmp_path / "node", profiles=(str(folder), str(PLAIN)))) as site, site.phone() as phone:

        async def ready() -> bool:
            return (await site.ready())[0] == 200

        await eventually(ready)  # it takes and gives the readings of all others
        assert any("th.yaml:2" in reason for reason in await complaints(site, file)), await site.ready()
        row = (await rows(site))["acme/th"]
        assert row["version"] == 0
        assert "th.yaml:2" in str(row["problem"])
        plain = await site.device("unharmed")
        assert await phone.connect(plain.id, plain.password) == 0
        write(folder, THERMOMETER)

        async def mended() -> bool:
            return not await complaints(site, file)

        await eventually(mended)
        assert (await rows(site))["acme/th"]["version"] == 1


async def test_a_profile_that_is_taken_away(tmp_path: Path) -> None:
    """Its devices lose the right to its topics."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    file = write(folder, THERMOMETER)
    async with running(config_of(tmp_path / "node", profiles=(str(folder), str(PLAIN)))) as site, site.phone() as phone:
        device = await site.device("t2", profile="acme/th")
        assert await phone.connect(device.id, device.password) == 0
        file.unlink()
        await phone.next("closed")
        async with site.phone() as reconnected:
            code = await reconnected.connect(device.id, device.password)
            assert code in {0, NOT_AUTHORISED}
            if code == 0:
                await reconnected.publish("acme/t2/up", '{"t": 200}')

                async def refused() -> bool:
                    return any(row["action"] == "refused.publish" for row in await site.audit())

                await eventually(refused)
        assert await site.records(device="t2") == []
