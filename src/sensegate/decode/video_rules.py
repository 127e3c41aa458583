"""A rule of `format: video` as one of the common kind: elements that name themselves, as in the format's tree."""

from __future__ import annotations

from typing import Final

import msgspec

from sensegate.decode.formats.video import NAME, SeenTimes, VideoParse
from sensegate.decode.grammar import DevicePart, MessageRule, NamedPart, ReadingRule, TimePart
from sensegate.decode.profile import Rule
from sensegate.model import OBSERVATION, IdentityKind
from sensegate.quantities.properties import PROPERTIES
from sensegate.video.formats import FORMATS
from sensegate.video.observation import ObjectClass
from sensegate.video.parts import RULES

LANES: Final = 8
CHANNELS: Final = (
    *(f"lane{number}" for number in range(1, LANES + 1)),
    *(str(one) for one in (ObjectClass.PERSON, ObjectClass.VEHICLE, ObjectClass.NONMOTOR)),
)
"""Channels that every camera has, beside those of its profile."""
_FREE: Final = ("where", "unpack", "table", "root", "wrap", "standard", "sequence", "path", "beside", "payload")
"""Keys of a rule that say nothing here: the format knows where everything stands."""


def without_meaning(rule: MessageRule) -> str:
    """Return a key of the rule that means nothing with this format; empty where there is none."""
    given = (*_FREE, "each", "named", "time", "identity", "message_id", "quality", "frames")
    empty = MessageRule()
    return next((key for key in given if getattr(rule, key) != getattr(empty, key)), "")


def filled(rule: MessageRule) -> MessageRule:
    """Return the rule with everything that the format says by itself."""
    channels = CHANNELS
    if rule.video is not None:
        form = FORMATS.get(rule.video.format)
        free = [f"rule{number}" for number in range(1, RULES + 1)] if form is not None and form.freely else []
        channels = (*CHANNELS, *rule.video.channels, *rule.video.rules.values(), *free)
    counted = rule.readings or tuple(ReadingRule(property=row.name) for row in PROPERTIES.rows if row.domain == NAME)
    counted = tuple(msgspec.structs.replace(one, field=one.property) for one in counted if one.property != OBSERVATION)
    many = tuple(
        msgspec.structs.replace(one, field=f"{one.property}#{{channel}}", channels=tuple(dict.fromkeys(channels)))
        for one in counted
    )
    return msgspec.structs.replace(
        rule,
        each="parts",
        named=NamedPart(name="n", value=("v",), unit="u"),
        time=TimePart(field="t"),
        identity=IdentityKind.MESSAGE_ID,
        message_id="i",
        device=_device(rule.device),
        readings=(ReadingRule(field=OBSERVATION, property=OBSERVATION), *counted, *many),
    )


def _device(part: DevicePart | None) -> DevicePart | None:
    """Return where the camera's name stands: what people call `camera` is `c` in the tree."""
    return msgspec.structs.replace(part, field="c") if part is not None and part.field else part


def seen(rule: Rule) -> Rule:
    """Return a compiled rule; of this format with times that are read already, and the name of the format of video."""
    parse = rule.parse
    return (
        msgspec.structs.replace(rule, reader=SeenTimes(), video=parse.name) if isinstance(parse, VideoParse) else rule
    )
