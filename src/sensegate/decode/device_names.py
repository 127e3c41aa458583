"""Device names built from several levels of a topic: ``{group}/{node}`` of ``spBv1.0/{group}/NDATA/{node}``.

A template works both ways: a topic's captures give the name (`DeviceNameTemplates.complete`), and a name gives the
captures back (`DeviceNameTemplates.captures`), and with them the topics that a device of this name may use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sensegate.decode import topics
from sensegate.decode.topics import TopicPattern

ANY = ("any", "any_b", "any_c")
"""Captures that stand for anything."""
"""Capture of a subscribed topic that matches anything."""


class DeviceNameTemplates(NamedTuple):
    """Templates by which a rule builds the names of its device and its gateway; None: they are captured as they are."""

    device: TopicPattern | None = None
    gateway: TopicPattern | None = None

    def complete(self, captured: dict[str, str]) -> dict[str, str]:
        """Return a topic's captures with ``device`` and ``gateway``, if a template builds them."""
        if self.device is None and self.gateway is None:
            return captured
        completed = dict(captured)
        if self.device is not None:
            completed["device"] = topics.fill(self.device, captured)
        if self.gateway is not None:
            completed["gateway"] = topics.fill(self.gateway, captured)
        return completed

    @property
    def has_templates(self) -> bool:
        """Return whether a template forms the name of the publisher."""
        return self.device is not None or self.gateway is not None

    def captures(self, name: str) -> dict[str, str] | None:
        """Return the captures of which a name is built, None if no template matches it."""
        for template in (self.device, self.gateway):
            if template is not None and (captures := topics.match(template, name)) is not None:
                return captures
        return None

    def filters(self, pattern: TopicPattern, names: Sequence[str]) -> Iterator[str]:
        """Yield the topic filters under which a device with these names publishes; other captures are wildcards."""
        template = self.device or self.gateway
        for name in names:
            captures = topics.match(template, name) if template is not None else None
            if captures is not None:
                yield topics.fill(pattern, captures)


def subscribe_filters(
    patterns: Sequence[TopicPattern], templates: Sequence[DeviceNameTemplates], names: Sequence[str]
) -> list[str]:
    """Return the topics of `patterns` for a device with these names, without those that its names do not fill.

    The captures ``any``, ``any_b`` and ``any_c`` are wildcards: for topics meant for all devices.
    """
    subscribed: dict[str, None] = {}
    for name in names:
        captured = {"device": name, **dict.fromkeys(ANY, "+")}
        for template in dict.fromkeys(templates):
            captured.update(template.captures(name) or {})
        subscribed.update(
            (topics.fill(pattern, captured), None) for pattern in patterns if pattern.captures <= captured.keys()
        )
    return list(subscribed)
