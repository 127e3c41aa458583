"""Children for scripts, and scripts in short."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sensegate.scripts.pool import PendingCall, ScriptPool
from sensegate.scripts.suspensions import Suspensions
from sensegate.scripts.wire import CallResult, ScriptCall, ScriptLimits, ScriptSource

CODECS = Path(__file__).parent / "codecs"
RECEIVED_MS = 1_772_366_400_000
"""2026-03-01T12:00:00Z"""

PATIENT = ScriptLimits(cpu_ms=50, mean_cpu_ms=50)
"""Limits of scripts that are not about limits: the first call in a new process pays for its page faults."""

Decode = Callable[..., CallResult]


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptPool]:
    """Children of this module's tests."""
    made = ScriptPool()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def forgiven(request: pytest.FixtureRequest) -> None:
    """What one test's scripts did is not held against another's."""
    if "scripts" in request.fixturenames:
        shared: ScriptPool = request.getfixturevalue("scripts")
        shared.suspensions = Suspensions(time.monotonic)


def source_of(text: str, *, file: str = "codec.js", **options: Any) -> ScriptSource:
    """Return a script; its key says what it is."""
    given = {"limits": PATIENT, **options}
    return ScriptSource(key=f"{file} {hash((text, str(options)))}", file=file, text=text, **given)


def ask(
    source: ScriptSource, payload: bytes = b"", port: int = 1, sender: str = "t", received_ms: int = RECEIVED_MS
) -> PendingCall:
    """Return a frame for a script."""
    return PendingCall(source, ScriptCall(payload, port, received_ms), sender)


@pytest.fixture
def decode(scripts: ScriptPool) -> Decode:
    """Run one frame through a script in text."""

    def run(text: str, payload: bytes = b"", port: int = 1, **options: Any) -> CallResult:
        [outcome] = scripts.run([ask(source_of(text, **options), payload, port)])
        return outcome

    return run
