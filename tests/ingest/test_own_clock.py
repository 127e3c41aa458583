"""The gateway's own clock: judged by agreement, never by a few devices that send old readings."""

from __future__ import annotations

import asyncio
import struct

import numpy as np
import pytest

from sensegate.authority.divisions import Divisions
from sensegate.authority.index import DeviceIndex, unchanged
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import Config, TimeConfig
from sensegate.errors import Unavailable
from sensegate.ingest import sntp
from sensegate.ingest.own_clock import ClockMonitor, ClockReference, ClockSources, judge
from sensegate.normalise.clocks import DeviceAgreement
from tests.normalise.rows import NOW, Bench, Row

DAY = 86_400.0
DEVICES = 44


class Monitored:
    """A monitor over a normaliser, and devices that send once a minute."""

    def __init__(self, *, centre_s: float | None = None, ntp: dict[str, float | None] | None = None) -> None:
        self.bench = Bench()
        self.clock: FakeClock = self.bench.clock
        index = DeviceIndex(Divisions.load(), unchanged)
        index.reserve(DEVICES)
        self.index = index
        answers = ntp or {}

        async def ask(server: str, _clock: object) -> float:
            if (answer := answers[server]) is None:
                raise Unavailable("no answer")
            return answer

        self.monitor = ClockMonitor(
            Config(role="node", division="4401", directory="x", time=TimeConfig(ntp_servers=tuple(answers))),
            self.clock,
            MemoryLog(self.clock),
            self.bench.normaliser.clocks,
            index=index,
            sources=ClockSources(lambda: index.interval_s, lambda: centre_s, ask),
        )

    async def hear(self, lags_s: dict[int, float], minutes: int = 3) -> None:
        """Let each device send a reading of its lag once a minute; then judge."""
        for _ in range(minutes):
            await self.clock.advance(60)
            second = (self.clock.now() - NOW) / 1e6
            rows = [
                Row(20.0, device=device, time=second - lag, received=second, message=number)
                for number, (device, lag) in enumerate(lags_s.items())
            ]
            self.bench.run(*rows)
        await self.monitor.check()


async def test_a_few_devices_with_old_readings_do_not_stop_a_node() -> None:
    """Of 44 devices 20 send what they kept for two to twenty days, and are for minutes the only ones heard."""
    monitored = Monitored()
    rng = np.random.default_rng(1)
    old = {device: float(rng.uniform(2 * DAY, 20 * DAY)) for device in range(20)}
    await monitored.hear(old)
    assert monitored.monitor.not_ready() == []
    assert not monitored.bench.normaliser.clocks.own_clock_off
    await monitored.hear({**old, **dict.fromkeys(range(20, DEVICES), 1.0)})
    assert monitored.monitor.not_ready() == []
    # A reading from the future is still judged by its time.
    assert [int(flags) for flags in monitored.bench.flags(Row(20.0, device=43, time=DAY, received=200.0))] != [0]
    assert "not judged: no NTP server" in monitored.monitor.describe()


async def test_a_clock_that_is_off_is_found_by_devices_that_agree() -> None:
    """Control: with our clock an hour ahead, all devices are late by the same; once it is set, all is well."""
    monitored = Monitored()
    lags = {device: 3_600.0 + device / 10 for device in range(DEVICES)}
    await monitored.hear(lags)
    assert monitored.bench.normaliser.clocks.own_clock_off
    assert "3602 s ahead, judged by 44 of 44 devices agree within 60 s" in monitored.monitor.not_ready()[0]
    await monitored.hear(dict.fromkeys(range(DEVICES), 1.0))
    assert not monitored.bench.normaliser.clocks.own_clock_off


@pytest.mark.parametrize(("agreeing", "is_off"), [(29, False), (30, True)])
async def test_two_thirds_of_the_devices_must_agree(agreeing: int, *, is_off: bool) -> None:
    """Never by fewer than the stated share: 30 of 44, not 29."""
    monitored = Monitored()
    lags = {device: 3_600.0 if device < agreeing else 0.0 for device in range(DEVICES)}
    await monitored.hear(lags)
    assert monitored.bench.normaliser.clocks.own_clock_off is is_off


HOUR = 3_600.0
LAGS = [
    ("twenty of 44 keep the lag of an outage", dict.fromkeys(range(20), 2 * DAY), {}, False),
    ("all of them keep the lag of an outage", dict.fromkeys(range(DEVICES), 2 * DAY), {}, False),
    ("all send local time as UTC", dict.fromkeys(range(DEVICES), -8 * HOUR), {}, False),
    ("all take UTC for local time", dict.fromkeys(range(DEVICES), 8 * HOUR), {}, False),
    ("all send the beginning of their hour", dict.fromkeys(range(DEVICES), HOUR + 20), {"interval_s": HOUR}, False),
    ("all send the beginning of ten minutes", dict.fromkeys(range(DEVICES), 603.0), {"interval_s": 600.0}, False),
    ("twenty of 44 agree, the others are silent", dict.fromkeys(range(20), HOUR), {}, False),
    ("all stand behind one gateway", dict.fromkeys(range(DEVICES), HOUR), {"gateway": 1}, False),
    ("seven devices are too few", dict.fromkeys(range(7), HOUR), {"enabled": 7}, False),
    ("each has a lag of its own", {device: HOUR + 90.0 * device for device in range(DEVICES)}, {}, False),
    ("our clock is an hour ahead", dict.fromkeys(range(DEVICES), HOUR), {"interval_s": 60.0}, True),
    ("our clock stands at the beginning of the year", dict.fromkeys(range(DEVICES), -90 * DAY), {}, True),
]


@pytest.mark.parametrize(("lags", "known", "is_off"), [row[1:] for row in LAGS], ids=[row[0] for row in LAGS])
async def test_lags_with_another_reason_are_no_evidence(
    lags: dict[int, float], known: dict[str, float], *, is_off: bool
) -> None:
    """Outages, zones, periods, gateways and a few among many tell nothing of our clock; agreement of most does."""
    monitored = Monitored()
    monitored.index.enabled[: int(known.get("enabled", DEVICES))] = True
    monitored.index.interval_s[:DEVICES] = known.get("interval_s", 0.0)
    monitored.index.gateway[:DEVICES] = int(known.get("gateway", 0))
    await monitored.hear(lags, minutes=12)
    assert monitored.bench.normaliser.clocks.own_clock_off is is_off
    assert (monitored.monitor.not_ready() == []) is not is_off


async def test_references_come_before_devices() -> None:
    """All devices an hour late, and the centre says that the clock is right: it is."""
    monitored = Monitored(centre_s=0.4)
    await monitored.hear(dict.fromkeys(range(DEVICES), 3_600.0))
    assert monitored.monitor.not_ready() == []
    assert monitored.monitor.describe() == "right, +0.4 s, judged by the centre"


async def test_ntp_comes_before_a_centre_with_a_wrong_clock() -> None:
    """Of two references that differ the one of higher rank decides; a server that does not answer has no vote."""
    monitored = Monitored(centre_s=900.0, ntp={"a": 0.1, "b": None})
    await monitored.monitor.check()
    assert monitored.monitor.describe() == "right, +0.1 s, judged by NTP server a, against the centre (+900 s)"


NONE = DeviceAgreement()


@pytest.mark.parametrize(
    ("offsets", "is_off"),
    [([0, 900], False), ([900, 0], True), ([900, 0, 0], False), ([0, 900, 900], True), ([900], True)],
)
def test_the_majority_of_references_decides(offsets: list[float], *, is_off: bool) -> None:
    """Of two that differ the first; of three the two."""
    references = [ClockReference(str(place), offset) for place, offset in enumerate(offsets)]
    assert judge(references, NONE, 60.0).is_off is is_off


class NtpServer(asyncio.DatagramProtocol):
    """An NTP server whose clock is ahead of that of the test."""

    def __init__(self, clock: FakeClock, ahead_s: float, *, leap: int = 0, echo: bool = True) -> None:
        self.clock, self.ahead_s, self.leap, self.echo = clock, ahead_s, leap, echo

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        now = self.clock.now() / 1e6 + self.ahead_s + 2_208_988_800
        stamp = struct.pack("!II", int(now) % 2**32, int(now % 1 * 2**32))
        head = struct.pack("!BBBbIII", self.leap << 6 | 4 << 3 | 4, 2, 6, -20, 0, 0, 0)
        origin = data[40:48] if self.echo else bytes(8)
        self.transport.sendto(head + stamp + origin + stamp + stamp, addr)


async def offset_of(server: NtpServer) -> float:
    """Return the offset that a server gives."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        return await sntp.offset_s(f"127.0.0.1:{port}", server.clock)
    finally:
        transport.close()


@pytest.mark.parametrize("now", [NOW, 2_100_000_000_000_000])
@pytest.mark.parametrize("ahead_s", [0.0, 1.5, -86_400.0])
async def test_an_ntp_server_gives_the_offset(now: int, ahead_s: float) -> None:
    """Also in the era that begins in 2036."""
    assert await offset_of(NtpServer(FakeClock(now), ahead_s)) == pytest.approx(ahead_s, abs=1e-3)


async def test_a_server_that_is_not_synchronised_or_repeats_another_request_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer to a request that we did not make is not ours, whoever sent it."""
    monkeypatch.setattr(sntp, "TIMEOUT_S", 0.2)
    with pytest.raises(Unavailable, match="not synchronised"):
        await offset_of(NtpServer(FakeClock(NOW), 0.0, leap=3))
    with pytest.raises(Unavailable, match="does not answer"):
        await offset_of(NtpServer(FakeClock(NOW), 0.0, echo=False))
