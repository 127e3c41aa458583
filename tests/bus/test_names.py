"""Ids become tokens by one encoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus.names import ID_BYTES_MAX, name_of, token
from sensegate.errors import ConfigError

ids = st.text(max_size=40).filter(lambda text: len(text.encode(errors="replace")) <= ID_BYTES_MAX)
proper = ids.filter(lambda text: text.isprintable() or text.isascii())
FORBIDDEN = set(" .*>\r\n\t\0/+#$,=\"`\\'")


@given(proper)
def test_a_token_round_trips_and_is_plain(text: str) -> None:
    """Reversible, never empty, of bounded length, free of the syntax of subjects and of other sinks."""
    made = token(text)
    assert name_of(made) == text
    assert 1 <= len(made) <= 3 * ID_BYTES_MAX
    assert not FORBIDDEN & set(made)
    assert made.isascii()


@given(proper, proper)
def test_two_ids_never_share_a_token(first: str, other: str) -> None:
    """Injective: no device can take another's place by its name."""
    assert (token(first) == token(other)) == (first == other)


def test_plain_ids_are_their_own_token() -> None:
    """Subjects stay readable."""
    assert token("gz-air_0001") == "gz-air_0001"
    assert token("a.b") == "a~2eb"
    assert token("~") == "~7e"
    assert token("") == "~"


@pytest.mark.parametrize("odd", ["a b", "a.b", "", "~7", "~41", "~E4", "~ff", "ü"])
def test_what_the_encoder_never_makes_is_refused(odd: str) -> None:
    """Each token has one id, and only canonical tokens are read."""
    with pytest.raises(ConfigError):
        name_of(odd)


@pytest.mark.parametrize("odd", ["x" * 129, "\ud800"])
def test_ids_that_no_registry_may_hold_are_refused(odd: str) -> None:
    """More than 128 bytes, or no Unicode text."""
    with pytest.raises(ConfigError):
        token(odd)
