"""The payload is one piece of text (``Online``); its tree is that text without surrounding white space."""

from __future__ import annotations

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason


def parse(payload: bytes, nesting_max: int) -> str:
    """Return the text. Raises `Rejected` where it is empty or not UTF-8."""
    del nesting_max
    try:
        text = payload.decode("utf-8").strip()
    except UnicodeDecodeError as why:
        raise Rejected(QuarantineReason.NOT_UTF8, f"byte {why.start} is no UTF-8") from why
    if not text:
        raise Rejected(QuarantineReason.MALFORMED, "empty")
    return text
