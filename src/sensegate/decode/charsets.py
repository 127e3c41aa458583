"""Decode text in the character encoding that a profile names."""

from __future__ import annotations

from typing import Literal

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

Charset = Literal["utf-8", "utf-8-sig", "ascii", "gbk", "gb18030", "big5", "latin-1", "utf-16"]
"""``utf-8-sig``: a leading byte order mark is dropped. ``utf-16``: has one, or is little-endian."""


def text_of(payload: bytes, charset: str = "utf-8") -> str:
    """Decode bytes to text. Raises `Rejected` (`not_utf8`) if they are not valid in this encoding."""
    try:
        return payload.decode(charset)
    except UnicodeDecodeError as error:
        raise Rejected(QuarantineReason.NOT_UTF8, f"byte {error.start} is not valid {charset.upper()}") from error
