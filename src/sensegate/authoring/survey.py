"""Summarise messages that no profile explains, by shape, and draft a profile for each shape. Pure."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

import msgspec

from sensegate.authoring.learn.learn import LearnedShape, interval_s, learn
from sensegate.authoring.learn.shapes import NESTING_MAX, Sample, SampleGroup
from sensegate.authoring.learn.write import ProfileDraft, draft, name_for
from sensegate.decode.chain import open_frames
from sensegate.decode.frame import PayloadFrame
from sensegate.decode.plan_cache import WrappedRule
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import Rejected
from sensegate.model import Message

_EUI = re.compile(r"[0-9a-fA-F]{16}")
SHOWN = 5
"""Most topics of a shape that are listed."""


class RecordedMessage(msgspec.Struct, frozen=True):
    """A recorded message with its quarantine reason (empty: not in quarantine)."""

    message: Message
    reason: str = ""
    device: str = ""
    """Device id, if known."""


class Registered:
    """The names of registered devices, as a container."""

    def __init__(self, find: Callable[[str], int]) -> None:
        self._find = find

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) >= 0


class ShapeSummary(msgspec.Struct, frozen=True):
    """Messages of one shape."""

    id: str
    """Stable as long as topic, format, port and the members of most messages are."""
    name: str
    """Suggested name of its profile."""
    pattern: str
    """Topic pattern; empty: frames that a carrier delivers."""
    format: str
    messages: int
    topics: list[str]
    """The first few topics."""
    reasons: dict[str, int]
    first: int
    """Arrival of the first, µs UTC."""
    last: int
    interval_s: float
    recognised: list[str]
    """Properties that its members were recognised as."""
    unrecognised: int
    """Number of members that were not recognised."""
    port: int | None = None
    maker: str = ""


def samples_of(messages: Iterable[RecordedMessage], profiles: ProfileSet) -> Iterator[Sample]:
    """Yield messages as samples; for the envelope of a known carrier, the frames inside."""
    for recorded in messages:
        message = recorded.message
        rules = [(rule, "") for rule, _ in profiles.match(message.topic) if rule.chains]
        inner = list(_frames(rules, message, recorded.reason)) if rules else []
        if inner:
            yield from inner
        else:
            yield Sample(message.topic, message.payload, message.received, recorded.device, recorded.reason)


def _frames(rules: Sequence[WrappedRule], message: Message, reason: str) -> Iterator[Sample]:
    frame = PayloadFrame(message.payload, NESTING_MAX, message.topic, message.received)
    try:
        for _, opened in open_frames(rules, frame):
            eui = next(iter(_EUI.findall(opened.name) or _EUI.findall(message.topic)), "")
            yield Sample(
                message.topic,
                opened.data,
                message.received,
                opened.name,
                reason,
                carried=True,
                port=opened.port,
                maker=eui[:6].lower(),
            )
    except Rejected:
        return


def shapes(samples: Sequence[Sample], names: Container[str] = frozenset()) -> list[ShapeSummary]:
    """Return the shapes of messages, the most frequent first."""
    return [_shape(learned) for learned in learn(samples, names)]


def _shape(learned: LearnedShape) -> ShapeSummary:
    received = [message.sample.received for message in learned.group.messages]
    return ShapeSummary(
        shape_id(learned.group),
        name_of([learned]),
        learned.group.pattern,
        learned.group.format,
        len(learned.group.messages),
        learned.topics[:SHOWN],
        dict(Counter(message.sample.reason for message in learned.group.messages if message.sample.reason)),
        min(received),
        max(received),
        interval_s(learned),
        sorted({member.guess.property for member in learned.recognised if not member.guess.fragment}),
        len(learned.unrecognised),
        learned.group.port,
        learned.group.maker,
    )


def shape_id(group: SampleGroup) -> str:
    """Return a short id of a group, by topic, format, port and members; the number of messages does not matter."""
    members = sorted(f"{'.'.join(map(str, path))}:{kind}" for path, kind in group.members)
    text = "\0".join((group.pattern, group.format, str(group.port), group.maker, *members))
    return hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()


def name_of(learned: Sequence[LearnedShape]) -> str:
    """Return a name for the profile of some kinds of messages."""
    first = learned[0].group
    if first.carried:
        return f"maker-{first.maker or 'unknown'}/port-{first.port if first.port is not None else 'none'}"
    return name_for(learned)


def draft_of(
    samples: Sequence[Sample], profile: str = "", *, shape: str = "", names: Container[str] = frozenset()
) -> ProfileDraft | None:
    """Return the draft of a profile for messages (`shape`: only of that shape); None if there are none.

    `profile`: its name; empty: derived from the topic.
    """
    learned = learn(samples, names)
    if shape:
        learned = [learnt for learnt in learned if shape_id(learnt.group) == shape]
    if not learned:
        return None
    return draft(learned, profile or name_of(learned))


__all__ = [
    "ProfileDraft",
    "RecordedMessage",
    "Registered",
    "Sample",
    "ShapeSummary",
    "draft_of",
    "samples_of",
    "shapes",
]
