"""Keyed pseudonyms: values that can be compared but not read. No I/O; `cameras.keyring` keeps the keys.

A plate is pseudonymised under the key of its day (UTC+8, by the time of observation), so that a vehicle can be followed
through one day and not into the next; a free-form id under a permanent key.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from sensegate.clock import DAY_US, HOUR_US

CHINA_US: Final = 8 * HOUR_US
_TOKEN: Final = 24
"""Hex digits of a pseudonym (96 bits): no collisions among the vehicles of a city."""


def day_of(at: int) -> int:
    """Return the day (since 1970, in UTC+8) of a time in µs UTC."""
    return (at + CHINA_US) // DAY_US


def pseudonym(key: bytes, kind: str, text: str) -> str:
    """Return the pseudonym of a text under a key; it differs by kind."""
    return hmac.digest(key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hex()[:_TOKEN]


def normalised_plate(number: str) -> str:
    """Return a number plate without blanks, dots and case, which cameras write differently."""
    return "".join(sign for sign in number.upper() if sign.isalnum())


class KeyedPseudonymiser:
    """A `format.Pseudonymiser` whose keys derive from one secret: for output that is not stored, and for tests."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def plate(self, number: str, at: int) -> str:
        key = hmac.digest(self._secret, f"day {day_of(at)}".encode(), hashlib.sha256)
        return pseudonym(key, "plate", normalised_plate(number))

    def identifier(self, text: str) -> str:
        return pseudonym(self._secret, "word", text)

    def permits(self, kind: str, field: str) -> bool:  # noqa: ARG002 - a legal basis exists only in a running gateway
        return False
