"""Topics that two profiles claim, and which of them decodes a message there.

Usually the registry decides: the device's entry names its profile. Only where both profiles find their devices in the
payload, and no gateway's profile distinguishes them, the more literal topic wins, whoever sent the message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sensegate.decode.grammar import key_text, line_of
from sensegate.decode.profile import CompiledProfile, CompiledRule
from sensegate.decode.topics import TopicLevel, TopicPattern, covers, order
from sensegate.errors import ProfileWarning

Claim = tuple[CompiledProfile, CompiledRule, TopicPattern]


def overlaps(profiles: Sequence[CompiledProfile]) -> Iterator[ProfileWarning]:
    """Yield a finding for each pair of profiles that claim a topic: a warning where the topic decides, else a note."""
    claims = {
        profile.id: [(profile, rule, pattern) for rule in profile.rules for pattern in rule.patterns]
        for profile in profiles
    }
    for number, profile in enumerate(profiles):
        for other in profiles[number + 1 :]:
            shared = [
                (left, right)
                for left in claims[profile.id]
                for right in claims[other.id]
                if intersects(left[2], right[2])
            ]
            if shared:
                yield _finding(shared)


def _finding(shared: Sequence[tuple[Claim, Claim]]) -> ProfileWarning:
    """Return the finding about two profiles, located at the second."""
    decided = [pair for pair in shared if all(_by_topic(rule) for _, rule, _ in pair)]
    (profile, _, pattern), (other, rule, rival) = (decided or shared)[0]
    key = ("messages", rule.number, "topics")
    text = f"{profile.id} also claims {rival.text} ({pattern.text})"
    if decided:
        first = profile if (order(pattern), profile.file) <= (order(rival), other.file) else other
        remedy = (
            f"both find their devices in the payload, so {first.id} decodes all of it: its topic is the more literal; "
            "capture {gateway} in a level of its own"
        )
    else:
        remedy = "the profile of the registered device decides"
    line = line_of(other.lines, key)
    return ProfileWarning(text, file=other.file, line=line, key=key_text(key), remedy=remedy, note=not decided)


def _by_topic(rule: CompiledRule) -> bool:
    """Return whether the topic alone decides that this rule applies."""
    return rule.device is not None and rule.names.gateway is None and not rule.chains


def intersects(left: TopicPattern, right: TopicPattern) -> bool:
    """Return whether a topic can match both patterns."""
    if covers(left, right) or covers(right, left):
        return True
    if any(level.multi_level for level in (*left.levels, *right.levels)) or len(left.levels) != len(right.levels):
        return False
    return all(_levels_intersect(*levels) for levels in zip(left.levels, right.levels, strict=True))


def _levels_intersect(left: TopicLevel, right: TopicLevel) -> bool:
    """Return whether one level of a topic can match both."""
    if not left.capture and not right.capture:
        return left.literal == right.literal
    if left.capture and right.capture:
        starts = left.before.startswith(right.before) or right.before.startswith(left.before)
        return starts and (left.after.endswith(right.after) or right.after.endswith(left.after))
    capture, text = (left, right.literal) if left.capture else (right, left.literal)
    enough = len(text) > len(capture.before) + len(capture.after)
    return enough and text.startswith(capture.before) and text.endswith(capture.after)
