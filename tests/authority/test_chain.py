"""The chain as evidence: whatever is done to one record of an export is found; heads by their key alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority import heads as files
from sensegate.authority.chain import (
    ASIDE,
    Algorithm,
    AuditRecord,
    ChainHead,
    ChainVerifier,
    HeadSigner,
    SetAsideTail,
    SignedHead,
    check_export,
    decode,
    digest,
    encode,
    fingerprint,
    head_of,
    line_of,
)
from sensegate.authority.scope import Principal, Role, scope
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError
from tests.support.memory_audit import MemoryAudit

BY = Principal("t1", Role.CITY_OPERATOR, scope("4401"))
LENGTH = 7
BOTH = pytest.mark.parametrize("algorithm", list(Algorithm))


async def exported(
    algorithm: Algorithm = Algorithm.SHA256, length: int = LENGTH, word: str = "d"
) -> tuple[MemoryAudit, list[bytes]]:
    """Return a trail and its export, a line each."""
    trail = MemoryAudit(FakeClock(), algorithm=algorithm)
    for number in range(length):
        await trail.record(BY, "device.add", f"{word}{number}", after={"grade": number, "name": "溫度"})
    return trail, [*trail.raw, line_of(await trail.signed())]


@pytest.fixture(scope="module", params=list(Algorithm))
def evidence(request: pytest.FixtureRequest) -> tuple[MemoryAudit, list[bytes]]:
    """A trail of each hash, which no test changes."""
    return asyncio.run(exported(request.param))


def test_a_whole_export_is_whole(evidence: tuple[MemoryAudit, list[bytes]]) -> None:
    """The negative control of all that follows."""
    trail, lines = evidence
    report = check_export(lines, key=trail.key)
    assert report.fault is None
    assert (report.records, report.first, report.last) == (LENGTH, 1, LENGTH)
    assert report.signer == fingerprint(trail.key)


@given(at=st.integers(0, LENGTH), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_changed_bit_is_found(evidence: tuple[MemoryAudit, list[bytes]], at: int, place: int, bit: int) -> None:
    """In any record and in the head itself."""
    trail, lines = evidence
    changed = bytearray(lines[at])
    changed[place % len(changed)] ^= 1 << bit
    assert check_export([*lines[:at], bytes(changed), *lines[at + 1 :]], key=trail.key).fault is not None


@given(
    at=st.integers(0, LENGTH - 1),
    other=st.integers(0, LENGTH - 1),
    how=st.sampled_from(["remove", "double", "exchange", "blank", "space", "key order", "forge", "from here"]),
)
def test_any_change_of_one_record_is_found(
    evidence: tuple[MemoryAudit, list[bytes]], at: int, other: int, how: str
) -> None:
    """Removal, doubling, exchange, an empty line, other spelling, a forged one that fits its predecessor, a cut."""
    trail, lines = evidence
    whole = list(lines)
    match how:
        case "remove":
            del lines_of(whole)[at]
        case "double":
            whole.insert(other, whole[at])
        case "exchange":
            if at == other:
                return
            whole[at], whole[other] = whole[other], whole[at]
        case "blank":
            whole.insert(at, b"")
        case "space":
            whole[at] = whole[at].replace(b":", b": ", 1)
        case "key order":
            whole[at] = msgspec.json.encode(dict(reversed(msgspec.json.decode(whole[at]).items())))
        case "forge":
            forged = msgspec.structs.replace(decode(whole[at]), target="forged")
            whole[at] = encode(forged)
        case "from here":
            del whole[at : max(at, other) + 1]
    assert check_export(whole, key=trail.key).fault is not None


def lines_of(whole: list[bytes]) -> list[bytes]:
    """Return the lines themselves (for `del`, which needs a target)."""
    return whole


async def test_a_chain_made_anew_by_another_key_is_found() -> None:
    """Who rewrites everything cannot sign it: by its key, or against a head noted earlier."""
    trail, lines = await exported()
    noted = head_of(lines[-1])
    other, forged = await exported(word="forged")
    assert check_export(forged).fault is None, "without key or head nothing tells them apart"
    fault = check_export(forged, key=trail.key).fault
    assert fault
    assert fingerprint(other.key) in fault.problem
    fault = check_export(forged, heads=[noted]).fault
    assert fault
    assert fault.number == LENGTH


async def test_a_cut_behind_a_signed_head_is_found() -> None:
    """The gateway itself may sign a shorter chain; a head noted before says that there was more."""
    trail, lines = await exported()
    noted = head_of(lines[-1], key=trail.key)
    del trail.raw[4:]
    shorter = [*trail.raw, line_of(await trail.signed())]
    assert check_export(shorter, key=trail.key).fault is None
    fault = check_export(shorter, heads=[noted], key=trail.key).fault
    assert fault
    assert (fault.number, "cut off" in fault.problem) == (5, True)


async def promoted(*, names: bool = True) -> tuple[list[bytes], list[SignedHead], list[bytes]]:
    """Return the export of a second centre, heads noted at the first, and what that one alone had."""
    first, _ = await exported(length=4)
    second = MemoryAudit(FakeClock())
    second._signer, second.raw = first._signer, list(first.raw)
    heads = [await first.signed()]
    for number in range(3):
        await first.record(BY, "device.add", f"late{number}")
        heads.append(await first.signed())
    await second.record(BY, "centre.active", "44", after={"trail": 4})
    detail = {"place": "aside-1", "trail_after": 4, "trail_last": 7, "trail_hash": digest(first.raw[-1])}
    await second.record(BY, ASIDE if names else "centre.active", "44", after=detail)
    return [*second.raw, line_of(await second.signed())], heads, first.raw[4:]


async def test_heads_of_what_was_set_aside() -> None:
    """They hold where the records are shown and the chain names them; else they are faults, and it is said why."""
    lines, heads, late = await promoted()
    assert check_export(lines, heads=heads[:1]).fault is None
    for some in (heads, heads[-1:]):
        fault = check_export(lines, heads=some).fault
        assert fault
        assert "record 6 names it as set aside: give --aside aside-1/trail.ndjson" in fault.problem
    report = check_export(lines, heads=heads, tails=[SetAsideTail(late)])
    assert (report.fault, report.heads, report.aside) == (None, 1, 3)


async def test_nobody_excuses_a_change_so() -> None:
    """A tail that was changed, cut, stands elsewhere, or is named by no record excuses nothing."""
    lines, heads, late = await promoted()
    with pytest.raises(ConfigError, match="does not match"):
        SetAsideTail([late[0].replace(b"late0", b"other"), *late[1:]])
    other = (await exported(length=9, word="x"))[0].raw
    for tail in (late[:2], late[1:], other[4:7], [*late[:2], late[2].replace(b"late2", b"other")], []):
        assert check_export(lines, heads=heads, tails=[SetAsideTail(tail)]).fault
    unnamed, heads, late = await promoted(names=False)
    assert check_export(unnamed, heads=heads, tails=[SetAsideTail(late)]).fault
    # A chain without a common record: all of it was set aside.
    whole, _ = await exported(length=2)
    noted = await whole.signed()
    second = MemoryAudit(FakeClock())
    second._signer = whole._signer
    await second.record(BY, ASIDE, "44", after={"trail_after": 0, "trail_hash": digest(whole.raw[-1])})
    report = check_export([*second.raw, line_of(await second.signed())], heads=[noted], tails=[SetAsideTail(whole.raw)])
    assert (report.fault, report.aside) == (None, 1)


async def test_records_behind_the_head_are_not_believed() -> None:
    """What was appended to an export after it was signed is named."""
    trail, lines = await exported()
    await trail.record(BY, "device.add", "later")
    fault = check_export([*lines[:-1], trail.raw[-1], lines[-1]]).fault
    assert fault
    assert "after the signed head" in fault.problem


async def test_a_chain_goes_on_with_another_hash() -> None:
    """Records from before there was a choice, then SM3, then SHA-256 again: one chain; heads of each time hold."""
    clock = FakeClock()
    trail = MemoryAudit(clock)
    noted: list[SignedHead] = []
    for algorithm in (Algorithm.SHA256, Algorithm.SM3, Algorithm.SHA256):
        trail._algorithm = algorithm
        for number in range(3):
            await trail.record(BY, "device.add", f"{algorithm}{number}")
        noted.append(await trail.signed())
    assert b'"hash"' not in trail.raw[0], "spelled as before there was a choice"
    assert check_export([*trail.raw, line_of(noted[-1])], heads=noted, key=trail.key).fault is None
    assert [decode(raw).hash for raw in trail.raw] == ["sha256"] * 3 + ["sm3"] * 3 + ["sha256"] * 3


def test_sm3_is_sm3() -> None:
    """The published vector."""
    assert digest(b"abc", Algorithm.SM3) == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"


async def test_expired_records_are_told_from_removed_ones() -> None:
    """Where records have a life, the head says which is the oldest; without its word a chain begins with number 1."""
    trail, lines = await exported()
    early = head_of(line_of(trail._signer.sign(ChainHead(2, digest(trail.raw[1])), first=1, time=1)))
    kept = trail.raw[3:]
    assert check_export([*kept, lines[-1]], key=trail.key).fault is not None
    word = trail._signer.sign(trail.head(), first=4, time=2)
    report = check_export([*kept, line_of(word)], heads=[early], key=trail.key)
    assert report.fault is None
    assert (report.first, report.older, report.heads) == (4, 1, 0)


@pytest.mark.parametrize("lines", [[], [b""], [b"{}"], [b"\xff"], [b"[" * 5_000]])
def test_what_is_no_export_is_said(lines: list[bytes]) -> None:
    """Never a traceback."""
    assert check_export(lines).fault is not None


def test_a_head_speaks_for_its_own_gateway_alone() -> None:
    """A head of another gateway is not compared with this chain."""
    key = Ed25519PrivateKey.generate()
    mine, other = (HeadSigner(key, name).sign(ChainHead(), first=1, time=0) for name in ("4401", "4403"))
    fault = check_export([line_of(mine)], heads=[other]).fault
    assert fault
    assert "4403" in fault.problem


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    """0600, its public half beside it; the next start takes the same; what is no Ed25519 key is refused."""
    file = tmp_path / "audit.key"
    first = files.signer(file, "4401")
    assert file.stat().st_mode & 0o077 == 0
    assert files.signer(file, "4401").public == first.public == files.public_key(tmp_path / "audit.pub")
    file.write_text("-----BEGIN NOTHING-----", encoding="ascii")
    with pytest.raises(ConfigError, match="restore"):
        files.signer(file, "4401")
    with pytest.raises(ConfigError, match=r"audit\.pub"):
        files.public_key(file)


def test_a_walk_begins_where_it_is_told() -> None:
    """From a record whose head is known by another hash than the next one names: not believed."""
    record = AuditRecord(4, "0" * 64, 1, "a", "admin", "x", "y", "n", hash=Algorithm.SM3)
    assert ChainVerifier(after=ChainHead(3, "0" * 64)).take(encode(record)) is not None
    assert ChainVerifier(after=ChainHead(3, "0" * 64, algorithm=Algorithm.SM3)).take(encode(record)) is None
