"""Topics that two profiles claim, and who decodes a message there.

Mostly the registry decides: the device's entry names its profile. Only where two profiles both find their devices in
the payload, and no gateway's profile tells them apart, the more literal topic wins, whoever the message is from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sensegate.decode.grammar import key_text, line_of
from sensegate.decode.profile import Profile, Rule
from sensegate.decode.topics import Level, Pattern, covers, order
from sensegate.errors import ProfileWarning

Claim = tuple[Profile, Rule, Pattern]


def overlaps(profiles: Sequence[Profile]) -> Iterator[ProfileWarning]:
    """Yield one finding for each two profiles that claim a topic: a warning where the topic decides, else a note."""
    claims = {one.id: [(one, rule, pattern) for rule in one.rules for pattern in rule.patterns] for one in profiles}
    for n, one in enumerate(profiles):
        for other in profiles[n + 1 :]:
            found = [(left, right) for left in claims[one.id] for right in claims[other.id] if meet(left[2], right[2])]
            if found:
                yield _finding(found)


def _finding(found: Sequence[tuple[Claim, Claim]]) -> ProfileWarning:
    """Return the finding of two profiles, at the place of the second."""
    decided = [pair for pair in found if all(_by_topic(rule) for _, rule, _ in pair)]
    (one, _, pattern), (other, rule, rival) = (decided or found)[0]
    key = ("messages", rule.number, "topics")
    what = f"{one.id} also claims {rival.text} ({pattern.text})"
    if decided:
        first = one if (order(pattern), one.file) <= (order(rival), other.file) else other
        remedy = (
            f"both find their devices in the payload, so {first.id} decodes all of it: its topic is the more literal; "
            "capture {gateway} in a level of its own"
        )
    else:
        remedy = "the profile of the registered device decides"
    line = line_of(other.lines, key)
    return ProfileWarning(what, file=other.file, line=line, key=key_text(key), remedy=remedy, note=not decided)


def _by_topic(rule: Rule) -> bool:
    """Return whether nothing but its topic says that a message is by this rule."""
    return rule.device is not None and rule.names.gateway is None and not rule.chains


def meet(one: Pattern, other: Pattern) -> bool:
    """Return whether a topic can match both patterns."""
    if covers(one, other) or covers(other, one):
        return True
    if any(level.many for level in (*one.levels, *other.levels)) or len(one.levels) != len(other.levels):
        return False
    return all(_agree(left, right) for left, right in zip(one.levels, other.levels, strict=True))


def _agree(one: Level, other: Level) -> bool:
    """Return whether one level of a topic can match both."""
    if not one.capture and not other.capture:
        return one.literal == other.literal
    if one.capture and other.capture:
        starts = one.before.startswith(other.before) or other.before.startswith(one.before)
        return starts and (one.after.endswith(other.after) or other.after.endswith(one.after))
    capture, text = (one, other.literal) if one.capture else (other, one.literal)
    enough = len(text) > len(capture.before) + len(capture.after)
    return enough and text.startswith(capture.before) and text.endswith(capture.after)
