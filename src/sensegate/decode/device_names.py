"""Names of devices that are made of several levels of a topic: ``{group}/{node}`` of ``spBv1.0/{group}/NDATA/{node}``.

A template is read both ways: a topic's captures make the name (`Names.complete`), a name gives the captures back
(`Names.captures`), and with them the topics that a device of this name may use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sensegate.decode import topics
from sensegate.decode.topics import Pattern

ANY = "any"
"""Capture of topics heard that is whatever stands there."""


class Names(NamedTuple):
    """How a rule makes the names of its device and its gateway; None: they are captured as they are."""

    device: Pattern | None = None
    gateway: Pattern | None = None

    def complete(self, captured: dict[str, str]) -> dict[str, str]:
        """Return a topic's captures with ``device`` and ``gateway``, where a template makes them."""
        if self.device is None and self.gateway is None:
            return captured
        made = dict(captured)
        if self.device is not None:
            made["device"] = topics.fill(self.device, captured)
        if self.gateway is not None:
            made["gateway"] = topics.fill(self.gateway, captured)
        return made

    @property
    def own(self) -> bool:
        """Whether a template makes the name of the one who publishes."""
        return self.device is not None or self.gateway is not None

    def captures(self, name: str) -> dict[str, str] | None:
        """Return the captures of which this name is made, None where it is none of the templates' names."""
        for template in (self.device, self.gateway):
            if template is not None and (found := topics.match(template, name)) is not None:
                return found
        return None

    def filters(self, pattern: Pattern, names: Sequence[str]) -> Iterator[str]:
        """Yield the topic filters under which a device of these names publishes; what no name says is a wildcard."""
        template = self.device or self.gateway
        for name in names:
            found = topics.match(template, name) if template is not None else None
            if found is not None:
                yield topics.fill(pattern, found)


def heard(patterns: Sequence[Pattern], rules: Sequence[Names], names: Sequence[str]) -> list[str]:
    """Return the topics of `patterns` for a device of these names; those that its names do not fill are left out.

    The capture ``any`` is a wildcard: for what is meant for everybody.
    """
    found: dict[str, None] = {}
    for name in names:
        captured = {"device": name, ANY: "+"}
        for one in dict.fromkeys(rules):
            captured.update(one.captures(name) or {})
        found.update(
            (topics.fill(pattern, captured), None) for pattern in patterns if pattern.captures <= captured.keys()
        )
    return list(found)
