"""The audit chain: append-only, one chain for all writers, every tampering found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from sensegate.authority.audit import START, Audit, AuditRecord, ChainHead, digest, verify
from sensegate.authority.scope import Principal
from sensegate.bus import api
from sensegate.bus.engine import Engine
from sensegate.clock import SystemClock
from sensegate.errors import EngineError, Unavailable


def chain(length: int) -> list[bytes]:
    """Return a whole chain of stored records."""
    stored: list[bytes] = []
    previous = START
    for number in range(1, length + 1):
        record = AuditRecord(number, previous, number, "admin", "admin", "device.add", f"d{number}", nonce=str(number))
        stored.append(msgspec.json.encode(record))
        previous = digest(stored[-1])
    return stored


def test_a_whole_chain_has_no_fault() -> None:
    """From its start, from any later place, and up to a noted head."""
    stored = chain(5)
    assert verify(stored) is None
    assert verify([]) is None
    assert verify(stored[2:], after=ChainHead(2, digest(stored[1]))) is None
    assert verify(stored, head=ChainHead(3, digest(stored[2]))) is None


@given(st.integers(0, 5), st.sampled_from(["change", "remove", "double", "swap", "forge"]))
def test_every_tampering_is_found(at: int, how: str) -> None:
    """Change, removal, doubling, exchange or insertion of a record shows."""
    stored = chain(7)
    head = ChainHead(7, digest(stored[-1]))
    if how == "change":
        stored[at] = stored[at].replace(b'"admin"', b'"other"', 1)
    elif how == "remove":
        del stored[at]
    elif how == "double":
        stored.insert(at, stored[at])
    elif how == "swap":
        stored[at], stored[at + 1] = stored[at + 1], stored[at]
    else:
        forged = msgspec.structs.replace(msgspec.json.decode(stored[at], type=AuditRecord), target="forged")
        stored.insert(at, msgspec.json.encode(forged))
    assert verify(stored, head=head) is not None


def test_a_cut_end_is_found_by_the_head() -> None:
    """Without a head noted elsewhere a shorter chain is whole; with one it is not."""
    stored = chain(4)
    assert verify(stored[:3]) is None
    fault = verify(stored[:3], head=ChainHead(4, digest(stored[3])))
    assert fault
    assert "cut off" in fault.problem


@pytest.fixture
async def audit(gateway: Client) -> AsyncIterator[Audit]:
    made = Audit(gateway, SystemClock(), gateway="4401")
    yield made
    await made.close()


@pytest.mark.live
async def test_records_are_chained_on_the_stream(audit: Audit, admin: Principal) -> None:
    """Each is durable when `record` returns, in order, and the chain is whole; its head proves a later cut."""
    for number in range(5):
        await audit.record(admin, "device.add", f"d{number}", after={"grade": number})
    records = [record for _, record in await audit.read()]
    assert [record.number for record in records] == [1, 2, 3, 4, 5]
    assert records[3].after == {"grade": 3}
    assert await audit.check() is None
    head = await audit.head()
    assert head.number == 5
    assert await audit.check(head) is None
    assert await audit.check(ChainHead(9, "x" * 64)) is not None
    assert [record.number for _, record in await audit.read((await audit.read())[2][0], limit=1)] == [4]


@pytest.mark.live
async def test_two_processes_write_one_chain(audit: Audit, gateway: Client, admin: Principal) -> None:
    """Writers at the same time never fork it and lose nothing."""
    other = Audit(gateway, SystemClock(), gateway="4401")

    async def write(trail: Audit, name: str) -> None:
        for number in range(20):
            await trail.record(admin, "device.add", f"{name}{number}")

    await asyncio.gather(write(audit, "a"), write(other, "b"))
    records = [record for _, record in await audit.read(limit=1_000)]
    assert [record.number for record in records] == list(range(1, 41))
    assert len({record.target for record in records}) == 40
    assert await audit.check() is None
    await other.close()


@pytest.mark.live
async def test_the_server_lets_nobody_delete_a_record(audit: Audit, gateway: Client, admin: Principal) -> None:
    """Neither deletion nor purge is allowed on the stream, and what is written beside the chain breaks it visibly."""
    await audit.record(admin, "device.add", "a")
    for subject, body in (("DELETE", {"seq": 1}), ("PURGE", {"filter": "audit.4401"})):
        name = f"$JS.API.STREAM.{'MSG.DELETE' if subject == 'DELETE' else 'PURGE'}.AUDIT"
        with pytest.raises(EngineError):
            await api.request(gateway, name, body)
    await api.request(gateway, "audit.4401", b"{}")
    fault = await audit.check()
    assert fault
    assert fault.number == 2


@pytest.mark.live
async def test_a_loss_is_looked_up(audit: Audit, admin: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time-out the end of the chain tells whether the record is there: it is never written twice."""
    call, lose = api.request, {"after": True}

    async def flaky(nc: Client, subject: str, *parts: object, **more: object) -> bytes:
        if subject != "audit.4401" or not lose:
            return await call(nc, subject, *parts, **more)  # type: ignore[arg-type]
        if lose.pop("after", False):
            await call(nc, subject, *parts, **more)  # type: ignore[arg-type]
        else:
            lose.clear()
        raise Unavailable("no answer")

    monkeypatch.setattr(api, "request", flaky)
    await audit.record(admin, "device.add", "written")
    lose["before"] = True
    with pytest.raises(Unavailable):
        await audit.record(admin, "device.add", "not written")
    await audit.record(admin, "device.add", "third")
    assert [record.target for _, record in await audit.read()] == ["written", "third"]
    assert await audit.check() is None


@pytest.mark.live
async def test_the_chain_goes_on_after_a_restart(
    engine: Engine, audit: Audit, gateway: Client, admin: Principal
) -> None:
    """A new process continues where the last one ended."""
    await audit.record(admin, "device.add", "a")
    successor = Audit(gateway, SystemClock(), gateway="4401")
    await successor.record(admin, "device.add", "b")
    assert await successor.check() is None
    assert (await successor.head()).number == 2
    await successor.close()
