"""GA/T 1400 with a running gateway: curl as a stranger's client, and everything that must be refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from msgspec import structs

from sensegate.clock import SystemClock
from sensegate.config import NodeUserConfig, UplinkConfig
from sensegate.config.viid import ViidConfig, ViidDeviceConfig
from sensegate.video.formats.viid_responses import format_beijing
from tests.conftest import eventually
from tests.live.curl import Camera, curl
from tests.live.site import PLAIN, Made, Site, config_of, running

pytestmark = [
    pytest.mark.live,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

VIID = PLAIN.parent / "viid.yaml"
SERVER = "44010000005030000001"
CAMERA = "44010600001190000001"
OLD = "44010600001190000002"
STRANGER = "44010600001190000099"
NOW = SystemClock().now()
PLATE, NAME = "粤B12345", "李雷"


def vehicle(number: int, camera: str = CAMERA, **more: Any) -> dict[str, Any]:
    local = format_beijing(NOW + number * 1_000_000)
    source = f"{camera}02{local}{number:05d}"
    return {
        "MotorVehicleID": f"{source}02{number:05d}",
        "InfoKind": 1,
        "SourceID": source,
        "DeviceID": camera,
        "PassTime": local,
        "PlateNo": PLATE,
        "PlateColor": "5",
        "VehicleColor": "1",
        "Speed": "36",
        **more,
    }


def vehicles(*objects: dict[str, Any]) -> bytes:
    return json.dumps({"MotorVehicleListObject": {"MotorVehicleObject": list(objects)}}, ensure_ascii=False).encode()


async def observations(site: Site) -> list[dict[str, Any]]:
    """Return what cameras reported, from the site's feed."""
    return [json.loads(record["value"]) for record in await site.records() if record["property"] == "video_observation"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Site, dict[str, Made]]]:
    """A node of 4401 that listens for cameras, with its centre, and two cameras."""
    directory: Path = tmp_path_factory.mktemp("viid")
    secret = directory / "secret"
    secret.write_text("s" * 32)
    centre_config = structs.replace(
        config_of(directory / "44", "44"), nodes=(NodeUserConfig(division="4401", secret_file=str(secret)),)
    )
    listener = ViidConfig(
        server_id=SERVER,
        body_bytes_max=1_000_000,
        auth_failures_max=4,
        body_timeout_s=1.0,
        publish_online=True,
        devices=(ViidDeviceConfig(device=OLD, batch_reply="single", compact_challenge=True, algorithms=("MD5",)),),
    )
    node_config = config_of(directory / "4401", profiles=(str(PLAIN), str(VIID)))
    async with running(centre_config) as centre:
        uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50)
        async with running(structs.replace(node_config, uplink=uplink, viid=listener)) as site:
            made = {code: await site.device(code, profile="sensegate/viid") for code in (CAMERA, OLD)}
            yield site, centre, made


async def test_a_strangers_client(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """Curl --digest registers, keeps alive, sends vehicles, leaves; the observation is read at the centre."""
    site, centre, made = gateway
    camera = Camera(site.addresses.viid, CAMERA, made[CAMERA].password)
    response = await camera.system("Register")
    assert (response.status, response.status_object["StatusCode"], response.status_object["Id"]) == (200, 0, CAMERA)
    assert (await camera.system("Keepalive")).status_object["StatusCode"] == 0
    time = (await camera.get("System/Time")).tree["SystemTimeObject"]
    assert (time["VIIDServerID"], time["TimeMode"], len(time["LocalTime"])) == (SERVER, "1", 14)
    response = await camera.post("MotorVehicles", vehicles(vehicle(1, Name=NAME), vehicle(2, STRANGER)))
    assert (response.status, response.codes) == (200, [0, 4])
    response = await camera.post("MotorVehicles", vehicles(vehicle(1, Name=NAME)))  # sent again: the same vehicle
    assert response.codes == [0]
    assert (await camera.system("UnRegister")).status_object["StatusCode"] == 0
    assert (await camera.system("Keepalive")).status == 401

    async def there() -> list[dict[str, Any]]:
        return [observation for observation in await observations(centre) if observation["camera"] == CAMERA]

    await eventually(there, timeout_s=60)
    [result] = await there()
    assert (result["object_class"], result["color"], result["speed"]) == ("vehicle", "black", 10.0)
    assert result["plate"]["region"] == "粤B"
    stored_text = str(await site.records()) + str(await site.quarantine())
    assert PLATE not in stored_text
    assert NAME not in stored_text
    totals = await site.totals()
    repeated = sum(count for kind, count in totals.items() if kind.startswith("duplicate"))
    assert repeated == 2, totals  # the observation, and the reading of the vehicle's speed


async def test_without_a_digest_only_user_identify(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """As cameras do it: registered once, then the header alone; a client that wants one status gets one."""
    site, _, made = gateway
    assert (await Camera(site.addresses.viid, OLD, made[OLD].password).system("Register")).status == 200
    camera = Camera(site.addresses.viid, OLD, "", digest=False)
    assert (await camera.system("Keepalive")).status_object["StatusCode"] == 0
    response = await camera.post("MotorVehicles", vehicles(vehicle(3, OLD), vehicle(4, OLD)))
    assert response.status_object["StatusCode"] == 0
    body = json.dumps({"FaceObject": {"FaceID": "x", "FaceAppearTime": format_beijing(NOW), "DeviceID": OLD}})
    assert (await camera.post("Faces", body.encode())).status_object["StatusCode"] == 0
    rows = (await site.ask("GET", f"/api/v1/devices/{OLD}")).body
    assert rows["state"] == "active"


async def test_sha_256(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """A client that takes the second challenge."""
    site, _, made = gateway
    url, path = site.addresses.viid, "/VIID/System/Register"
    body = {"RegisterObject": {"DeviceID": CAMERA}}
    async with aiohttp.ClientSession() as http:
        async with http.post(url + path, json=body) as response:
            lines = response.headers.getall("WWW-Authenticate")
        assert "algorithm" not in lines[0]
        nonce = lines[1].split('nonce="')[1].split('"')[0]

        def proof(count: str) -> str:
            def h(text: str) -> str:
                return hashlib.sha256(text.encode()).hexdigest()

            secret, request_hash = h(f"{CAMERA}:viid:{made[CAMERA].password}"), h(f"POST:{path}")
            response = h(f"{secret}:{nonce}:{count}:c:auth:{request_hash}")
            return (
                f'Digest username="{CAMERA}", realm="viid", nonce="{nonce}", uri="{path}", algorithm=SHA-256, '
                f'qop=auth, nc={count}, cnonce="c", response="{response}"'
            )

        async def ask(count: str) -> int:
            async with http.post(url + path, json=body, headers={"Authorization": proof(count)}) as response:
                tree = await response.json(content_type=None)
                assert tree["ResponseStatusObject"]["StatusCode"] == (0 if response.status == 200 else 4)
                return response.status

        assert await ask("00000001") == 200
        assert await ask("00000001") == 401  # the same request once more: a replay
        assert await ask("00000002") == 200


async def test_what_is_refused(gateway: tuple[Site, Site, dict[str, Made]], tmp_path: Path) -> None:
    """Each with a status object: wrong password, unknown device, truncated, huge, compressed and foreign bodies."""
    site, _, made = gateway
    url = site.addresses.viid
    response = await Camera(url, CAMERA, "wrong").system("Register")
    assert (response.status, response.status_object["StatusCode"]) == (401, 4)
    response = await Camera(url, STRANGER, "any").system("Register")
    assert (response.status, response.status_object["StatusCode"]) == (401, 4)
    stranger = Camera(url, STRANGER, "", digest=False)
    response = await stranger.post("MotorVehicles", vehicles(vehicle(9, STRANGER)))
    assert (response.status, response.status_object["StatusCode"]) == (401, 4)

    good = Camera(url, CAMERA, made[CAMERA].password)
    assert (await good.system("Register")).status == 200
    camera = Camera(url, CAMERA, "", digest=False)
    response = await camera.post("MotorVehicles", vehicles(vehicle(10))[:-40])
    assert (response.status, response.status_object["StatusCode"]) == (400, 7)
    response = await camera.post("MotorVehicles", b'{"PersonList": {"PersonObject": []}}')
    assert (response.status, response.status_object["StatusCode"]) == (400, 8)
    response = await camera.post("Faces", vehicles(vehicle(11)))
    assert (response.status, response.status_object["StatusCode"]) == (400, 8)
    response = await camera.post("MotorVehicles", b"\x1f\x8b", "-H", "Content-Encoding: gzip")
    assert (response.status, response.status_object["StatusCode"]) == (400, 7)
    response = await camera.post("Images/1/Data", b"\xff\xd8")
    assert (response.status, response.status_object["StatusCode"]) == (403, 4)
    response = await camera.get("MotorVehicles")
    assert (response.status, response.status_object["StatusCode"]) == (405, 4)
    response = await camera.get("Nothing")
    assert (response.status, response.status_object["StatusCode"]) == (404, 4)
    response = await camera.post("Subscribes", b'{"SubscribeListObject": {"SubscribeObject": []}}')
    assert (response.status, response.status_object["StatusCode"]) == (403, 4)

    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    response = await curl(f"{url}/VIID/Faces", "-H", f"User-Identify: {CAMERA}", "-T", str(huge), "-X", "POST")
    assert (response.status, response.status_object["StatusCode"]) == (413, 8)
    chunked = ["-H", f"User-Identify: {CAMERA}", "-H", "Transfer-Encoding: chunked", "-T", str(huge), "-X", "POST"]
    response = await curl(f"{url}/VIID/Faces", *chunked)
    assert (response.status, response.status_object["StatusCode"]) == (413, 8)
    reasons = {row["reason"] for row in await site.quarantine()}
    assert {"malformed", "schema"} <= reasons
    await site.totals()  # it balances


async def test_a_body_that_is_cut_off_on_the_way(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """Announced longer than it comes: refused with a status object; nothing of it is taken."""
    site, _, made = gateway
    assert (await Camera(site.addresses.viid, CAMERA, made[CAMERA].password).system("Register")).status == 200
    host, port = site.addresses.viid.removeprefix("http://").split(":")
    body = vehicles(vehicle(12))
    head = f"POST /VIID/MotorVehicles HTTP/1.1\r\nHost: x\r\nUser-Identify: {CAMERA}\r\n"
    for ends, status in ((True, 400), (False, 408)):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-20])
        if ends:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert f" {status} ".encode() in answer.splitlines()[0]
        assert json.loads(answer.split(b"\r\n\r\n")[1])["ResponseStatusObject"]["StatusCode"] == 7


async def test_wrong_passwords_lock_out(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """After some of them even the right one is refused for a while; another device is not touched."""
    site, _, made = gateway
    for _ in range(4):
        assert (await Camera(site.addresses.viid, OLD, "wrong").system("Register")).status in {401, 403}
    response = await Camera(site.addresses.viid, OLD, made[OLD].password).system("Register")
    assert (response.status, response.status_object["StatusCode"]) == (403, 4)
    assert (await Camera(site.addresses.viid, CAMERA, made[CAMERA].password).system("Register")).status == 200


async def test_cameras_of_a_catalogue_are_devices_behind_their_platform(
    gateway: tuple[Site, Site, dict[str, Made]],
) -> None:
    """APEs of a platform are registered; their objects are taken from it and from nobody else."""
    site, _, made = gateway
    platform = Camera(site.addresses.viid, CAMERA, made[CAMERA].password)
    assert (await platform.system("Register")).status == 200
    behind = "44010600001320000007"
    apes = {"APEListObject": {"APEObject": [{"ApeID": behind, "Name": NAME, "IsOnline": "1", "PlaceCode": "440106"}]}}
    assert (await platform.post("APEs", json.dumps(apes).encode())).codes == [0]
    row = (await site.ask("GET", f"/api/v1/devices/{behind}")).body
    assert (row["gateway"], row["division"], row["profile"]) == (CAMERA, "440106", "sensegate/viid")
    assert NAME not in str(row)
    assert (await platform.post("MotorVehicles", vehicles(vehicle(20, behind)))).codes == [0]
    result = (await platform.get("APEs")).tree["APEListObject"]["APEObject"]
    assert {row["ApeID"] for row in result} == {CAMERA, behind}
    assert behind in {observation["camera"] for observation in await observations(site)}


async def test_a_changed_password_ends_the_registration(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """Rotated without grace, the camera must register again, with the new password; disabled, it cannot."""
    site, _, _ = gateway
    code = "44010600001190000005"
    made = await site.device(code, profile="sensegate/viid")
    camera = Camera(site.addresses.viid, code, "", digest=False)
    assert (await Camera(site.addresses.viid, code, made.password).system("Register")).status == 200
    assert (await camera.system("Keepalive")).status == 200
    answer = await site.ask("POST", f"/api/v1/devices/{code}/rotate", json={"grace_s": 3600})
    assert (await camera.system("Keepalive")).status == 200
    assert (await Camera(site.addresses.viid, code, made.password).system("Register")).status == 200
    answer = await site.ask("POST", f"/api/v1/devices/{code}/rotate", json={"grace_s": 0})
    assert answer.status == 200, answer.body
    assert (await camera.system("Keepalive")).status == 401
    assert (await Camera(site.addresses.viid, code, made.password).system("Register")).status == 401
    assert (await Camera(site.addresses.viid, code, answer.body["password"]).system("Register")).status == 200
    await site.ask("POST", f"/api/v1/devices/{code}/disable")
    assert (await camera.system("Keepalive")).status == 401


async def test_what_the_operator_sees(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """Who has registered, and how far the clock is off; for the whole gateway's people only."""
    site, centre, made = gateway
    assert (await Camera(site.addresses.viid, CAMERA, made[CAMERA].password).system("Register")).status == 200
    camera = Camera(site.addresses.viid, CAMERA, "", digest=False)
    assert (await camera.post("MotorVehicles", vehicles(vehicle(30)))).codes == [0]
    body = (await site.ask("GET", "/api/v1/viid")).body
    row = next(registration for registration in body["registrations"] if registration["device"] == CAMERA)
    assert row["objects"] == 1
    since_s = (SystemClock().now() - NOW) / 1e6  # the file was read long ago where many run
    assert abs(row["clock_behind_s"] - since_s) < 120
    county, _ = await site.token("county_operator", "440106")
    assert (await site.ask("GET", "/api/v1/viid", county)).status == 403
    assert (await centre.ask("GET", "/api/v1/viid")).status == 404


async def test_registrations_that_begin_and_end_are_readings(gateway: tuple[Site, Site, dict[str, Made]]) -> None:
    """On line when it registers, off line when it leaves or falls silent."""
    site, _, _ = gateway
    code = "44010600001190000006"
    made = await site.device(code, profile="sensegate/viid")
    camera = Camera(site.addresses.viid, code, made.password)

    async def states() -> list[bool]:
        return [
            record["value"]
            for record in await site.records()
            if (record["device"], record["property"]) == (code, "online")
        ]

    assert (await camera.system("Register")).status == 200
    assert (await camera.system("UnRegister")).status == 200
    await eventually(lambda: _equal(states(), [True, False]))


async def _equal(value: Any, wanted: list[bool]) -> bool:
    return bool(await value == wanted)
