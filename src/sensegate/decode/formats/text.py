"""The payload is one piece of text (``Online``); its tree is that text without surrounding white space."""

from __future__ import annotations

from functools import partial
from typing import Any

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import Format, Frame, Parse, Setting
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason


def parse(payload: bytes, charset: str = "utf-8") -> str:
    """Return the text. Raises `Rejected` where it is empty or not of the character set."""
    text = text_of(payload, charset).strip()
    if not text:
        raise Rejected(QuarantineReason.MALFORMED, "empty")
    return text


def _parse(frame: Frame, charset: str) -> str:
    return parse(frame.payload, charset)


def _compile(_options: Any, setting: Setting) -> Parse:
    return partial(_parse, charset=setting.charset)


FORMAT = Format(_compile, text=True)
