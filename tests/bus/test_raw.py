"""Messages as received: they come back whole, one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus import raw
from sensegate.model import Message, MqttMetadata

MESSAGE = st.builds(
    Message,
    topic=st.text(max_size=12),
    payload=st.binary(max_size=40),
    received=st.integers(0, 1 << 52),
    sequence=st.integers(0, 1 << 60),
    principal=st.sampled_from(["", "dev-1", "dev-2"]),
    best_effort=st.booleans(),
    redelivered=st.booleans(),
    metadata=st.none()
    | st.builds(
        MqttMetadata,
        client=st.text(max_size=5),
        content_type=st.text(max_size=5),
        user=st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=3).map(tuple),
    ),
)


@given(st.lists(st.tuples(MESSAGE, st.sampled_from(["mqtt", "http"])), max_size=20))
def test_messages_come_back(rows: list[tuple[Message, str]]) -> None:
    """Property: topic, bytes, arrival, sequence, principal, class and source are kept exactly."""
    messages = [message for message, _ in rows]
    assert list(raw.decode(raw.encode(messages, [source for _, source in rows]))) == rows


def test_one_source_may_be_named_once() -> None:
    """A span of one source says its name once."""
    message = Message("a/b", b"{}", 5, 6)
    assert list(raw.decode(raw.encode([message, message], "mqtt"))) == [(message, "mqtt")] * 2


@given(
    st.lists(
        st.builds(
            raw.StoredMessage,
            message=MESSAGE,
            source=st.sampled_from(["mqtt", "http"]),
            reason=st.sampled_from(["schema", "too_deep"]),
            detail=st.text(max_size=9),
            device=st.sampled_from(["", "d"]),
            profile=st.sampled_from(["", "p@1"]),
        ),
        max_size=10,
    )
)
def test_quarantined_messages_come_back(kept: list[raw.StoredMessage]) -> None:
    """Property: a quarantined message comes back whole with its reason."""
    assert list(raw.decode_quarantined(raw.encode_quarantined(kept))) == kept


def test_damage_is_an_error() -> None:
    """What is not messages raises ValueError."""
    with pytest.raises(ValueError, match="messages"):
        list(raw.decode(b"nonsense"))
