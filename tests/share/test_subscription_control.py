"""Control messages: what each form means; whatever else comes is said to be none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import ConfigError
from sensegate.share.subscription_control import ControlMessage, parse_control, reply_of


@pytest.mark.parametrize(
    ("payload", "control"),
    [
        (b"", ControlMessage()),
        (b"first", ControlMessage("first")),
        (b" c1.abc\n", ControlMessage("c1.abc")),
        (b'{"after": "c1.x", "form": "csv", "tag": "a-1"}', ControlMessage("c1.x", "csv", "a-1")),
        (b"{}", ControlMessage()),
        (b'{"tag": null}', ControlMessage(tag=None)),
    ],
)
def test_what_is_understood(payload: bytes, control: ControlMessage) -> None:
    """Nothing, a cursor, or JSON."""
    assert parse_control(payload) == control


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"\xff",
        b'{"tag": "a.b"}',
        b'{"tag": "*"}',
        b'{"tag": ">"}',
        b'{"form": "xml"}',
        b'{"more": 1}',
        b'{"tag": "problem"}',
        b"x" * 2_000,
    ],
)
def test_what_is_not(payload: bytes) -> None:
    """A tag that would be more than one level of a subject, a form that is not pushed, unknown keys, too much."""
    with pytest.raises(ConfigError):
        parse_control(payload)


def test_an_answer_goes_to_the_subscribers_own_inbox_alone() -> None:
    """Where anybody listens, or a store takes it, it would be said in our name."""
    token = "0123456789abcdef"
    assert reply_of(f"_INBOX_{token}.1.2", token) == f"_INBOX_{token}.1.2"
    for reply in ("", "$JS.API.STREAM.DELETE.X", "sg.feeds.other.records", "_INBOX_other.1", f"_INBOX_{token}x.1"):
        assert not reply_of(reply, token)


@given(st.binary(max_size=300))
def test_fuzz_never_raises_anything_else(payload: bytes) -> None:
    """From whoever may publish there."""
    try:
        control = parse_control(payload)
    except ConfigError:
        return
    assert "." not in (control.tag or "")
