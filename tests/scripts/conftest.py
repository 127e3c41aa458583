"""Children for scripts, and scripts in short."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sensegate.scripts.conduct import Conduct
from sensegate.scripts.pool import Ask, Scripts
from sensegate.scripts.wire import Call, Outcome, Source

CODECS = Path(__file__).parent / "codecs"
RECEIVED_MS = 1_772_366_400_000
"""2026-03-01T12:00:00Z"""

Decode = Callable[..., Outcome]


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    """Children of this module's tests."""
    made = Scripts()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def forgiven(request: pytest.FixtureRequest) -> None:
    """What one test's scripts did is not held against another's."""
    if "scripts" in request.fixturenames:
        shared: Scripts = request.getfixturevalue("scripts")
        shared.conduct = Conduct(time.monotonic)


def source_of(text: str, *, file: str = "codec.js", **options: Any) -> Source:
    """Return a script; its key says what it is."""
    return Source(key=f"{file} {hash((text, str(options)))}", file=file, text=text, **options)


def ask(source: Source, payload: bytes = b"", port: int = 1, sender: str = "t", received_ms: int = RECEIVED_MS) -> Ask:
    """Return a frame for a script."""
    return Ask(source, Call(payload, port, received_ms), sender)


@pytest.fixture
def decode(scripts: Scripts) -> Decode:
    """Run one frame through a script in text."""

    def run(text: str, payload: bytes = b"", port: int = 1, **options: Any) -> Outcome:
        [outcome] = scripts.run([ask(source_of(text, **options), payload, port)])
        return outcome

    return run
