"""What the devices of each profile are there to measure."""

from __future__ import annotations

from collections.abc import Callable

from sensegate.decode.profiles import ProfileSet
from sensegate.quantities.properties import PROPERTIES

_HOUSEKEEPING = frozenset({"device", "place", "power"})
"""Domains of properties that tell how a device is, not what it is there to measure."""


def purposes(profiles: Callable[[], ProfileSet]) -> Callable[[str], frozenset[str]]:
    """Return a function: profile id -> properties that its devices measure, housekeeping left out; empty: unknown."""
    known: dict[str, frozenset[str]] = {}
    of: ProfileSet | None = None

    def properties(profile: str) -> frozenset[str]:
        nonlocal known, of
        if (now := profiles()) is not of:
            found: dict[str, set[str]] = {}
            for spec in now.specs:
                at = PROPERTIES.find(spec.property)
                if at >= 0 and PROPERTIES[at].domain not in _HOUSEKEEPING:
                    found.setdefault(spec.profile.partition("@")[0], set()).add(spec.property)
            known, of = {name: frozenset(names) for name, names in found.items()}, now
        return known.get(profile, frozenset())

    return properties
