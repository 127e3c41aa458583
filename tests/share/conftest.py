"""An empty log and a clock that stands."""

from __future__ import annotations

import pytest

from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from tests.share.made import NOW


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at NOW."""
    return FakeClock(NOW)


@pytest.fixture
def memory_log(clock: FakeClock) -> MemoryLog:
    """An empty log."""
    return MemoryLog(clock, epoch="e1")
