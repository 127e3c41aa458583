"""Flat values by the form of a payload: what payloads of one form have in common is worked out once.

The base of such parses. Payloads without a form go through their trees (`flatten.Flattened`), with which the values of
a form must agree.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

from sensegate.decode.flatten import Flattened
from sensegate.decode.frame import Parse
from sensegate.decode.paths import Path
from sensegate.decode.plan import NAMES_MAX

FORMS_MAX: Final = 128
"""Most forms of one rule's payloads."""
_SIGHTINGS: Final = 3
_SEEN_MAX: Final = 4_096
_NEVER: Final = -(2**31)


class PayloadForm(Protocol):
    """The layout that all payloads of one form share."""

    @property
    def pointers(self) -> list[Path]:
        """The pointer of each value in the tree."""
        ...

    def __hash__(self) -> int: ...


class LearnedForms(Flattened):
    """A parse whose payloads have a form once three like them were seen."""

    def __init__(self, parse: Parse, nesting_max: int) -> None:
        super().__init__(parse, nesting_max)
        self.count = 0
        """Number of forms."""
        self._seen: dict[int, int] = {}
        """Sightings of shapes, by their hash: a shape has the names of a payload, which may be as long as it is."""

    @abstractmethod
    def known(self, payload: bytes) -> tuple[PayloadForm, Sequence[Any]] | None:
        """Return (form, values) of a payload of a known form."""

    @abstractmethod
    def add(self, payload: bytes) -> bool:
        """Add the form of a payload that was parsed; return whether it has one."""

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Sequence[Any]]:
        """Return (form or shape, values). Raises `Rejected`."""
        known = self.known(payload)
        if known is not None:
            return known
        shape, values = super().flatten(payload, port)
        if self.count < FORMS_MAX:
            if len(self._seen) > _SEEN_MAX:
                self._seen.clear()
            seen = hash(shape)
            self._seen[seen] = self._seen.get(seen, 0) + 1
            if self._seen[seen] >= _SIGHTINGS:
                added = len(repr(shape)) <= NAMES_MAX and self.add(payload)
                self.count += added
                self._seen[seen] = 0 if added else _NEVER
                return self.known(payload) or (shape, values)
        return shape, values

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:
        """Return the pointer of each value in the tree."""
        known = self.known(payload)
        return super().pointers(payload, port) if known is None else known[0].pointers
