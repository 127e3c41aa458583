"""Registries of a restored store: what was revoked after the backup is merged, or said to be valid again."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from sensegate.bus import restores
from sensegate.bus.restores import Restore, RestoreHistory
from sensegate.clock import FakeClock
from sensegate.config import Config
from sensegate.tiers import restored_registries


@pytest.mark.parametrize("is_restored", [True, False])
async def test_without_a_centre_the_log_says_that_revocations_are_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_restored: bool
) -> None:
    """Once, at the first start after the restore; never where nothing was restored."""
    structlog.reset_defaults()  # a gateway of another test may have set a level
    monkeypatch.setattr(restored_registries, "_log", structlog.get_logger("tiers"))
    if is_restored:
        restore = Restore(made=1, at=2, by="li", source="/backup", original="host:/data")
        restores.write(tmp_path, RestoreHistory().with_restore(restore))
    config = Config(role="centre", division="44", directory=str(tmp_path))
    with capture_logs() as lines:
        for _ in range(2):
            await restored_registries.settle(config, FakeClock(), {}, "epoch")
    selected = [line for line in lines if "valid again" in line["event"]]
    assert len(selected) == is_restored
    assert all(line["log_level"] == "warning" for line in selected)
