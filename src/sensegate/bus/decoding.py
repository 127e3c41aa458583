"""Decoders of stored and received records that return a value of their type or raise `ValueError`, nothing else.

msgspec itself also raises `RecursionError`, for unknown fields that are deeply nested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from sensegate.model import FORMAT

_T = TypeVar("_T")


def decoder(kind: type[_T], subject: str, *, json: bool = False) -> Callable[[bytes], _T]:
    """Return a decoder of a record; `json`: the encoding is JSON instead of MessagePack.

    It raises only `ValueError`, with `subject` in its text; also where the record has a field `format` whose value is
    not `model.FORMAT`.
    """
    decode: Callable[[bytes], _T] = (msgspec.json.Decoder(kind) if json else msgspec.msgpack.Decoder(kind)).decode

    def decoded(payload: bytes) -> _T:
        try:
            value = decode(payload)
        except (ValueError, RecursionError) as why:
            raise ValueError(f"{subject}: {why}") from why
        format_ = getattr(value, "format", FORMAT)
        if isinstance(format_, int) and format_ != FORMAT:
            raise ValueError(f"{subject}: this release does not know format {format_}")
        return value

    return decoded
