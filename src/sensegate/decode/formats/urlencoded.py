"""Forms and query strings: ``tempf=70.1&humidity=50``. The tree is an object; all text, an empty value is null.

Text before a question mark (the path of a request) is ignored.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import plain_text
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_FIELDS_MAX = 1_024


def parse(payload: bytes, charset: str = "utf-8") -> dict[str, str | None]:
    """Return the fields. Raises `Rejected` if the payload is not a form, or has a field twice."""
    text = text_of(payload, charset).strip().rstrip("&")
    before, mark, query = text.partition("?")
    if mark and "=" not in before:
        text = query
    if not text:
        raise Rejected(QuarantineReason.MALFORMED, "the payload is empty")
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            encoding=charset,
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except UnicodeError as error:
        raise Rejected(QuarantineReason.NOT_UTF8, f"an escaped text is not valid {charset.upper()}") from error
    except ValueError as error:
        raise Rejected(
            QuarantineReason.MALFORMED, f"the payload is not a form of at most {_FIELDS_MAX} fields"
        ) from error
    fields = {key: value or None for key, value in pairs}
    if len(fields) < len(pairs):
        raise Rejected(QuarantineReason.MALFORMED, "a field occurs twice")
    return fields


FORMAT = plain_text(parse, typed=False)
