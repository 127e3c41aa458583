"""Fields of two halves of a batch as one: used where a crash made the wiring decode in halves."""

from __future__ import annotations

import msgspec
import numpy as np

from sensegate.model import Fields


def joined(first: Fields, second: Fields, messages: int) -> Fields:
    """Return the fields of a batch of which `first` are the first `messages` messages and `second` the rest."""
    rows = len(first)
    column = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("device", "spec", "value", "time", "time_quality", "key", "path")
    }
    sparse = {
        name: getattr(first, name) | {row + rows: value for row, value in getattr(second, name).items()}
        for name in ("text", "override_scale", "source_quality")
    }
    listed = {
        name: [
            *getattr(first, name),
            *(msgspec.structs.replace(one, message=one.message + messages) for one in getattr(second, name)),
        ]
        for name in ("quarantined", "rejected")
    }
    return Fields(
        message=np.concatenate([first.message, second.message + np.int32(messages)]),
        ignored=first.ignored + second.ignored,
        **column,
        **sparse,
        **listed,
    )
