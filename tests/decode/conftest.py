"""The fixtures of decoders and profiles."""

from __future__ import annotations

from tests.support.profiles import make, plain, profiles

__all__ = ["make", "plain", "profiles"]
