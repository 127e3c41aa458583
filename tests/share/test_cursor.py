"""Cursors: opaque, exact, of one length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus.timelines import ID_BYTES
from sensegate.share import cursor
from sensegate.share.cursor import END, BadCursor

sequences = st.integers(0, 2**48 - 1)
rows = st.integers(0, END)
times = st.integers(1_577_836_800_000_000, 2_500_000_000_000_000)


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES), sequences, times, rows)
def test_a_cursor_comes_back_as_it_was(timeline: bytes, sequence: int, stored: int, row: int) -> None:
    """Text and back is the identity, for every entry and row."""
    made = cursor.after(timeline, sequence, stored, row)
    repeated = cursor.parse(str(made))
    assert repeated == made
    assert (repeated.sequence, repeated.row, repeated.timeline) == (sequence, row, timeline)
    assert cursor.stored_before(repeated) <= stored < cursor.stored_before(repeated) + 60_000_000


@given(sequences, times, rows, rows)
def test_rows_of_an_entry_share_a_prefix(sequence: int, stored: int, index: int, other: int) -> None:
    """The text is the entry's prefix and four characters that tell the rows apart."""
    first, second = (cursor.after(b"a line", sequence, stored, row) for row in (index, other))
    assert first.prefix == second.prefix
    assert str(first) == first.prefix + cursor.row_text(index)
    assert (str(first) == str(second)) == (index == other)


@given(st.text())
def test_foreign_text_is_refused(text: str) -> None:
    """What we did not give out is a BadCursor, or parses to a cursor whose text it is; never another error."""
    try:
        parsed = cursor.parse(text)
    except BadCursor:
        return
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text", ["", "c1.", "c2." + "A" * 24, "c1." + "A" * 23 + "=", "c1." + "é" * 24, "c1." + "+" * 24]
)
def test_known_bad_texts(text: str) -> None:
    """Other versions, lengths and alphabets are refused."""
    with pytest.raises(BadCursor):
        cursor.parse(text)
