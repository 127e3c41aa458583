"""Cursors: position of a subscriber (timeline of an entry, its sequence, row within it), opaque to subscribers.

A cursor means *after this record*. All cursors are 27 characters: ``c1.`` and base64url of

    6 bytes timeline | 6 bytes sequence | 3 bytes minute the entry was stored | 3 bytes row

The row is last and has four characters of its own, so that the cursors of an entry share their first 23 characters
(`Cursor.prefix`) and cost one table look-up each. The timeline (`bus.timelines`) tells whether the log still holds the
records up to the cursor unchanged; the minute, whether anything after it can have expired.
"""

from __future__ import annotations

import base64

import msgspec

from sensegate.bus.timelines import ID_BYTES
from sensegate.clock import MINUTE_US
from sensegate.errors import SensegateError

END = 0xFFFFFF
"""Row of a cursor after the whole entry."""
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_CHARACTERS = frozenset(_ALPHABET)
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_SEQUENCE_MAX = 2**48 - 1
_MINUTE_MAX = 2**24 - 1
_ORIGIN_MINUTE = 26_297_280
"""2020-01-01T00:00Z in minutes: three bytes reach until 2051."""


class BadCursor(SensegateError):
    """The text is not a cursor of this gateway (400)."""


class Cursor(msgspec.Struct, frozen=True, order=False):
    """Position after row `row` of entry `sequence`, which this timeline of the log wrote."""

    timeline: bytes
    sequence: int
    minute: int
    """Minute since 2020 in which the entry was stored."""
    row: int = END

    @property
    def prefix(self) -> str:
        """Common prefix of the cursors of the entry's rows."""
        packed = self.timeline + self.sequence.to_bytes(6, "big") + self.minute.to_bytes(3, "big")
        return "c1." + base64.urlsafe_b64encode(packed).decode()

    def __str__(self) -> str:
        return self.prefix + row_text(self.row)


def row_text(row: int) -> str:
    """Return the four characters of a row, 0 to `END`."""
    return _PAIRS[row >> 12] + _PAIRS[row & 0xFFF]


def after(timeline: bytes, sequence: int, stored: int, row: int = END) -> Cursor:
    """Return the cursor after a row of an entry stored at `stored` (µs UTC)."""
    minute = min(max(stored // MINUTE_US - _ORIGIN_MINUTE, 0), _MINUTE_MAX)
    return Cursor(timeline, min(max(sequence, 0), _SEQUENCE_MAX), minute, row)


def stored_before(cursor: Cursor) -> int:
    """Return a time (µs UTC) not after that at which the cursor's entry was stored: the start of its minute."""
    return (cursor.minute + _ORIGIN_MINUTE) * MINUTE_US


def parse(text: str) -> Cursor:
    """Return the cursor of a text.

    Raises:
        BadCursor: it is not a cursor.
    """
    if len(text) != 27 or not text.startswith("c1.") or not _CHARACTERS.issuperset(text[3:]):
        raise BadCursor("this is not a cursor; give `next`, `cursor` or the SSE id unchanged")
    packed = base64.urlsafe_b64decode(text[3:])
    return Cursor(
        packed[:ID_BYTES],
        int.from_bytes(packed[6:12], "big"),
        int.from_bytes(packed[12:15], "big"),
        int.from_bytes(packed[15:18], "big"),
    )
