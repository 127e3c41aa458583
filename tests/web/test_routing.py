"""Texts of payloads in answers."""

from __future__ import annotations

import pytest

from sensegate.web.routing import payload_text


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_cut_text_stays_a_text(before: int) -> None:
    """A payload that is cut inside a character is shown without that character; one that ends so is no text."""
    text = "x" * before + "温" * 3_000
    shown = payload_text(text.encode())
    assert text.startswith(shown)
    assert 4_093 < len(shown.encode()) <= 4_096
    assert payload_text("温".encode()[:2]).startswith("base64:")
