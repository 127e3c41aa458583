"""Parts of plans: access to the values of parsed messages, and the columns into which they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from sensegate.decode.profile import CompiledReading, CompiledRule
from sensegate.model import F64, I32, I64, NO_SEQUENCE_NUMBERS, U8, U16, RejectedValue, SequenceNumbers


class Chunk(NamedTuple):
    """Rows of some messages of a batch, as columns, by message and then in the order of the profile.

    An origin is a message, or an element of one; all of its rows share its columns.
    """

    message: I32
    """By origin, as the next five."""
    device: I32
    time: I64
    time_quality: U8
    key: I64
    path: U16
    rows: int | I64
    """Number of rows of every origin, or of each."""
    spec: I32
    """By row, as the next."""
    value: F64
    text: dict[int, str]
    scale: dict[int, tuple[float, float]]
    rejected: list[RejectedValue]
    ignored: int
    quality: dict[int, int] = {}
    flags: dict[int, int] = {}
    """Row -> flag bits, where the device's own flag is not good."""
    numbered: SequenceNumbers = NO_SEQUENCE_NUMBERS


Getter = Callable[[Any], Any]
IndexOf = Callable[[str, CompiledRule, int], int]
"""(device name, rule, gateway) -> device index, negative if it may not be used."""


class ValueAccess(NamedTuple):
    """Access to some values of a parsed message at once."""

    columns: list[int]
    """The values in the order in which they are read."""
    holder: Getter | None
    """Getter of the object that has all of them; None: the message."""
    get: Getter
    """Returns the values of what `holder` returns, without a tuple if there is only one."""

    def read(self, objects: Sequence[Any]) -> F64:
        """Return the values of messages, by message and column."""
        held = objects if self.holder is None else map(self.holder, objects)
        values = map(self.get, held)
        count, width = len(objects), len(self.columns)
        flat = np.fromiter(values if width == 1 else chain.from_iterable(values), np.float64, count * width)
        return flat.reshape(count, width)


class ConvertedColumn(NamedTuple):
    """A column that needs conversion, value by value or at once."""

    at: int
    get: Getter
    reading: CompiledReading
    unit: Getter | None
    """Getter of the unit that the payload states."""
    name: str


class PlannedElement(NamedTuple):
    """Getters of an element's statements beside its values; None: it makes none."""

    device: Getter | None
    time: Getter | None
    sequence: Getter | None
    message_id: Getter | None
    frame: Getter | None


class PlanParts(NamedTuple):
    """The parts of a plan that decoding one message needs."""

    rule: CompiledRule
    pure: ValueAccess | None
    """Access to the values that are read as numbers."""
    converted: Sequence[ConvertedColumn]
    """The other values."""
    elements: Sequence[PlannedElement]
    element_of: Sequence[int]
    """Element of each value, ascending."""
    names: Sequence[str]
    """Name of each value."""
    specs: I32
    """Spec of each value, by identity."""
    sentinels: Sequence[tuple[int, F64]]
    """(value, numbers that stand for a missing one)."""
    qualities: Mapping[int, int]
    """Value -> quality, where it is not good."""
    path: Sequence[Getter]
    """Part of the path of a message beside its topic."""
    floats: Getter | None
    """Getter of the values that may be infinite or NaN."""
    has_other_times: bool
    """True if another member than the planned one may hold the time."""
    ignored: int
    """Number of null values of a message."""
