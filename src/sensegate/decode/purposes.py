"""Properties that the devices of each profile are meant to measure."""

from __future__ import annotations

from collections.abc import Callable

from sensegate.decode.profiles import ProfileSet
from sensegate.quantities.properties import PROPERTIES

_HOUSEKEEPING = frozenset({"device", "place", "power"})
"""Domains of properties that describe the state of a device rather than its purpose."""


def purposes(profiles: Callable[[], ProfileSet]) -> Callable[[str], frozenset[str]]:
    """Return a function from profile id to the properties its devices measure, without housekeeping; empty: unknown."""
    by_profile: dict[str, frozenset[str]] = {}
    computed_for: ProfileSet | None = None

    def properties(profile: str) -> frozenset[str]:
        nonlocal by_profile, computed_for
        if (current := profiles()) is not computed_for:
            measured: dict[str, set[str]] = {}
            for spec in current.specs:
                index = PROPERTIES.find(spec.property)
                if index >= 0 and PROPERTIES[index].domain not in _HOUSEKEEPING:
                    measured.setdefault(spec.profile.partition("@")[0], set()).add(spec.property)
            computed_for = current
            by_profile = {name: frozenset(names) for name, names in measured.items()}
        return by_profile.get(profile, frozenset())

    return properties
