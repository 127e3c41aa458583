"""Rule of joining: two halves say what the whole says."""

from __future__ import annotations

import msgspec
import numpy as np

from sensegate.ingest.batches import concatenated
from sensegate.model import Fields, Quarantined, QuarantineReason


def half(messages: list[int], text: dict[int, str]) -> Fields:
    """Return fields of one row per message."""
    count = len(messages)
    return Fields(
        message=np.array(messages, np.int32),
        device=np.arange(count, dtype=np.int32),
        spec=np.zeros(count, np.int32),
        value=np.arange(count, dtype=np.float64),
        text=text,
        time=np.arange(count, dtype=np.int64),
        time_quality=np.zeros(count, np.uint8),
        key=np.arange(count, dtype=np.int64),
        path=np.zeros(count, np.uint16),
        quarantined=[Quarantined(count, QuarantineReason.MALFORMED)],
        ignored=1,
    )


def test_rows_and_messages_of_the_second_half_move_up() -> None:
    """Row numbers of sparse columns and message indices of both kinds of lists are those of the whole."""
    whole = concatenated(half([0, 1], {1: "a"}), half([0, 1, 1], {0: "b"}), 3)
    assert whole.message.tolist() == [0, 1, 3, 4, 4]
    assert whole.text == {1: "a", 2: "b"}
    assert [quarantined.message for quarantined in whole.quarantined] == [2, 6]
    assert whole.ignored == 2
    assert {
        len(getattr(whole, name)) for name in msgspec.structs.asdict(whole) if name in {"device", "key", "path"}
    } == {5}
