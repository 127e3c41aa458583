"""Fixtures of the border between tiers."""

from __future__ import annotations

import pytest

from tests.tiers.world import World


@pytest.fixture
def world() -> World:
    """An empty world."""
    return World()
