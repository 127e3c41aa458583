"""Feature: MQTT discovery for Home Assistant."""

from __future__ import annotations

from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.home_assistant.discovery import Discovery, DiscoveryParts


async def _open(parts: Parts) -> Feature:
    share = parts.share
    discovery = Discovery(
        DiscoveryParts(
            sharing=share.sharing,
            latest=share.latest,
            tokens=parts.callers.tokens,
            offsets=share.push.offsets,
            publisher=share.push.topics,
            clock=parts.core.clock,
        )
    )
    return Feature(tasks=owned({"home assistant": discovery.run}))


FEATURE = FeatureSpec(
    name="home assistant",
    title="MQTT discovery for Home Assistant, for grants that ask for it",
    open=_open,
)
