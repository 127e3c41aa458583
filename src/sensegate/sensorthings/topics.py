"""Topics of the MQTT extension: resource paths with the version before them, and `$select` behind.

``v1.1/Datastreams(5)/Observations?$select=result`` is of all that a token sees, ``feeds/air/sta/v1.1/Observations`` of
a feed. A set is told of new and changed entities, an entity of its changes, a property of its own.
"""

from __future__ import annotations

import re

import msgspec

from sensegate.sensorthings.syntax import PathStep, parse_path, parse_select
from sensegate.share.feeds import ALL_FEED
from sensegate.web.problems import BadRequest

TOPIC_MAX = 1_000
"""Most characters of a topic."""
_TOPIC = re.compile(r"(?:feeds/([^/?]+)/sta/)?v1\.1/([^?]+)(?:\?\$select=(.*))?", re.ASCII | re.DOTALL)


class ServiceTopic(msgspec.Struct, frozen=True):
    """A topic."""

    text: str
    feed: str
    steps: tuple[PathStep, ...]
    select: tuple[str, ...] = ()


def parse_topic(text: str) -> ServiceTopic:
    """Return the target of a topic. Raises `BadRequest`."""
    if "#" in text or "+" in text:
        raise BadRequest("topic: has a wildcard; name a resource, such as v1.1/Observations")
    match = _TOPIC.fullmatch(text)
    if match is None or len(text) > TOPIC_MAX:
        raise BadRequest(
            f"topic: '{text[:60]}' is not understood; give v1.1/PATH or feeds/FEED/sta/v1.1/PATH, "
            "of an entity set also with ?$select=NAME,NAME"
        )
    feed, path, select = match.groups()
    return ServiceTopic(text, feed or ALL_FEED.name, parse_path(path), parse_select(select) if select else ())
