"""JSON values one after the other: JSON Lines, or objects and arrays side by side. The tree is their list."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from sensegate.decode.formats import json
from sensegate.decode.frame import Format, Frame, Parse, Setting
from sensegate.decode.part import Part, description


class JsonLinesPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a list is made of the values."""

    flatten: Annotated[
        bool, description("arrays among the values are taken apart: their members stand in the list")
    ] = False


def parse(payload: bytes, nesting_max: int, *, flatten: bool = False) -> list[Any]:
    """Return the values. Raises `Rejected` where there is none, or one that is not JSON."""
    values = json.parse_many(payload, nesting_max)
    if not flatten:
        return values
    return [member for value in values for member in (value if isinstance(value, list) else [value])]


def _parse(frame: Frame, charset: str, *, flatten: bool) -> Any:
    return parse(json.as_utf8(frame.payload, charset), frame.nesting_max, flatten=flatten)


def _compile(options: JsonLinesPart | None, setting: Setting) -> Parse:
    return partial(_parse, charset=setting.charset, flatten=bool(options and options.flatten))


FORMAT = Format(_compile, JsonLinesPart, text=True)
