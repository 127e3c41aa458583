"""Fixtures of the border between tiers."""

from __future__ import annotations

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from tests.tiers.world import World


@pytest.fixture
def world() -> World:
    """Return an empty world."""
    return World()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def trail() -> MemoryTrail:
    return MemoryTrail()


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def admin() -> Principal:
    return Principal("admin", Role.ADMIN, scope("44"))
