"""A single text as payload (``Online``); the tree is the text without surrounding white space."""

from __future__ import annotations

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import plain_text
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason


def parse(payload: bytes, charset: str = "utf-8") -> str:
    """Return the text. Raises `Rejected` if it is empty or not in the character encoding."""
    text = text_of(payload, charset).strip()
    if not text:
        raise Rejected(QuarantineReason.MALFORMED, "the payload is empty")
    return text


FORMAT = plain_text(parse)
