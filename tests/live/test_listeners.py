"""Stations on a TCP listener, whole: from the bytes on a real socket to the feed, the ledger and the quarantine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio

from sensegate.config import ListenConfig, TcpConfig
from sensegate.frames import gbt26875, hj212, jtt808, sl651
from tests.conftest import eventually
from tests.frames import made
from tests.live.site import PROFILES, Site, config_of, running
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

WAIT_S = 30.0
PROTOCOLS = ("hj212", "sl651", "gbt26875", "jtt808")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node with a listener of each protocol."""
    folders = tuple(str(PROFILES / name) for name in ("hj212", "sl651", "gbt26875", "jtt808"))
    config = config_of(tmp_path_factory.mktemp("city"), profiles=folders)
    ports = tuple(msgspec.convert({"protocol": protocol}, TcpConfig) for protocol in PROTOCOLS)
    async with running(msgspec.structs.replace(config, listen=ListenConfig(tcp=ports))) as site:
        yield site


class Line:
    """A station's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self) -> bytes:
        """Return the next bytes that come; nothing at the end of the connection."""
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read(4096)
        return b""


@contextlib.asynccontextmanager
async def line(site: Site, protocol: str) -> AsyncIterator[Line]:
    place = urlsplit(site.addresses.tcp[f"tcp:{protocol}"])
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


async def station(site: Site, name: str, alias: str, profile: str, **more: Any) -> None:
    """Register a station under the address that its frames carry."""
    wanted = {"id": name, "division": "440106", "profile": profile, "alias": alias, **more}
    answer = await site.ask("POST", "/api/v1/devices", json=wanted)
    assert answer.status == 201, answer.body


async def sent(line: Line, frame: bytes, *pieces: bytes) -> bytes:
    """Send a frame and return the answer that follows its commit."""
    await line.send(*(pieces or (frame,)))
    return await line.answer()


def values(rows: list[dict[str, Any]]) -> dict[str, tuple[Any, str]]:
    return {row["property"]: (row["value"], row["quality"]) for row in rows}


FLAGGED = "DataTime={at};a34004-Rtd=35.2,a34004-Flag=N;a34002-Rtd=61,a34002-Flag=M;a21026-Rtd=7,a21026-Flag=D"


async def test_a_station_of_hj_212(city: Site) -> None:
    """Split in odd places; answered when its readings are in the feed; what is in maintenance or failed is not good."""
    await station(city, "air1", "MN-AIR-1", "hj212/air")
    frame = made.upload(FLAGGED.format(at=local()), mn="MN-AIR-1")
    async with line(city, "hj212") as bench:
        answers = await sent(bench, frame, b"\r\n noise", frame[:1], frame[1:7], frame[7:90], frame[90:])
        assert hj212.parse(answers).fields["CN"] == "9014"
        records = await city.records(device="air1")
        assert values(records) == {
            "pm2_5": (pytest.approx(35.2), "good"),
            "pm10": (pytest.approx(61), "uncertain_maintenance"),
            "so2": (pytest.approx(7), "bad_sensor"),
        }


async def test_a_frame_sent_again_is_no_second_reading(city: Site) -> None:
    """The station did not see the answer, connects anew and repeats: answered again, counted as duplicates."""
    await station(city, "air2", "MN-AIR-2", "hj212/air")
    frame = made.upload(FLAGGED.format(at=local()), mn="MN-AIR-2")
    before = await city.totals()
    for _ in range(2):
        async with line(city, "hj212") as bench:
            assert b"CN=9014" in await sent(bench, frame)
    assert len(await city.records(device="air2")) == 3
    after = await city.totals()
    assert after["accepted"] - before.get("accepted", 0) == 3
    assert after["duplicate.redelivery"] - before.get("duplicate.redelivery", 0) == 3
    assert after["messages"] - before.get("messages", 0) == 2


async def test_a_report_in_two_frames(city: Site) -> None:
    """Only the first names the time; an entry is cut in two between them."""
    await station(city, "air3", "MN-AIR-3", "hj212/air")
    how: dict[str, Any] = {"mn": "MN-AIR-3", "flag": "7"}
    first = made.upload(f"DataTime={local()};a34004-Rtd=12,a34004-Flag=N;a340", more="PNUM=2;PNO=1;", **how)
    second = made.upload("02-Rtd=34,a34002-Flag=N", more="PNUM=2;PNO=2;", **how)
    async with line(city, "hj212") as bench:
        for frame in (first, second):
            assert b"CN=9014" in await sent(bench, frame)
    rows = await city.records(device="air3")
    assert {name: value for name, (value, _) in values(rows).items()} == {"pm2_5": 12, "pm10": 34}
    assert len({row["time"] for row in rows}) == 1


async def test_a_wrong_check_value_goes_to_quarantine(city: Site) -> None:
    """Refused with its own reason, kept whole; the next frame on the same line is read."""
    await station(city, "air4", "MN-AIR-4", "hj212/air")
    good = made.upload(f"DataTime={local()};a34004-Rtd=12,a34004-Flag=N", mn="MN-AIR-4")
    spoilt = good.replace(b"a34004-Rtd=12", b"a34004-Rtd=99")
    async with line(city, "hj212") as bench:
        await bench.send(spoilt, good)
        assert b"CN=9014" in await bench.answer()
    assert [row["value"] for row in await city.records(device="air4")] == [12]
    rows = [row for row in await city.quarantine() if row["reason"] == "crc_fail"]
    assert [row["topic"] for row in rows] == ["tcp/hj212/air4"]
    assert (await city.totals())["quarantined.crc_fail"] == 1


async def test_a_stranger_is_refused_and_seen(city: Site) -> None:
    """Nobody registered it: told so, alarmed; its frame lies in quarantine, to see who knocks."""
    async with line(city, "hj212") as bench:
        assert b"QnRtn=4" in await sent(bench, made.upload(f"DataTime={local()};a34004-Rtd=12", mn="STRANGER"))

    async def knocked() -> object:
        return [row for row in await city.quarantine() if row["topic"] == "tcp/hj212/STRANGER"]

    assert [row["reason"] for row in await eventually(knocked)] == ["unknown_device"]


async def test_a_disabled_station_is_cut(city: Site) -> None:
    """Within 2 s its line is closed; its neighbour's stays."""
    await station(city, "air5", "MN-AIR-5", "hj212/air")
    await station(city, "air6", "MN-AIR-6", "hj212/air")
    async with line(city, "hj212") as bench, line(city, "hj212") as other:
        content = f"DataTime={local()};a34004-Rtd=12,a34004-Flag=N"
        for mine, mn in ((bench, "MN-AIR-5"), (other, "MN-AIR-6")):
            assert b"CN=9014" in await sent(mine, made.upload(content, mn=mn))
        began = time.monotonic()
        assert (await city.ask("POST", "/api/v1/devices/air5/disable")).status == 200
        assert await bench.answer() == b""
        assert time.monotonic() - began < WITHIN_TWO_SECONDS
        assert b"CN=9014" in await sent(other, made.upload(content, mn="MN-AIR-6"))


async def test_a_hydrological_station(city: Site) -> None:
    """A report in two pieces is confirmed; sent again it is confirmed again and is no second reading."""
    await station(city, "river1", "0011223344", "sl651/hydrology")
    now = local()
    elements = made.element(0x39, made.bcd(10490, 4), 3) + made.element(0x20, b"\xff\xff\xff", 1)
    frame = made.report(elements, sent=now[2:], observed=now[2:12])
    async with line(city, "sl651") as bench:
        for _ in range(2):
            parsed = sl651.parse(await sent(bench, frame, frame[:20], frame[20:]))
            assert (parsed.checksum_ok, parsed.up, parsed.function) == (True, False, 0x32)
    assert values(await city.records(device="river1")) == {"water_level": (10.49, "good")}


async def test_a_fire_host(city: Site) -> None:
    """The transmission device speaks for the systems behind it; an alarm is confirmed and goes first."""
    await station(city, "host1", "000000000379", "gbt26875/fire-host")
    await station(city, "panel1", "000000000379-1-2", "gbt26875/fire-host", gateway="host1")
    frame = made.fire(1, [b"\x01\x02" + (1 << 1).to_bytes(2, "little") + stamp()])
    async with line(city, "gbt26875") as bench:
        parsed = gbt26875.parse(await sent(bench, frame))
        assert (parsed.command, parsed.serial) == (gbt26875.CONFIRM, 1)
    readings = values(await city.records(device="panel1"))
    assert readings["fire_alarm"] == (True, "good")
    assert readings["fire_fault"] == (False, "good")


async def test_a_vehicle(city: Site) -> None:
    """A position with an escaped byte in it; answered with its serial number."""
    await station(city, "bus1", "13800138000", "jtt808/vehicle")
    frame = made.vehicle(made.position(at=local()[2:]), serial=0x7E)
    async with line(city, "jtt808") as bench:
        parsed = jtt808.parse(await sent(bench, frame))
        assert parsed.body == b"\x00\x7e\x02\x00\x00"
    readings = values(await city.records(device="bus1"))
    assert readings["latitude"] == (pytest.approx(23.129163), "good")
    assert readings["speed"] == (pytest.approx(36.5), "good")


async def test_the_ledger_balances_and_the_numbers_tell(city: Site) -> None:
    """Every frame of this file is accounted for; resynchronisations, checks and answers were counted."""
    totals = await city.totals()
    refused = {name: count for name, count in totals.items() if name.startswith("quarantined.")}
    assert refused == {"quarantined.crc_fail": 1, "quarantined.unknown_device": 1}
    assert totals["messages"] == totals["decoded"] + 2
    assert await city.metric('sensegate_frame_checks_total{convention="ansi",protocol="hj212"}') > 0
    assert await city.metric('sensegate_frame_checks_total{convention="none",protocol="hj212"}') >= 1
    assert await city.metric('sensegate_tcp_skipped_bytes_total{protocol="hj212"}') > 0
    assert await city.metric('sensegate_tcp_resyncs_total{protocol="hj212"}') > 0
    assert await city.metric('sensegate_tcp_answers_total{protocol="sl651"}') >= 2


def local() -> str:
    """Return the time now as the stations' clocks show it: yyyyMMddHHmmss, UTC+8."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + 8 * 3600))


def stamp() -> bytes:
    """Return the same as a fire device writes it: second, minute, hour, day, month, year."""
    now = local()
    return bytes(int(now[at : at + 2]) for at in range(12, 0, -2))
