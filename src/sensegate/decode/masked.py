"""Payloads that are equal but for the bytes of their values: one comparison under a mask recognises them.

Everything that determines where the values stand (heads, names, lengths) is under the mask, so that `struct` reads all
values of a payload at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

Form = TypeVar("Form")


class MaskedBytes(NamedTuple):
    """Payloads with equal bytes under a mask."""

    mask: int
    unpack: Callable[[bytes], tuple[Any, ...]]
    """Read the values, in their order in the payload."""


class MaskedBuilder:
    """Collects the values of a payload, in their order."""

    def __init__(self, payload: bytes, order: str = ">") -> None:
        self._mask = bytearray(b"\xff" * len(payload))
        self._codes = [order]
        self._order = order
        self._at = 0

    def add(self, code: str, at: int, mask: int = 0) -> None:
        """Add a value: its code in `struct`, its first byte, and what of each of its bytes is under the mask."""
        if at < self._at:
            raise ValueError("the values are not in their order")
        size = struct.calcsize(self._order + code)
        if at + size > len(self._mask):
            raise ValueError("a value ends after the payload")
        if at > self._at:
            self._codes.append(f"{at - self._at}x")
        self._codes.append(code)
        self._at = at + size
        self._mask[at : self._at] = bytes([mask]) * size

    def build(self) -> MaskedBytes:
        """Return the mask and the reader."""
        rest = len(self._mask) - self._at
        reader = struct.Struct("".join([*self._codes, f"{rest}x" if rest else ""]))
        return MaskedBytes(int.from_bytes(self._mask), reader.unpack)


class MaskedForms(Generic[Form]):
    """Forms by the bytes under their masks."""

    def __init__(self) -> None:
        self._known: dict[int, dict[int, dict[int, Form]]] = {}
        """Length -> mask -> bytes under the mask -> form."""

    def matching(self, payload: bytes) -> list[Form]:
        """Return the forms that a payload has."""
        known = self._known.get(len(payload))
        if known is None:
            return []
        whole = int.from_bytes(payload)
        return [form for mask, forms in known.items() if (form := forms.get(whole & mask)) is not None]

    def add(self, payload: bytes, mask: int, form: Form) -> None:
        """Add a form."""
        forms = self._known.setdefault(len(payload), {}).setdefault(mask, {})
        forms[int.from_bytes(payload) & mask] = form
