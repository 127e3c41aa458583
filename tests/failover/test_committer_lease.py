"""The lease of a node's committer: who may take it, when, and what its holder notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import nats.errors
import pytest
from nats.aio.client import Client

from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import KvBucket
from sensegate.bus.kv_row import KvRow
from sensegate.clock import FakeClock, SystemClock
from sensegate.errors import Superseded, Unavailable
from sensegate.failover import committer_lease
from sensegate.failover.committer_lease import (
    ABSENT_S,
    BUCKET,
    KEY,
    LEASE_S,
    CommitterLease,
    HolderWatch,
    LeaseRow,
    _Standby,
    digests,
)


def test_a_holder_without_a_connection_is_replaced_soon() -> None:
    """After ABSENT_S in a row; a renewal, or an answer in between, begins anew."""
    watch = HolderWatch()
    assert not watch.observe(1, 0.0, absent=True)
    assert not watch.observe(1, ABSENT_S - 0.1, absent=True)
    assert not watch.observe(2, ABSENT_S, absent=True), "it has renewed"
    assert not watch.observe(2, ABSENT_S + 0.1, absent=False), "it has answered"
    assert not watch.observe(2, ABSENT_S + 0.2, absent=True)
    assert watch.observe(2, 2 * ABSENT_S + 0.3, absent=True)


def test_a_silent_holder_is_replaced_after_the_lease() -> None:
    """It may be on its way: it is waited for as long as a renewal may take, an election included."""
    watch = HolderWatch()
    assert not watch.observe(1, 0.0, absent=False)
    assert not watch.observe(1, LEASE_S - 0.1, absent=False)
    assert watch.observe(1, LEASE_S, absent=False)
    assert not watch.observe(2, LEASE_S, absent=False)


class Cluster:
    """The cluster as a waiting gateway sees it: a lease that nobody renews; reads fail while it is unavailable."""

    def __init__(self) -> None:
        self.available = True
        self.absent = False
        self.taken: list[int] = []

    async def get(self, _key: str) -> KvRow:
        if not self.available:
            raise Unavailable("no leader")
        return KvRow(KEY, msgspec.json.encode(LeaseRow("token of another", "a")), 7)

    def is_own(self, _row: LeaseRow) -> bool:
        return False

    async def take(self, _present: LeaseRow, revision: int) -> bool:
        self.taken.append(revision)
        return True

    async def request(self, _subject: str, _payload: bytes, timeout: float) -> None:
        if self.absent:
            raise nats.errors.NoRespondersError
        assert timeout


@pytest.mark.parametrize("absent", [False, True])
async def test_an_outage_of_the_cluster_is_no_silence_of_the_holder(*, absent: bool) -> None:
    """Without a cluster nobody renews: after the outage the holder has the usual time, then it is replaced."""
    cluster, clock = Cluster(), FakeClock()
    standby = _Standby(cast("Any", None), clock, *cast("tuple[Any, Any, Any]", (cluster, cluster, cluster)))
    watch = HolderWatch()
    assert not await standby._try(watch)
    cluster.available = False
    for _ in range(3):
        await clock.advance(LEASE_S)
        assert not await standby._try(watch)
    cluster.available, cluster.absent = True, absent
    assert not await standby._try(watch), "it had no time to renew since the cluster is back"
    await clock.advance((ABSENT_S if absent else LEASE_S) - 0.1)
    assert not await standby._try(watch)
    await clock.advance(0.2)
    assert await standby._try(watch)
    assert cluster.taken == [7]


async def lease_of(connection: Client, directory: Path) -> CommitterLease:
    """Return a lease that is not taken."""
    directory.mkdir(exist_ok=True)
    bucket = await KvBucket.open(connection, BUCKET, bytes_max=1024**2)
    return CommitterLease(bucket, connection, SystemClock(), directory)


async def test_one_of_two_has_it(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that see the same lease one gets it; who loses it notices with the next renewal; keys are compared."""
    monkeypatch.setattr(committer_lease, "RENEW_S", 0.01)
    connection = await engine.connect(User.GATEWAY)
    first, second = await lease_of(connection, tmp_path / "a"), await lease_of(connection, tmp_path / "b")
    (tmp_path / "a" / "audit.key").write_text("a")
    (tmp_path / "b" / "audit.key").write_text("b")
    assert await first.take(LeaseRow(), 0)
    assert not await second.take(LeaseRow(), 0)
    bucket = await KvBucket.open(connection, BUCKET, bytes_max=1024**2)
    row = await bucket.get(KEY)
    assert row is not None
    present = committer_lease._decode(row.value or b"")
    assert first.is_own(present)
    assert not second.is_own(present)
    assert await second.take(present, row.revision)
    assert "audit.key" in second.warnings()[0]
    assert not first.warnings()
    with pytest.raises(Superseded):
        await first.hold()
    await first.close()
    row = await bucket.get(KEY)
    assert row is not None
    assert second.is_own(committer_lease._decode(row.value or b"")), "who has lost it does not give it back"
    await second.close()
    row = await bucket.get(KEY)
    assert row is not None
    assert not committer_lease._decode(row.value or b"").token
    await connection.close()


def test_only_files_that_exist_have_a_digest(tmp_path: Path) -> None:
    """The first start of a gateway has no keys yet."""
    (tmp_path / "audit.key").write_text("a")
    assert set(digests(tmp_path, ("audit.key", "masks.key"))) == {"audit.key"}
