"""The TCP listener on real sockets: framing, answers after the commit, limits, who is let in."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest

from sensegate import metrics
from sensegate.clock import FakeClock, SystemClock
from sensegate.collect import tcp
from sensegate.collect.passwords import CHECK_INTERVAL_S, DevicePasswords
from sensegate.collect.tcp import TcpSource
from sensegate.config import IngestConfig, TcpConfig, TlsConfig
from sensegate.errors import ConfigError
from sensegate.frames import gbt26875, hj212, jtt808, sl651
from sensegate.model import Delivery, Message
from tests.conftest import eventually
from tests.frames import made

MN = made.MN
AIR = made.upload("DataTime=20260101080000;a34004-Rtd=31,a34004-Flag=N")
WATER = made.upload("DataTime=20260101080100;a34004-Rtd=32,a34004-Flag=N", qn="20260101080100000")
DONE = b"QN=20260101080000000;ST=91;CN=9014;PW=123456;MN=" + MN.encode() + b";Flag=4;CP=&&&&"
LEVEL = made.report(made.element(0x39, made.bcd(10490, 4), 3))
ALARM = made.fire(1, [b"\x01\x02\x02\x00" + made.TIME])
WAIT_S = 30.0


class Names:
    """A registry of some devices, by alias."""

    def __init__(self) -> None:
        self.ids = ["air1", "station1", "host1", "bus1"]
        self.names = {MN: 0, "0011223344": 1, "000000000379": 2, "13800138000": 3}
        self.enabled = np.ones(len(self.ids), np.bool_)

    def find(self, name: str, /) -> int:
        return self.names.get(name, self.ids.index(name) if name in self.ids else -1)

    def id(self, at: int, /) -> str:
        return self.ids[at]


class ListenerRig:
    """A listener with an ingest behind it that commits when it is told to."""

    def __init__(self, source: TcpSource, url: str, names: Names) -> None:
        self.source = source
        self.names = names
        self.refused: list[tuple[str, str]] = []
        self.messages: list[Message] = []
        self.owed: list[Delivery] = []
        self.commits = True
        place = urlsplit(url)
        self.host, self.port = place.hostname or "", place.port or 0
        self._task = asyncio.create_task(self._walk())

    async def _walk(self) -> None:
        await self.source.start(None)
        async for delivery in self.source.deliveries():
            self.messages += delivery.messages
            self.owed.append(delivery)
            if self.commits:
                await self.commit()

    async def commit(self) -> None:
        """Acknowledge all that was given."""
        while self.owed:
            await self.owed.pop(0).ack()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def restart(self) -> None:
        """End this life of the ingest and begin the next."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.source.stop()
        self.owed.clear()
        self._task = asyncio.create_task(self._walk())

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.source.close()

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """Connect as a device."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield Line(reader, writer)
        finally:
            writer.transport.abort()


class Line:
    """A device's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, size: int = 4096) -> bytes:
        """Return the next bytes that come; nothing at the end of the connection."""
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read(size)
        return b""

    async def closed(self) -> bytes:
        """Return what still comes until the gateway closes."""
        rest = b""
        while more := await self.answer():
            rest += more
        return rest


@contextlib.asynccontextmanager
async def listener(
    protocol: str = "hj212", *, limits: IngestConfig | None = None, **more: Any
) -> AsyncIterator[ListenerRig]:
    names = Names()
    refused: list[tuple[str, str]] = []
    source = TcpSource(
        msgspec.convert({"protocol": protocol, **more}, TcpConfig),
        limits or IngestConfig(),
        SystemClock(),
        names,
        refused=lambda name, why, _address: refused.append((name, why)),
    )
    rig = ListenerRig(source, await source.open(), names)
    rig.refused = refused
    try:
        yield rig
    finally:
        await rig.end()


def counted(metric: Any, *labels: str) -> float:
    value: float = metric.labels(*labels)._value.get()
    return value


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_frame_is_answered_after_its_commit() -> None:
    """Nothing is said before; the message holds the frame as it came, under the device that it proved to be."""
    async with listener() as rig, rig.line() as line:
        rig.commits = False
        await line.send(AIR)
        await eventually(lambda: len(rig.messages) == 1)
        assert (rig.messages[0].topic, rig.messages[0].principal) == ("tcp/hj212/air1", "air1")
        assert rig.payloads == [AIR]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await line.reader.read(1)
        await rig.commit()
        assert await line.answer() == hj212.build(DONE)


async def test_frames_however_they_are_split() -> None:
    """Two in one segment, one byte by byte, rubbish and half a frame between: every whole one is taken, in order."""
    before = counted(metrics.TCP_RESYNCS, "hj212")
    async with listener() as rig, rig.line() as line:
        await line.send(AIR + WATER)
        await eventually(lambda: len(rig.messages) == 2)
        await line.send(*(AIR[at : at + 1] for at in range(len(AIR))))
        await eventually(lambda: len(rig.messages) == 3)
        await line.send(b"hello?\r\n##0453half a frame\r\n", WATER[:40], AIR)
        await eventually(lambda: len(rig.messages) == 4)
        assert rig.payloads == [AIR, WATER, AIR, AIR]
        assert counted(metrics.TCP_RESYNCS, "hj212") == before + 1


async def test_a_frame_whose_check_value_is_wrong_is_kept_and_told() -> None:
    """It goes its way to quarantine under its device; the answer says CRC, after the commit."""
    async with listener() as rig, rig.line() as line:
        wrong = AIR[:-6] + b"%04X\r\n" % (int(AIR[-6:-2], 16) ^ 1)
        await line.send(wrong)
        answer = await line.answer()
        assert rig.payloads == [wrong]
        assert rig.messages[0].principal == "air1"
        assert b"CN=9011" in answer
        assert b"QnRtn=9" in answer


async def test_an_answer_speaks_the_devices_own_convention() -> None:
    """A device that sends MODBUS's check value gets it back."""
    async with listener() as rig, rig.line() as line:
        convention = hj212.Convention.MODBUS
        await line.send(made.upload("DataTime=20260101080000", convention=convention))
        assert await line.answer() == hj212.build(DONE, convention)


async def test_no_answer_where_none_is_wanted() -> None:
    """Bit 0 of Flag; the next frame's answer is the first that comes."""
    async with listener() as rig, rig.line() as line:
        await line.send(made.upload("DataTime=20260101075900", flag="4"), AIR)
        assert await line.answer() == hj212.build(DONE)
        assert len(rig.messages) == 2


async def test_keep_alives_are_answered_and_not_logged() -> None:
    """A heartbeat of HJ 212-2025; an empty frame of a fire device; SL 651's is not answered (6.6.4.2)."""
    async with listener() as rig, rig.line() as line:
        await line.send(made.upload("", cn="9015", flag="9"))
        assert b"CN=9014" in await line.answer()
        assert rig.messages == []
    async with listener("gbt26875") as rig, rig.line() as line:
        await line.send(made.fire(0, []))
        assert gbt26875.parse(await line.answer()).command == gbt26875.CONFIRM
        assert rig.messages == []
    async with listener("sl651") as rig, rig.line() as line:
        await line.send(made.report(b"", function=sl651.KEEP_ALIVE), LEVEL)
        assert sl651.parse(await line.answer()).function == 0x32
        assert rig.payloads == [LEVEL]


async def test_hydrology_reports_are_confirmed() -> None:
    """The same function and serial number, ESC so that the station stays on line, EOT where it may go."""
    for hang_up, end in ((False, sl651.ESC), (True, sl651.EOT)):
        async with listener("sl651", allow_offline=hang_up) as rig, rig.line() as line:
            await line.send(LEVEL)
            parsed = sl651.parse(await line.answer())
            assert (parsed.up, parsed.station, parsed.function, parsed.serial, parsed.end) == (
                False,
                "0011223344",
                0x32,
                1,
                end,
            )
            assert parsed.checksum_ok
            assert rig.messages[0].topic == "tcp/sl651/station1"


async def test_fire_reports_are_confirmed_or_rejected() -> None:
    """With the serial number of the report, the addresses exchanged."""
    async with listener("gbt26875") as rig, rig.line() as line:
        await line.send(ALARM)
        parsed = gbt26875.parse(await line.answer())
        assert (parsed.command, parsed.serial, gbt26875.format_address(parsed.target)) == (
            gbt26875.CONFIRM,
            1,
            "000000000379",
        )
        await line.send(ALARM[:-3] + bytes([ALARM[-3] ^ 1]) + ALARM[-2:])
        assert gbt26875.parse(await line.answer()).command == gbt26875.REJECT
        assert len(rig.messages) == 2


async def test_vehicles_register_prove_themselves_and_report() -> None:
    """Registration and authentication concern the connection; positions go to the log."""
    async with listener("jtt808") as rig, rig.line() as line:
        await line.send(made.vehicle(bytes(25), message=jtt808.REGISTER))
        parsed = jtt808.parse(await line.answer())
        assert (parsed.message, parsed.body[2:]) == (jtt808.REGISTERED, b"\x0013800138000")
        await line.send(made.vehicle(parsed.body[3:], message=jtt808.AUTHENTICATE, serial=2))
        assert jtt808.parse(await line.answer()).body == b"\x00\x02\x01\x02\x00"
        await line.send(made.vehicle(made.position(), serial=3))
        assert jtt808.parse(await line.answer()).body == b"\x00\x03\x02\x00\x00"
        assert [message.topic for message in rig.messages] == ["tcp/jtt808/bus1"]
        for answered in (jtt808.LOCATION_ANSWER, jtt808.CONTROL_ANSWER):  # on a query or an order of another platform
            await line.send(made.vehicle(b"\x00\x07" + made.position(), message=answered, serial=4))
            assert jtt808.parse(await line.answer()).body[-1] == jtt808.DONE
        assert [message.topic for message in rig.messages] == ["tcp/jtt808/bus1"] * 3


# ── who is let in ────────────────────────────────────────────────────────────────────────────────────


async def test_an_unknown_device_is_refused_and_seen() -> None:
    """It is told so; some of its frames are kept for the quarantine, the rest is counted; then it is cut off."""
    stranger = made.upload("DataTime=20260101080000;a34004-Rtd=31", mn="NOBODY/+#\0air1")
    async with listener(unknown_per_minute=2, refused_max=3) as rig, rig.line() as line:
        await line.send(stranger)
        assert b"QnRtn=4" in await line.answer()
        await line.send(stranger, stranger)
        await line.closed()
        assert [(message.topic, message.principal) for message in rig.messages] == [
            ("tcp/hj212/NOBODY____air1", "")
        ] * 2
        assert len(rig.refused) == 3
        assert "no such device" in rig.refused[0][1]


async def test_a_disabled_device_is_refused_and_its_connections_end() -> None:
    """From the next frame on; what is open is closed when the registry says so."""
    async with listener() as rig, rig.line() as line:
        await line.send(AIR)
        await line.answer()
        rig.source.disconnect("station1")
        rig.names.enabled[0] = False
        await line.send(AIR)
        assert b"QnRtn=4" in await line.answer()
        rig.source.disconnect("air1")
        assert await line.closed() == b""
        assert len(rig.payloads) == 2  # the second as one of a stranger's
        assert rig.messages[1].principal == ""


async def test_passwords(tmp_path: Path) -> None:
    """HJ 212's PW, SL 651's two bytes: a wrong one is told, and ends the connection; nothing is taken."""
    file = tmp_path / "passwords"
    file.write_text(f"# name password\n{MN} 654321\n* 03E8\n")
    async with listener(passwords_file=str(file)) as rig:
        async with rig.line() as line:
            await line.send(AIR)
            assert b"QnRtn=3" in await line.closed()
        async with rig.line() as line:
            await line.send(made.upload("DataTime=20260101080000", pw="654321"))
            assert b"CN=9014" in await line.answer()
        assert len(rig.messages) == 1
        assert rig.refused == [(MN, "the password is wrong (tcp:hj212)")]
    async with listener("sl651", passwords_file=str(file)) as rig:
        async with rig.line() as line:
            await line.send(made.report(b"", password="03E9"))
            assert await line.closed() == b""
        async with rig.line() as line:
            await line.send(LEVEL)
            assert await line.answer()
        assert rig.payloads == [LEVEL]


async def test_a_vehicle_proves_itself_by_the_code_that_it_was_given(tmp_path: Path) -> None:
    """Where passwords are configured no code is handed out, and no position is taken before the proof."""
    file = tmp_path / "passwords"
    file.write_text("13800138000 secret\n")
    async with listener("jtt808", passwords_file=str(file)) as rig:
        for frame in (made.vehicle(bytes(25), message=jtt808.REGISTER), made.vehicle(made.position())):
            async with rig.line() as line:
                await line.send(frame)
                parsed = jtt808.parse(await line.closed())
                assert parsed.body[-1] != 0
        async with rig.line() as line:
            await line.send(
                made.vehicle(b"secret", message=jtt808.AUTHENTICATE), made.vehicle(made.position(), serial=2)
            )
            await eventually(lambda: len(rig.messages) == 1)
        async with rig.line() as line:
            proof = made.vehicle(b"\x06secretrest", message=jtt808.AUTHENTICATE, phone="00000000013800138000")
            await line.send(proof)
            assert jtt808.parse(await line.answer()).body[-1] == jtt808.DONE
        assert [message.principal for message in rig.messages] == ["bus1"]


async def test_frames_for_another_centre_are_refused() -> None:
    """By the centre's address in the frame."""
    async with listener("sl651", centres=["02"]) as rig, rig.line() as line:
        await line.send(LEVEL)
        await eventually(lambda: bool(rig.refused))
        assert "centre 01" in rig.refused[0][1]
        assert rig.messages == []
    async with listener("gbt26875", centres=["000000015b38"]) as rig, rig.line() as line:
        await line.send(ALARM)
        assert await line.answer()


async def test_addresses() -> None:
    """Only those that are allowed may connect at all."""
    async with listener(allow=["10.0.0.0/8", "192.168.1.7"]) as rig, rig.line() as line:
        assert await line.closed() == b""
        assert "not in listen.tcp.allow" in rig.refused[0][1]
    async with listener(allow=["127.0.0.0/8"]) as rig, rig.line() as line:
        await line.send(AIR)
        assert await line.answer()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"host": "0.0.0.0"}, "frames of any device from any host"),  # noqa: S104 - that is the point
        ({"allow": ["10.1.0.0/33"]}, "10.1.0.0/33"),
        ({"allow": ["10.1.0.1/16"]}, "host bits"),
        ({"passwords_file": "/nowhere"}, "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_said(more: dict[str, Any], message: str) -> None:
    """Before anything listens."""
    with pytest.raises(ConfigError, match=message):
        TcpSource(msgspec.convert({"protocol": "hj212", **more}, TcpConfig), IngestConfig(), FakeClock(), Names())


async def test_a_port_in_use_is_said() -> None:
    """With the address and what to do."""
    async with listener() as rig:
        with pytest.raises(ConfigError, match=f"the listener cannot use 127.0.0.1:{rig.port}"):
            async with listener(port=rig.port):
                pass


def test_passwords_are_read_again(tmp_path: Path) -> None:
    """A changed file counts within seconds; a broken one leaves what was; a wrong line is named at the start."""
    clock, file = FakeClock(), tmp_path / "passwords"
    file.write_text("a 1\n")
    passwords = DevicePasswords(str(file), clock)
    assert [passwords.match("a", "1"), passwords.match("a", "2"), passwords.match("b", "1")] == [True, False, False]
    file.write_text("a 22\n* any\n")
    assert passwords.match("a", "1")
    clock._now += round(CHECK_INTERVAL_S * 1e6)
    assert [passwords.match("a", "22"), passwords.match("a", "1"), passwords.match("b", "any")] == [True, False, True]
    file.write_text("a b c\n")
    clock._now += round(CHECK_INTERVAL_S * 1e6)
    assert passwords.match("a", "22")
    with pytest.raises(ConfigError, match=":1: the line is not a name and a password"):
        DevicePasswords(str(file), clock)


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_frame_that_trickles_is_given_up() -> None:
    """A slow loris is cut off, while others are served; a silent stranger too."""
    async with (
        listener(frame_timeout_s=0.15, identify_timeout_s=0.6) as rig,
        rig.line() as slow,
        rig.line() as mute,
        rig.line() as good,
    ):
        ends = asyncio.create_task(slow.closed())
        sent = 0
        while not ends.done():
            with contextlib.suppress(ConnectionError):
                await slow.send(AIR[sent % 40 : sent % 40 + 1])
            sent += 1
            await asyncio.wait({ends}, timeout=0.03)
            if sent % 5 == 0:
                await good.send(AIR)
                assert await good.answer() == hj212.build(DONE)
        assert await mute.closed() == b""
        assert set(rig.payloads) == {AIR}


async def test_a_head_that_hides_a_frame_gives_way() -> None:
    """Rubbish that looks like the beginning of a long frame is given up, and the frame behind it is found."""
    hidden = b"\x7e\x7e" + bytes([1, 0, 0, 0, 0, 1, 0, 0, 0x32, 0x0F, 0xFF, 2])
    async with listener("sl651", frame_timeout_s=0.1) as rig, rig.line() as line:
        await line.send(hidden + LEVEL)
        assert sl651.parse(await line.answer()).serial == 1
        assert rig.payloads == [LEVEL]


async def test_silence_ends_a_connection() -> None:
    """After a good frame too: a peer that vanished does not hold its place."""
    async with listener(idle_timeout_s=0.1) as rig, rig.line() as line:
        await line.send(AIR)
        assert await line.closed() == hj212.build(DONE)
        assert rig.payloads == [AIR]


async def test_rubbish_without_end_ends_a_connection() -> None:
    """More than is allowed between two good frames."""
    async with listener(resync_bytes_max=1_000) as rig, rig.line() as line:
        await line.send(b"x" * 900, AIR, b"x" * 900)
        assert await line.answer()
        with contextlib.suppress(ConnectionError):
            await line.send(b"x" * 900)
        assert await line.closed() == b""
        assert rig.payloads == [AIR]


async def test_too_many_connections() -> None:
    """Those above the limit are closed at once, in all and from one address; a place that is free again is taken."""
    for limit in ("connections_max", "connections_per_address_max"):
        async with listener(**dict[str, Any]({limit: 2})) as rig, rig.line() as first:
            async with rig.line() as second, rig.line() as third:
                await second.send(AIR)
                assert await second.answer()
                assert await third.closed() == b""
                await first.send(AIR)
                assert await first.answer()

            async def taken(rig: ListenerRig = rig) -> bool:
                async with rig.line() as fourth:
                    with contextlib.suppress(ConnectionError):
                        await fourth.send(AIR)
                    return bool(await fourth.answer())

            await eventually(taken)
    assert counted(metrics.LIMIT_HITS, "tcp_connections_per_address") > 0


async def test_a_connection_with_much_in_flight_is_read_no_more() -> None:
    """Back-pressure: so many frames wait for their commit, the next ones stay in the socket until then."""
    frames = [made.upload(f"DataTime=202601010800{n:02}", qn=f"202601010800{n:02}000") for n in range(10)]
    async with listener(inflight_max=3) as rig, rig.line() as line:
        rig.commits = False
        await line.send(*frames)
        await eventually(lambda: len(rig.messages) == 3)
        with pytest.raises(AssertionError):
            await eventually(lambda: len(rig.messages) > 3, timeout_s=0.1)
        rig.commits = True
        await rig.commit()
        await eventually(lambda: len(rig.messages) == 10)
        assert rig.payloads == frames


async def test_all_connections_together_are_held_back() -> None:
    """The depth of the intake counts for all."""
    limits = IngestConfig(depth_messages_max=4)
    async with listener(limits=limits) as rig, rig.line() as first, rig.line() as second:
        rig.commits = False
        await first.send(AIR * 4)
        await second.send(AIR * 4)
        await eventually(lambda: len(rig.messages) >= 4)
        with pytest.raises(AssertionError):
            await eventually(lambda: len(rig.messages) > 5, timeout_s=0.1)
        rig.commits = True
        await rig.commit()
        await eventually(lambda: len(rig.messages) == 8)


@pytest.mark.slow
async def test_a_device_that_reads_no_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers do not pile up for it."""
    monkeypatch.setattr(tcp, "UNREAD_BYTES_MAX", 2_000)
    before = counted(metrics.LIMIT_HITS, "tcp_unread")
    async with listener(inflight_max=1_000) as rig, rig.line() as line:
        line.reader._limit = 1  # type: ignore[attr-defined] # reads no more than a byte or two
        with contextlib.suppress(ConnectionError):
            for _ in range(4_000):
                await line.send(AIR * 20)
                if counted(metrics.LIMIT_HITS, "tcp_unread") > before:
                    break
        await eventually(lambda: counted(metrics.LIMIT_HITS, "tcp_unread") > before)
        assert len(rig.messages) > 0


async def test_a_device_that_half_closes_gets_its_answers() -> None:
    """It has said all; what it is owed comes, then the end."""
    async with listener() as rig, rig.line() as line:
        rig.commits = False
        await line.send(AIR)
        line.writer.write_eof()
        await eventually(lambda: len(rig.messages) == 1)
        await rig.commit()
        assert await line.closed() == hj212.build(DONE)


# ── lives of the ingest, and of the device ───────────────────────────────────────────────────────────


async def test_connections_outlive_a_restart_of_the_ingest() -> None:
    """What was not acknowledged is given again, and answered then; the device notices nothing."""
    async with listener() as rig, rig.line() as line:
        rig.commits = False
        await line.send(AIR)
        await eventually(lambda: len(rig.messages) == 1)
        await rig.restart()
        await eventually(lambda: len(rig.messages) == 2)
        await rig.commit()
        assert await line.answer() == hj212.build(DONE)
        assert rig.messages[0] == rig.messages[1]


async def test_a_device_that_comes_back_sends_again() -> None:
    """Its first frame is committed though it was gone; the second, the same bytes, is for the judge of duplicates."""
    async with listener() as rig:
        rig.commits = False
        async with rig.line() as line:
            await line.send(AIR)
            await eventually(lambda: len(rig.messages) == 1)
        async with rig.line() as line:
            await line.send(AIR)
            await eventually(lambda: len(rig.messages) == 2)
            await rig.commit()
            assert await line.answer() == hj212.build(DONE)
        assert rig.payloads == [AIR, AIR]


async def test_several_stations_share_a_connection() -> None:
    """A data logger speaks for many: each frame names its own."""
    async with listener() as rig, rig.line() as line:
        rig.names.ids.append("air2")
        rig.names.names["SECOND"] = 4
        rig.names.enabled = np.ones(5, np.bool_)
        await line.send(AIR, made.upload("DataTime=20260101080000", mn="SECOND"))
        await eventually(lambda: len(rig.messages) == 2)
        assert [message.principal for message in rig.messages] == ["air1", "air2"]


@pytest.mark.parametrize("protocol", ["hj212", "sl651", "gbt26875", "jtt808"])
async def test_any_bytes_leave_the_listener_alive(protocol: str) -> None:
    """Rubbish of every kind, whole and in halves, and then a good frame on another connection."""
    good = {"hj212": AIR, "sl651": LEVEL, "gbt26875": ALARM, "jtt808": made.vehicle(made.position())}[protocol]
    rng = np.random.default_rng(7)
    async with listener(protocol, resync_bytes_max=100_000) as rig:
        for _ in range(20):
            async with rig.line() as line:
                with contextlib.suppress(ConnectionError):
                    spoilt = bytearray(good * 3)
                    for at in rng.integers(0, len(spoilt), 4):
                        spoilt[at] = rng.integers(256)
                    await line.send(rng.bytes(200), bytes(spoilt), rng.bytes(50))
        rig.messages.clear()
        async with rig.line() as line:
            await line.send(good)
            assert await line.answer()
            assert rig.payloads[-1] == good


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────


async def certificate(directory: Path) -> tuple[Path, Path]:
    """Return the files of a certificate for this machine, and of its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    await asyncio.to_thread(
        subprocess.run, [*make, "-keyout", str(key), "-out", str(cert), *subject], check=True, capture_output=True
    )
    return cert, key


async def test_tls(tmp_path: Path) -> None:
    """With certificates the port speaks TLS and nothing else; what cannot be used is said."""
    cert, key = await certificate(tmp_path)
    async with listener(tls={"cert_file": str(cert), "key_file": str(key)}) as rig:
        context = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection(rig.host, rig.port, ssl=context)
        line = Line(reader, writer)
        await line.send(AIR)
        assert await line.answer() == hj212.build(DONE)
        writer.transport.abort()
    with pytest.raises(ConfigError, match="certificate cannot be loaded"):
        async with listener(tls=msgspec.to_builtins(TlsConfig(cert_file=str(key)))):
            pass


async def test_addresses_are_checked_before_a_handshake(tmp_path: Path) -> None:
    """A connection that begins no handshake is closed at once where its address has no right to connect.

    Control: from one that has, it may begin its handshake for some seconds.
    """
    cert, key = await certificate(tmp_path)
    tls = {"cert_file": str(cert), "key_file": str(key)}
    async with listener(tls=tls, allow=["10.0.0.0/8"]) as rig, rig.line() as silent:
        assert await silent.closed() == b""
        assert "not in listen.tcp.allow" in rig.refused[0][1]
    async with listener(tls=tls, allow=["127.0.0.0/8"]) as rig, rig.line() as silent:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await silent.reader.read()


async def test_a_tls_port_in_use_is_said(tmp_path: Path) -> None:
    """A second listener does not share the port of the first."""
    cert, key = await certificate(tmp_path)
    tls = {"cert_file": str(cert), "key_file": str(key)}
    async with listener(tls=tls) as rig:
        with pytest.raises(ConfigError, match="cannot use"):
            async with listener(tls=tls, port=rig.port):
                pass
