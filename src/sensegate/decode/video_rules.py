"""Expand a rule of `format: video` into a rule of the general kind: elements that carry their own names."""

from __future__ import annotations

from typing import Final

import msgspec

from sensegate.decode.formats.video import NAME, VideoParse, VideoTimes
from sensegate.decode.grammar import DevicePart, MessageRule, NamedPart, ReadingRule, TimePart
from sensegate.decode.profile import CompiledRule
from sensegate.model import OBSERVATION, IdentityKind
from sensegate.quantities.properties import PROPERTIES
from sensegate.video.formats import FORMATS
from sensegate.video.observation import ObjectClass
from sensegate.video.values import RULES

LANES: Final = 8
CHANNELS: Final = (
    *(f"lane{number}" for number in range(1, LANES + 1)),
    *(str(object_class) for object_class in (ObjectClass.PERSON, ObjectClass.VEHICLE, ObjectClass.NONMOTOR)),
)
"""Channels that every camera has, in addition to those of its profile."""
_UNUSED_KEYS: Final = (
    "where",
    "unpack",
    "table",
    "root",
    "wrap",
    "standard",
    "sequence",
    "path",
    "beside",
    "payload",
    "metadata",
)
"""Keys of a rule without meaning here, because the format fixes where everything is."""


def unused_key(rule: MessageRule) -> str:
    """Return a key of the rule that has no meaning with this format; empty if there is none."""
    given = (*_UNUSED_KEYS, "each", "named", "time", "identity", "message_id", "quality", "frames")
    empty = MessageRule()
    return next((key for key in given if getattr(rule, key) != getattr(empty, key)), "")


def expand(rule: MessageRule) -> MessageRule:
    """Return the rule with everything that the format determines."""
    channels = CHANNELS
    if rule.video is not None:
        form = FORMATS.get(rule.video.format)
        free = [f"rule{number}" for number in range(1, RULES + 1)] if form is not None and form.free_rule_names else []
        channels = (*CHANNELS, *rule.video.channels, *rule.video.rules.values(), *free)
    counted = rule.readings or tuple(ReadingRule(property=row.name) for row in PROPERTIES.rows if row.domain == NAME)
    counted = tuple(
        msgspec.structs.replace(entry, field=entry.property) for entry in counted if entry.property != OBSERVATION
    )
    by_channel = tuple(
        msgspec.structs.replace(entry, field=f"{entry.property}#{{channel}}", channels=tuple(dict.fromkeys(channels)))
        for entry in counted
    )
    return msgspec.structs.replace(
        rule,
        each="parts",
        named=NamedPart(name="n", value=("v",), unit="u"),
        time=TimePart(field="t"),
        identity=IdentityKind.MESSAGE_ID,
        message_id="i",
        device=_device(rule.device),
        readings=(ReadingRule(field=OBSERVATION, property=OBSERVATION), *counted, *by_channel),
    )


def _device(part: DevicePart | None) -> DevicePart | None:
    """Return where the camera's name is: the key `camera` of the profile is `c` in the tree."""
    return msgspec.structs.replace(part, field="c") if part is not None and part.field else part


def with_video_times(rule: CompiledRule) -> CompiledRule:
    """Return a compiled rule; if it is of this format, with its times already parsed and its video format named."""
    parse = rule.parse
    return (
        msgspec.structs.replace(rule, reader=VideoTimes(), video=parse.name) if isinstance(parse, VideoParse) else rule
    )
