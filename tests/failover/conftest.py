"""Fixtures of two centres."""

from __future__ import annotations

import pytest

from sensegate.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
