"""Read JSON5 (https://spec.json5.org): the JSON that JavaScript writers write, as examples in repositories hold it.

Comments, trailing commas, names and strings in single quotes or none, numbers in hexadecimal, with a plus sign or
without digits on one side of the point. Each token is rewritten as JSON, which the standard parser then reads.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_TOKENS: Final = re.compile(
    r"""
    (?P<text>"(?:[^"\\\n]|\\.|\\\n)*"|'(?:[^'\\\n]|\\.|\\\n)*')
    |(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<hex>[+-]?0[xX][0-9a-fA-F]+)
    |(?P<number>[+-]?(?:Infinity|NaN)\b|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_$][\w$]*)(?=\s*:)
    |(?P<comma>,)(?=(?:\s|//[^\n]*\n|/\*.*?\*/)*[\]}])
    """,
    re.DOTALL | re.VERBOSE,
)
_ESCAPES: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(\r\n|.))", re.DOTALL)
_LETTERS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0", "\n": "", "\r\n": ""}


def loads(text: str) -> Any:
    """Return the value of a JSON5 text. Raises `ValueError` if it is none."""
    return json.loads(_TOKENS.sub(_rewritten, text.removeprefix("\ufeff")))


def _rewritten(token: re.Match[str]) -> str:
    word = token[0]
    kind = token.lastgroup
    if kind == "text":
        return json.dumps(_ESCAPES.sub(_unescaped, word[1:-1]))
    if kind == "hex":
        return str(int(word, 16))
    if kind == "name":
        return json.dumps(word)
    if kind != "number":
        return " " if kind == "comment" else ""
    if word.lstrip("+-") in {"Infinity", "NaN"}:
        return word.lstrip("+")
    sign, digits = ("-" if word.startswith("-") else ""), word.lstrip("+-")
    digits = f"0{digits}" if digits.startswith(".") else re.sub(r"\.(?=$|[eE])", ".0", digits)
    return sign + digits


def _unescaped(escape: re.Match[str]) -> str:
    digits = escape[1] or escape[2]
    return chr(int(digits, 16)) if digits else _LETTERS.get(escape[3], escape[3])
