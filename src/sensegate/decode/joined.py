"""Fields of two halves of a batch as one: used where a crash made the wiring decode in halves."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from sensegate.model import Fields


def joined(first: Fields, second: Fields, messages: int) -> Fields:
    """Return the fields of a batch of which `first` are the first `messages` messages and `second` the rest."""
    rows = len(first)

    def column(name: str) -> Any:
        return np.concatenate([getattr(first, name), getattr(second, name)])

    def sparse(name: str) -> Any:
        return getattr(first, name) | {row + rows: value for row, value in getattr(second, name).items()}

    def listed(name: str) -> Any:
        moved = (msgspec.structs.replace(one, message=one.message + messages) for one in getattr(second, name))
        return [*getattr(first, name), *moved]

    return Fields(
        message=np.concatenate([first.message, second.message + np.int32(messages)]),
        device=column("device"),
        spec=column("spec"),
        value=column("value"),
        text=sparse("text"),
        time=column("time"),
        time_quality=column("time_quality"),
        key=column("key"),
        path=column("path"),
        override_scale=sparse("override_scale"),
        quarantined=listed("quarantined"),
        rejected=listed("rejected"),
        source_quality=sparse("source_quality"),
        ignored=first.ignored + second.ignored,
    )
