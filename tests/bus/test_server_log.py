"""The server's log in ours, and refusals counted from it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from sensegate.bus import server_log
from sensegate.bus.engine import Engine
from sensegate.bus.server_log import ServerLog, Violation, parse_violation
from sensegate.clock import FakeClock

MQTT_LINE = '127.0.0.1:45671 - mid:24 - "cid-7" - Publish Violation - Subject "sg.other.up"'
NATS_LINE = (
    '127.0.0.1:37372 - cid:36 - "v2.16.0:python3:sensegate" - "DEVICES/user:dev1" - Publish Violation - Subject "zz"'
)
TRICK = '127.0.0.1:1 - mid:5 - "x\\" - Publish Violation - Subject \\"y" - Subscription Violation - Subject "a.b"'


def test_a_refusal_of_an_mqtt_client_is_read() -> None:
    """The line names connection and client id; account and user are asked for elsewhere."""
    assert parse_violation(MQTT_LINE) == Violation("publish", "sg.other.up", 24, "cid-7", "127.0.0.1:45671", True)


def test_a_refusal_of_a_nats_client_is_read() -> None:
    """Here the line names the user."""
    assert parse_violation(NATS_LINE) == Violation(
        "publish", "zz", 36, "v2.16.0:python3:sensegate", "127.0.0.1:37372", False, "DEVICES", "dev1"
    )


def test_a_client_id_that_looks_like_a_line_deceives_nobody() -> None:
    """Client ids are the devices' own words; only the end of the line is the server's."""
    result = parse_violation(TRICK)
    assert result is not None
    assert (result.operation, result.subject, result.connection) == ("subscribe", "a.b", 5)


@pytest.mark.parametrize("text", ["Server is ready", "Authorization Violation", 'x - Publish Violation - Subject "y"'])
def test_other_lines_are_no_refusals(text: str) -> None:
    """Negative control."""
    assert parse_violation(text) is None


def line(level: str, text: str) -> str:
    """A line as the server writes it."""
    return f"[7392] 2026/01/01 00:00:00.123456 [{level}] {text}\n"


@pytest.fixture
def violations() -> list[Violation]:
    """The refusals told."""
    return []


def test_levels_are_folded_into_ours(
    tmp_path: Path, violations: list[Violation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Normal operation is silent above debug; warnings and errors come through; the newest errors are kept."""
    (tmp_path / "nats.log").write_text(
        line("INF", "Server is ready") + line("WRN", "slow") + line("ERR", "bad") + line("FTL", "dead") + "no line\n"
    )
    # A gateway of another test may have set a level.
    structlog.reset_defaults()
    monkeypatch.setattr(server_log, "_log", structlog.get_logger("bus"))
    with capture_logs() as logs:
        log = ServerLog(tmp_path, violations.append)
        assert log.poll() == 5
        log.close()
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("debug", "Server is ready"),
        ("warning", "slow"),
        ("warning", "bad"),
        ("error", "dead"),
    ]
    assert log.last_errors == ["bad", "dead"]


def test_words_of_devices_are_written_over(tmp_path: Path, violations: list[Violation]) -> None:
    """What a subject or a client id may say of somebody is told on, and no longer in the file; nothing else moves."""
    subject = "frigate.李雷.seen_2.LK07XPD.44010600001190000001"
    refused = f'127.0.0.1:45671 - mid:24 - "李雷的手机" - Publish Violation - Subject "{subject}"'
    text = line("INF", "Server is ready") + line("ERR", refused) + line("INF", "Client of 李雷 is gone")
    (tmp_path / "nats.log").write_text(text, encoding="utf-8")
    log = ServerLog(tmp_path, violations.append)
    with capture_logs() as lines:
        log.poll()
    log.close()
    assert [(version.subject.split(".")[1], version.client_id) for version in violations] == [("李雷", "李雷的手机")]
    left = (tmp_path / "nats.log").read_text(encoding="utf-8")
    assert len(left.encode()) == len(text.encode())
    assert "frigate.******.seen_2.*******.44010600001190000001" in left
    assert left.count("李雷") == 1
    assert left.splitlines()[::2] == text.splitlines()[::2]
    assert not [line for line in lines if "李雷" in str(line) and "Violation" in str(line)]


def test_errors_of_the_disk_are_told(tmp_path: Path, violations: list[Violation]) -> None:
    """The lines after which the server refuses every write in silence."""
    faults: list[str] = []
    (tmp_path / "nats.log").write_text(
        line("ERR", "JetStream stream 'SG > LOG' critical write error: write 7.blk: no space left on device")
        + line("ERR", "JetStream out of space, will be DISABLED")
        + line("ERR", "some other error")
    )
    log = ServerLog(tmp_path, violations.append, faults.append)
    log.poll()
    log.close()
    assert len(faults) == 2


async def test_a_full_disk_does_not_end_the_reading(
    tmp_path: Path, violations: list[Violation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of the disk are told by just this log: its reader outlives them, and reads on."""
    faults: list[str] = []
    log = ServerLog(tmp_path, violations.append, faults.append)
    monkeypatch.setattr(log, "_position_file", tmp_path / "nowhere" / "place")
    read, broken = os.pread, [OSError(5, "Input/output error")]

    def pread(*given: int) -> bytes:
        if broken:
            raise broken.pop()
        return read(*given)

    monkeypatch.setattr(os, "pread", pread)
    clock = FakeClock()
    following = asyncio.create_task(log.follow(clock))
    path = tmp_path / "nats.log"
    for number in range(2):
        with path.open("a") as file:
            file.write(line("ERR", "JetStream out of space, will be DISABLED"))
        async with asyncio.timeout(30):
            while len(faults) <= number:
                await asyncio.sleep(0)
                await clock.advance(1.0)
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def test_half_a_line_waits_for_its_end(tmp_path: Path, violations: list[Violation]) -> None:
    """The server writes while we read."""
    path = tmp_path / "nats.log"
    whole = line("ERR", MQTT_LINE)
    log = ServerLog(tmp_path, violations.append)
    path.write_text(whole[:40])
    log.poll()
    assert violations == []
    with path.open("a") as file:
        file.write(whole[40:])
    log.poll()
    assert len(violations) == 1
    log.close()


def test_the_next_reader_goes_on_where_the_last_stopped(tmp_path: Path, violations: list[Violation]) -> None:
    """Refusals while no gateway lived are counted by the next one, and none twice."""
    path = tmp_path / "nats.log"
    path.write_text(line("ERR", MQTT_LINE) * 3)
    first = ServerLog(tmp_path, violations.append)
    first.open()
    first.poll()
    os.close(first._file or -1)  # killed
    with path.open("a") as file:
        file.write(line("ERR", MQTT_LINE) * 2)
    second = ServerLog(tmp_path, violations.append)
    second.open()
    second.poll()
    assert len(violations) == 5
    second.close()


def test_a_rotated_file_is_read_to_its_end_first(tmp_path: Path, violations: list[Violation]) -> None:
    """Nothing between the last read and the rotation is missed, also when the reader was away."""
    path = tmp_path / "nats.log"
    path.write_text(line("ERR", MQTT_LINE))
    log = ServerLog(tmp_path, violations.append)
    log.poll()
    with path.open("a") as file:
        file.write(line("ERR", MQTT_LINE))
    path.rename(tmp_path / "nats.log.2026.01.01.00.00.00.000000001")
    path.write_text(line("ERR", MQTT_LINE) * 2)
    while log.poll() or len(violations) < 4:
        pass
    assert len(violations) == 4
    log.close()
    reopened = ServerLog(tmp_path, violations.append)
    reopened.open()
    assert reopened.poll() == 0
    reopened.close()


async def test_refused_publishes_are_told_one_by_one(engine: Engine) -> None:
    """A node that oversteps is named, with the subject, as often as it did."""
    from sensegate.bus import connect

    client = await connect.connect(engine.info.urls[0], connect.Login("node-4403", "secret-of-4403"))
    for _ in range(100):
        await client.publish("readings.4401.all.1", b"x")
    await client.flush()
    results: list[Violation] = []
    async with asyncio.timeout(30):
        while len(results) < 100:
            results += await engine.violations()
    assert [(version.operation, version.subject, version.account, version.user) for version in results] == [
        ("publish", "readings.4401.all.1", "N_4403", "node-4403")
    ] * 100
    await client.close()


FAILED = (
    '127.0.0.1:40903 - mid:131 - "imei-86712345" - authentication error - User "13800138000"',
    '127.0.0.1:40903 - mid:131 - "imei-86712345" - unable to connect: authentication error',
    '127.0.0.1:36700 - cid:143 - "v1.50:go:a-name" - authentication error - User "my-password"',
    '127.0.0.1:40904 - mid:7 - "張三 \\"x\\" phone" - error parsing: unexpected',
)


def test_failed_logins_name_nobody(tmp_path: Path, violations: list[Violation]) -> None:
    """User names and client ids that nobody has proved are masked in our log, its errors and the server's file."""
    (tmp_path / "nats.log").write_text("".join(line("ERR", text) for text in FAILED), encoding="utf-8")
    before = (tmp_path / "nats.log").stat().st_size
    log = ServerLog(tmp_path, violations.append)
    with capture_logs() as logs:
        assert log.poll() == len(FAILED)
        log.close()
    entries = [entry["event"] for entry in logs]
    file = (tmp_path / "nats.log").read_text(encoding="utf-8")
    for name in ("86712345", "13800138000", "a-name", "my-password", "張三", "phone"):
        assert name not in " ".join(entries), name
        assert name not in " ".join(log.last_errors), name
        assert name not in file, name
    assert (tmp_path / "nats.log").stat().st_size == before
    assert entries[0].split('"')[1] == entries[1].split('"')[1], "attempts of one client can be told apart from others"
    assert entries[0].split('"')[1] != entries[2].split('"')[1]
    assert "authentication error" in entries[0]
    assert "mid:131" in entries[0]


def test_the_mask_of_a_name() -> None:
    """Equal for equal names, another one for another; of nothing there is nothing."""
    assert server_log.mask_name("a") == server_log.mask_name("a") != server_log.mask_name("b")
    assert server_log.mask_name("") == ""
    assert len(server_log.mask_name("x" * 10_000 + "\ud800")) == 9
