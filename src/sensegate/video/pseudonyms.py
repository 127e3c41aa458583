"""Keyed pseudonyms: what may be told apart but not read. No I/O; `authority.keyring` keeps the keys.

A plate is hidden under the key of its day (UTC+8, by the time at which it was seen), so that a vehicle can be followed
through one day and not into the next; an id of free form under a key that does not change.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

DAY_US: Final = 86_400_000_000
CHINA_US: Final = 8 * 3_600_000_000
_TOKEN: Final = 24
"""Hex digits of a pseudonym (96 bits): two of a city's vehicles do not meet."""


def day_of(at: int) -> int:
    """Return the day (since 1970, in UTC+8) of a time in µs UTC."""
    return (at + CHINA_US) // DAY_US


def token(key: bytes, kind: str, text: str) -> str:
    """Return the pseudonym of a text under a key; of one text different ones for different kinds."""
    return hmac.digest(key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hex()[:_TOKEN]


def plate_form(number: str) -> str:
    """Return a number plate without what cameras write differently: blanks, dots, case."""
    return "".join(sign for sign in number.upper() if sign.isalnum())


class KeyedVeil:
    """A `form.Veil` whose keys all come from one secret: for what is shown and not kept, and for tests."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def plate(self, number: str, at: int) -> str:
        key = hmac.digest(self._secret, f"day {day_of(at)}".encode(), hashlib.sha256)
        return token(key, "plate", plate_form(number))

    def word(self, text: str) -> str:
        return token(self._secret, "word", text)

    def may(self, kind: str, field: str) -> bool:  # noqa: ARG002 - no basis holds outside of a running gateway
        return False
