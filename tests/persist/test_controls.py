"""Negative controls: what the guarantees stand on, taken away; each time a doubled reading must show."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from sensegate.bus.timelines import Timelines
from sensegate.errors import Fenced
from sensegate.model import LogMessage
from sensegate.persist.checkpoint_store import Checkpoint, CheckpointStore
from sensegate.persist.duplicates import Deduplicator
from tests.persist.rig import NONE, NOW, TIME, Rig, Row, Sent


def reading(value: float = 1.0, spec: int = TIME) -> Sent:
    """Return a message of one reading."""
    return Sent((Row(spec, value, NOW),), b"x")


async def after_a_restart(directory: Path) -> int:
    """Return how often a reading is shown whose message comes again after a restart."""
    rig = Rig(directory)
    await rig.open()
    await rig.commit([reading()])
    await rig.restart()
    await rig.commit([reading()])
    return max((await rig.shown()).values())


async def test_state_comes_from_the_log(tmp_path: Path) -> None:
    """With no checkpoint on disk the state is built again from the log."""
    assert await after_a_restart(tmp_path) == 1


async def test_a_dropped_state_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the log says, the reading is there twice."""
    monkeypatch.setattr(Deduplicator, "apply", lambda *_args, **_more: None)
    assert await after_a_restart(tmp_path) == 2


async def after_a_checkpoint(directory: Path) -> int:
    """Return the same where the reading was in a checkpoint and the log before it was forgotten."""
    rig = Rig(directory)
    await rig.open()
    await rig.commit([reading()])
    rig.clock._now += 31_000_000
    await rig.commit([reading(2.0, NONE)])
    rig.duplicates.wait_idle()
    assert rig.duplicates.checkpoint > 0
    await rig.restart()
    await rig.commit([reading()])
    return (await rig.shown())["dev-0", "air_temperature.", NOW, 1.0]


async def test_a_checkpoint_is_read(tmp_path: Path) -> None:
    """What is in a checkpoint is not read from the log again, and known all the same."""
    assert await after_a_checkpoint(tmp_path) == 1


async def test_a_checkpoint_that_claims_more_than_it_holds_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that names a sequence whose rows were not written doubles the reading."""
    plain = CheckpointStore.save

    def lie(self: CheckpointStore, checkpoint: Checkpoint, timelines: Timelines, sequence: int, witness: int) -> None:
        checkpoint.memtable.count = 0
        plain(self, checkpoint, timelines, sequence, witness)

    monkeypatch.setattr(CheckpointStore, "save", lie)
    assert await after_a_checkpoint(tmp_path) == 2


async def killed_after_the_commit(directory: Path) -> int:
    """Return how often a reading without identity is shown when the worker dies before it acknowledges."""
    rig = Rig(directory)
    await rig.open()
    messages = [reading(spec=NONE)]
    pending = rig.prepare(messages)
    with contextlib.suppress(SystemExit):
        await rig.committer.write(pending)
    positions = await rig.restart()
    if "mqtt" not in positions:
        # The source gives again what lies above the committed position.
        rig.sequence = 0
        await rig.commit(messages)
    return max((await rig.shown()).values())


async def test_the_position_is_in_the_same_write(tmp_path: Path) -> None:
    """What was committed is not asked for again: not even a reading without any identity is doubled."""
    assert await killed_after_the_commit(tmp_path) == 1


async def test_a_position_saved_apart_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings first and the position after them: a kill between the two doubles the reading."""
    rig_log_write = Rig.__init__.__globals__["MemoryLog"].write
    deaths = [True]

    async def apart(self: object, members: list[LogMessage]) -> int:
        plain = [member for member in members if not member.subject.startswith("commit.")]
        await rig_log_write(self, plain)
        if deaths:
            deaths.pop()
            raise SystemExit
        return int(await rig_log_write(self, members[-1:]))

    monkeypatch.setattr(Rig.__init__.__globals__["MemoryLog"], "write", apart)
    assert await killed_after_the_commit(tmp_path) == 2


async def two_workers(directory: Path) -> int:
    """Return how often a reading is shown that an old worker and its successor both had in hand."""
    old = Rig(directory / "old")
    await old.open()
    pending = old.prepare([reading(spec=NONE)])
    new = Rig(directory / "new", log=old.log)
    await new.open()
    await new.commit([reading(spec=NONE)])
    with contextlib.suppress(Fenced):
        await old.committer.write(pending)
    return max((await new.shown()).values())


async def test_the_old_worker_is_fenced(tmp_path: Path) -> None:
    """The successor's commit stands alone."""
    assert await two_workers(tmp_path) == 1


async def test_a_fence_removed_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the expected sequence both commits stand."""
    memory = Rig.__init__.__globals__["MemoryLog"]
    plain = memory.write

    async def unfenced(self: object, members: list[LogMessage]) -> int:
        return int(
            await plain(
                self,
                [LogMessage(member.subject, member.payload, member.ttl_h, rollup=member.rollup) for member in members],
            )
        )

    monkeypatch.setattr(memory, "write", unfenced)
    assert await two_workers(tmp_path) == 2
