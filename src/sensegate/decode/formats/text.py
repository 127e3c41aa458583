"""The payload is one piece of text (``Online``); its tree is that text without surrounding white space."""

from __future__ import annotations

from sensegate.decode.frame import Frame, plain
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason


def parse(payload: bytes) -> str:
    """Return the text. Raises `Rejected` where it is empty or not UTF-8."""
    try:
        text = payload.decode("utf-8").strip()
    except UnicodeDecodeError as why:
        raise Rejected(QuarantineReason.NOT_UTF8, f"byte {why.start} is no UTF-8") from why
    if not text:
        raise Rejected(QuarantineReason.MALFORMED, "empty")
    return text


def _parse(frame: Frame) -> str:
    return parse(frame.payload)


FORMAT = plain(_parse)
