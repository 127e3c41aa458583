"""Write values as YAML on one line, in the style of the library, and comments that cannot break out of their line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_$/.][\w$/.\- ()\[\]{}@+*°µ³²%]*|[\u4e00-\u9fff][\w\u4e00-\u9fff（）()\- ]*")
_FLOW = re.compile(r"[\[\]{},#:]|^[-?:!&*|>%@`\"']|\s#|[ ]$")
_WORDS = frozenset({"true", "false", "null", "~", "yes", "no", "on", "off", ".inf", "-.inf", ".nan"})

DRAFT_LINE = "draft: true # remove this line when the profile is complete: a draft is never in force"
"""Line of a profile that was written by a program."""


def flow_text(value: Any) -> str:
    """Return a value in flow style: ``{field: a.b, property: co2, missing: [32767]}``."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow_text(key)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, float):
        return number_text(value)
    return json.dumps(value)


def plain_text(value: str) -> str:
    """Return a string bare if YAML reads it back unchanged, else in double quotes."""
    plain = _PLAIN.fullmatch(value) and not _FLOW.search(value) and value.lower() not in _WORDS
    if plain and not re.fullmatch(r"[-+.\d][\d.eE+\-]*", value):
        return value
    return quoted(value)


def quoted(value: str) -> str:
    """Return a string in double quotes."""
    return as_json(value)


def as_json(value: Any) -> str:
    """Return a value as JSON that YAML reads as the same value; non-printable characters are escaped for YAML."""
    return "".join(
        letter if letter.isprintable() or letter == " " else f"\\U{ord(letter):08x}"
        for letter in json.dumps(value, ensure_ascii=False)
    )


def number_text(value: float) -> str:
    """Return a number in its shortest form; integers without a decimal point."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def comment_text(content: str) -> str:
    """Return text as a comment to the end of a line; line breaks in it are replaced, long text is shortened."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in content)
    return "# " + (shown if len(shown) <= 300 else f"{shown[:297]}...")
