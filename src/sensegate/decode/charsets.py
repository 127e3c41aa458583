"""Text in bytes, in the character set that a profile names."""

from __future__ import annotations

from typing import Literal

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

Charset = Literal["utf-8", "utf-8-sig", "ascii", "gbk", "gb18030", "big5", "latin-1", "utf-16"]
"""``utf-8-sig``: a byte order mark at the beginning is dropped. ``utf-16`` has one, or is little-endian."""


def text_of(payload: bytes, charset: str = "utf-8") -> str:
    """Return the text. Raises `Rejected` (`not_utf8`) where the bytes are none in this character set."""
    try:
        return payload.decode(charset)
    except UnicodeDecodeError as error:
        raise Rejected(QuarantineReason.NOT_UTF8, f"byte {error.start} is no {charset.upper()}") from error
