"""Regular expressions of callers: they take linear time, whatever is in them."""

from __future__ import annotations

from typing import Any

import re2

from sensegate.ngsi_ld.problems import bad_data

LENGTH_MAX = 500
_MEMORY_MAX = 1 << 20


def pattern_of(key: str, text: str) -> Any:
    """Return a compiled regular expression of RE2; `key` names it in errors. Raises `NgsiError`."""
    if len(text) > LENGTH_MAX:
        raise bad_data(f"{key}: has a pattern of {len(text)} characters; give at most {LENGTH_MAX}")
    options = re2.Options()
    options.max_mem = _MEMORY_MAX
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as why:
        reason = why.args[0].decode(errors="replace") if isinstance(why.args[0], bytes) else why
        raise bad_data(f"{key}: '{text[:40]}' is not a regular expression of RE2: {reason}") from None
