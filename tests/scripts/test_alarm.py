"""A suspension is seen: in the metrics, in the log, and as a warning of readiness."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sensegate.clock import FakeClock
from sensegate.ingest.opening import Stages
from sensegate.metrics import REGISTRY
from sensegate.scripts import pool
from sensegate.scripts.pool import ScriptPool
from tests.scripts.conftest import ask, source_of
from tests.scripts.hostile import hostile

OUTCOMES = ("script_limit", "script_suspended")


def sample(name: str, **labels: str) -> float:
    """Return the value of a metric, 0 where there is none yet."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_suspension_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The gateway stays ready, says which script is suspended and why, and says no more of it when it is over."""
    clock = FakeClock()
    scripts = ScriptPool(clock.monotonic)
    monkeypatch.setattr(pool, "_shared", [scripts])
    monkeypatch.setattr(pool, "_inspector", [])
    stages: Any = SimpleNamespace(scrubber=SimpleNamespace(warnings=lambda: ["readings lost"]))
    suspended = sample("sensegate_script_suspensions_total", scope="script")
    calls = [sample("sensegate_script_calls_total", outcome=outcome) for outcome in OUTCOMES]
    bad = source_of(hostile("while (true) {}"), file="bad.js")
    try:
        assert Stages.warnings(stages) == ["readings lost"]
        scripts.run([ask(bad, b"\1", sender=f"s{at}") for at in range(4)])
        script, other = Stages.warnings(stages)
        assert other == "readings lost"
        assert "bad.js" in script
        assert "more CPU time than it may have" in script
        await clock.advance(61)
        assert Stages.warnings(stages) == ["readings lost"]
    finally:
        scripts.close()
    assert sample("sensegate_script_suspensions_total", scope="script") == suspended + 1
    limited, refused = (
        sample("sensegate_script_calls_total", outcome=outcome) - before
        for outcome, before in zip(OUTCOMES, calls, strict=True)
    )
    # A call that ends its process, as on a busy machine, counts twice: the script is suspended before the last one.
    assert limited + refused == 4
    assert limited >= 2
    output = capsys.readouterr()
    assert "codec script suspended" in output.out + output.err
