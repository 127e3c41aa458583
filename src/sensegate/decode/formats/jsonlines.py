"""JSON values one after the other: JSON Lines, or objects and arrays side by side. The tree is a list of them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from sensegate.decode.formats import json
from sensegate.decode.frame import FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.decode.part import ProfilePart, description


class JsonLinesPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the lines."""

    flatten: Annotated[bool, description("flatten arrays: their members become members of the list")] = False


def parse(payload: bytes, nesting_max: int, *, flatten: bool = False) -> list[Any]:
    """Return the values. Raises `Rejected` if there is none, or one is not JSON."""
    values = json.parse_many(payload, nesting_max)
    if not flatten:
        return values
    return [member for value in values for member in (value if isinstance(value, list) else [value])]


def _parse(frame: PayloadFrame, charset: str, *, flatten: bool) -> Any:
    return parse(json.as_utf8(frame.payload, charset), frame.nesting_max, flatten=flatten)


def _compile(options: JsonLinesPart | None, context: FormatContext) -> Parse:
    return partial(_parse, charset=context.charset, flatten=bool(options and options.flatten))


FORMAT = PayloadFormat(_compile, JsonLinesPart, text=True)
