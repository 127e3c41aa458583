"""The hour of the audit trail: counts of deliveries, a signed head in a file, a sign of life before records expire."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from sensegate.authority.chain import check_export, decode, line_of
from sensegate.authority.heads import HOUR_S, HourlyHeads, load_or_create_key, read_heads
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import Facts
from sensegate.clock import FakeClock
from sensegate.config.people import AUDIT_TTL_MIN_H, AuditConfig
from sensegate.errors import Unavailable
from tests.support.memory_audit import MemoryAudit

BY = Principal("gateway", Role.ADMIN, scope("4401"))


async def test_an_hour_leaves_counts_and_a_head(tmp_path: Path) -> None:
    """What was delivered since the last hour stands on the chain; each head in the file is proved by the export."""
    clock = FakeClock()
    audit = MemoryAudit(clock)
    rows: list[Facts] = [{"token": "t1", "feed": "all", "delivery": "sse", "records": 7, "requests": 1, "bytes": 900}]
    hours = HourlyHeads(audit, tmp_path / "heads", clock, BY, lambda _since: rows)
    await hours.write_head()
    await clock.advance(HOUR_S)
    rows[0]["records"] = 9
    await hours.write_head()
    noted = read_heads(tmp_path / "heads", key=audit.key)
    assert [head.number for head in noted] == [1, 2]
    assert check_export([*audit.raw, line_of(await audit.signed())], heads=noted, key=audit.key).fault is None
    last = decode(audit.raw[-1])
    assert (last.action, last.after and last.after["totals"]) == ("delivery.counts", rows)
    assert last.after
    assert last.after["since"] == decode(audit.raw[0]).after["until"]  # type: ignore[index]


async def test_a_line_that_a_crash_cut_off_spoils_no_other(tmp_path: Path) -> None:
    """The heads before and after it are all there."""
    clock = FakeClock()
    audit = MemoryAudit(clock)
    rows: list[Facts] = [{"token": "t1", "records": 7}]
    hours = HourlyHeads(audit, tmp_path / "heads", clock, BY, lambda _since: rows)
    await hours.write_head()
    await hours.write_head()
    (tmp_path / "heads").write_bytes((tmp_path / "heads").read_bytes()[:-20])
    await hours.write_head()
    assert [head.number for head in read_heads(tmp_path / "heads", key=audit.key)] == [1, 3]


async def test_the_file_is_read_from_its_end(tmp_path: Path) -> None:
    """The heads of years are not read to append one more; a last line longer than one read is removed whole."""
    clock = FakeClock()
    audit = MemoryAudit(clock)
    rows: list[Facts] = [{"token": "t1", "records": 7}]
    hours = HourlyHeads(audit, tmp_path / "heads", clock, BY, lambda _since: rows)
    await hours.write_head()
    with (tmp_path / "heads").open("ab") as out:
        out.write((b" " * 1_023 + b"\n") * 16_384 + b"x" * 30_000)
    tracemalloc.start()
    try:
        await hours.write_head()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    lines = (tmp_path / "heads").read_bytes().splitlines()
    assert len(lines) == 16_386
    assert (lines[0][:1], lines[-2].strip(), lines[-1][:1]) == (b"{", b"", b"{")


def test_a_key_whose_writing_was_interrupted_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill or a full disk at the first start does not prevent the next one."""

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdopen", full)
        with pytest.raises(OSError, match="no space"):
            load_or_create_key(tmp_path / "audit.key")
    key = load_or_create_key(tmp_path / "audit.key")
    assert load_or_create_key(tmp_path / "audit.key").private_bytes_raw() == key.private_bytes_raw()
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600


async def test_many_counts_are_several_records(tmp_path: Path) -> None:
    """1,201 rows: three records, none too long."""
    clock = FakeClock()
    audit = MemoryAudit(clock)
    rows: list[Facts] = [{"token": f"t{number}", "records": number} for number in range(1_201)]
    await HourlyHeads(audit, tmp_path / "heads", clock, BY, lambda _since: rows).write_head()
    results = [decode(raw).after or {} for raw in audit.raw]
    assert [len(result["totals"]) for result in results] == [500, 500, 201]  # type: ignore[arg-type]


async def test_a_silent_gateway_gives_a_sign_of_life_once_a_day(tmp_path: Path) -> None:
    """So the chain never loses its last record to its age."""
    clock = FakeClock()
    audit = MemoryAudit(clock)
    hours = HourlyHeads(audit, tmp_path / "heads", clock, BY, lambda _since: [])
    for _ in range(49):
        await hours.write_head()
        await clock.advance(HOUR_S)
    assert [decode(raw).action for raw in audit.raw] == ["audit.alive"] * 3
    assert len(read_heads(tmp_path / "heads")) == 49


async def test_an_hour_that_fails_is_made_good_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is away at the full hour; the counts come with the next head, over both hours."""
    clock = FakeClock()
    audit = MemoryAudit(clock)
    hours = HourlyHeads(audit, tmp_path / "heads", clock, BY, lambda since: [{"since": since}])
    await hours.write_head()
    began = clock.now()

    async def lost(*_: object, **__: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", lost)
        await clock.advance(HOUR_S)
        await hours._log_failure(hours.write_head)
    await clock.advance(HOUR_S)
    await hours.write_head()
    last = decode(audit.raw[-1]).after or {}
    assert (last["since"], last["until"]) == (began, clock.now())


async def test_a_trail_that_fills_up_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 80 % on, with the remedy: when it is full nothing may be changed."""
    audit = MemoryAudit(FakeClock())
    hours = HourlyHeads(audit, tmp_path / "heads", FakeClock(), BY, lambda _since: [])

    async def usage() -> float:
        return 0.83

    await hours.write_head()
    assert hours.warnings() == []
    monkeypatch.setattr(audit, "usage", usage)
    await hours.write_head()
    assert "83%" in hours.warnings()[0]
    assert "store.audit_bytes" in hours.warnings()[0]


def test_no_configuration_keeps_less_than_six_months() -> None:
    """184 days or for ever."""
    assert AuditConfig(ttl_h=AUDIT_TTL_MIN_H).ttl_h == 4_416
    with pytest.raises(ValueError, match="six months"):
        AuditConfig(ttl_h=AUDIT_TTL_MIN_H - 1)
