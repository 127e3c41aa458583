"""Messages that no profile explains, by shape, each shape with a draft of its profile. Pure."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

import msgspec

from sensegate.authoring.learn.learn import Learned, interval_s, learn
from sensegate.authoring.learn.shapes import NESTING_MAX, Group, Sample
from sensegate.authoring.learn.write import Draft, draft, name_for
from sensegate.authoring.unknown import Told
from sensegate.decode.chain import frames
from sensegate.decode.frame import Frame
from sensegate.decode.plan_cache import Holder
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import Rejected
from sensegate.model import Message

_EUI = re.compile(r"[0-9a-fA-F]{16}")
SHOWN = 5
"""Topics, devices and members told of a shape."""


class Registered:
    """The names of registered devices, as a container."""

    def __init__(self, find: Callable[[str], int]) -> None:
        self._find = find

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) >= 0


class Shape(msgspec.Struct, frozen=True):
    """Messages of one shape."""

    id: str
    """Stays the same as long as topic, format and port do."""
    name: str
    """A name for its profile."""
    pattern: str
    """Topic pattern; empty: frames that a carrier brings."""
    format: str
    messages: int
    topics: list[str]
    """Some of them."""
    reasons: dict[str, int]
    first: int
    """Arrival of the first, µs UTC."""
    last: int
    interval_s: float
    found: list[str]
    """Properties that its members seem to be."""
    left: int
    """Members of which nobody knows what they are."""
    port: int | None = None
    maker: str = ""


def samples_of(told: Iterable[Told], profiles: ProfileSet) -> Iterator[Sample]:
    """Yield messages as samples; of the envelope of a carrier that a profile knows, the frames inside."""
    for one in told:
        message = one.message
        rules = [(rule, "") for rule, _ in profiles.match(message.topic) if rule.chains]
        inner = list(_frames(rules, message, one.reason)) if rules else []
        if inner:
            yield from inner
        else:
            yield Sample(message.topic, message.payload, message.received, one.device, one.reason)


def _frames(rules: Sequence[Holder], message: Message, reason: str) -> Iterator[Sample]:
    frame = Frame(message.payload, NESTING_MAX, message.topic, message.received)
    try:
        for _, opened in frames(rules, frame):
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


def shapes(samples: Sequence[Sample], names: Container[str] = frozenset()) -> list[Shape]:
    """Return the shapes of messages, the most frequent first."""
    return [_shape(one) for one in learn(samples, names)]


def _shape(one: Learned) -> Shape:
    received = [message.sample.received for message in one.group.messages]
    return Shape(
        shape_id(one.group),
        name_of([one]),
        one.group.pattern,
        one.group.format,
        len(one.group.messages),
        one.topics[:SHOWN],
        dict(Counter(message.sample.reason for message in one.group.messages if message.sample.reason)),
        min(received),
        max(received),
        interval_s(one),
        sorted({each.guess.property for each in one.found}),
        len(one.left),
        one.group.port,
        one.group.maker,
    )


def shape_id(one: Group) -> str:
    """Return a short name of a group that does not depend on how many messages it has."""
    text = f"{one.pattern}\0{one.format}\0{one.port}\0{one.maker}"
    return hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()


def name_of(learned: Sequence[Learned]) -> str:
    """Return a name for the profile of some kinds of messages."""
    first = learned[0].group
    if first.carried:
        return f"maker-{first.maker or 'unknown'}/port-{first.port if first.port is not None else 'none'}"
    return name_for(learned)


def draft_of(
    samples: Sequence[Sample], profile: str = "", *, shape: str = "", names: Container[str] = frozenset()
) -> Draft | None:
    """Return the draft for messages (`shape`: only of that shape); None where there are none.

    `profile`: its name; empty: made of the topic.
    """
    learned = learn(samples, names)
    if shape:
        learned = [one for one in learned if shape_id(one.group) == shape]
    if not learned:
        return None
    return draft(learned, profile or name_of(learned))


__all__ = ["Draft", "Registered", "Sample", "Shape", "draft_of", "samples_of", "shapes"]
