"""Texts of payloads and times in answers."""

from __future__ import annotations

import pytest

from sensegate.web.routing import iso, payload_text


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_cut_text_stays_a_text(before: int) -> None:
    """A payload that is cut inside a character is shown without that character; one that ends so is no text."""
    text = "x" * before + "温" * 3_000
    shown = payload_text(text.encode())
    assert text.startswith(shown)
    assert 4_093 < len(shown.encode()) <= 4_096
    assert payload_text("温".encode()[:2]).startswith("base64:")


@pytest.mark.parametrize("time", [10**18, 2**62, -(10**18)])
def test_a_time_that_is_no_date_is_shown_as_it_is(time: int) -> None:
    """A grant that was stored with a start in nanoseconds is listed with what is wrong."""
    assert iso(time) == f"{time} µs, outside the years 1 to 9999"
    assert iso(253_402_300_799_000_000) == "9999-12-31T23:59:59.000Z"
