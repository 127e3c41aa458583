"""The one way to decode what a log, a bucket or the other side of a border holds: a value of the type, or `ValueError`.

A decoder of msgspec raises `RecursionError` too, for members that nobody asked for and that are nested deeply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from sensegate.model import FORMAT

_T = TypeVar("_T")


def decoder(kind: type[_T], what: str, *, json: bool = False) -> Callable[[bytes], _T]:
    """Return the decoder of a record; `json`: its form is JSON, else MessagePack.

    It raises `ValueError` and nothing else, with `what` as the subject: also where the record has a version of its form
    as `format` and it is not `model.FORMAT`.
    """
    decode: Callable[[bytes], _T] = (msgspec.json.Decoder(kind) if json else msgspec.msgpack.Decoder(kind)).decode

    def decoded(payload: bytes) -> _T:
        try:
            value = decode(payload)
        except (ValueError, RecursionError) as why:
            raise ValueError(f"{what}: {why}") from why
        format_ = getattr(value, "format", FORMAT)
        if isinstance(format_, int) and format_ != FORMAT:
            raise ValueError(f"{what}: format {format_} is not known to this release")
        return value

    return decoded
