"""Cache of the plans learned so far: a shape gets a plan when seen a few times. Bounded; never changes the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sensegate.decode.columnar import ColumnarReaders
from sensegate.decode.columnar_envelopes import EnvelopePlan
from sensegate.decode.extract import BoundMessage, Leaf
from sensegate.decode.plan import NAMES_MAX, ColumnPlan, Shape, skeleton
from sensegate.decode.profile import CompiledRule

PLANS_MAX = 32
"""Most plans of one rule."""
_ALL_MAX = 2_048
"""Most plans in all; further shapes go the slow path."""
_SEEN_MAX = 4_096
_SIGHTINGS = 3
"""A shape is planned when seen this often."""
_NEVER = -(2**31)

WrappedRule = tuple[CompiledRule, str]
"""A rule, and the key under which its payload is wrapped (empty: none)."""

FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors that msgspec raises for a payload that does not have a plan's shape."""


class PlanCache:
    """Plans by number, by rule and by shape."""

    def __init__(self, nesting_max: int = 32) -> None:
        self.plans: list[ColumnPlan | EnvelopePlan] = []
        self.readers = ColumnarReaders(nesting_max)
        """Readers for formats that give flat values."""
        self._by_rule: dict[WrappedRule, list[int]] = {}
        self._by_shape: dict[tuple[CompiledRule, str, Shape], int] = {}
        self._seen: dict[int, int] = {}
        """Sightings of shapes, by their hash: a shape has the names of a message, which may be as long as it is."""

    @property
    def count(self) -> int:
        """Number of all plans; it grows with each one learned."""
        return len(self.plans) + self.readers.count

    def learn(self, holder: WrappedRule, tree: Any, deciding: Sequence[Leaf], bound: BoundMessage) -> int | None:
        """Return the number of the plan for a message that was decoded, None while there is none."""
        return self._learn(holder, tree, deciding, lambda shape: ColumnPlan(holder[0], bound, shape))

    def learn_envelope(
        self,
        holder: WrappedRule,
        tree: Any,
        deciding: Sequence[Leaf],
        bound: BoundMessage,
        beside: tuple[CompiledRule, BoundMessage] | None,
    ) -> int | None:
        """Return the number of the plan for an envelope whose frame was decoded, None while there is none."""
        return self._learn(holder, tree, deciding, lambda shape: EnvelopePlan(holder[0], bound, shape, beside))

    def _learn(
        self,
        holder: WrappedRule,
        tree: Any,
        deciding: Sequence[Leaf],
        make: Callable[[Shape], ColumnPlan | EnvelopePlan],
    ) -> int | None:
        shape = skeleton(tree, deciding)
        if shape is None:
            return None
        key = (*holder, shape)
        if (known := self._by_shape.get(key)) is not None:
            return known
        if len(self._seen) > _SEEN_MAX:
            self._seen.clear()
        seen = hash(key)
        self._seen[seen] = self._seen.get(seen, 0) + 1
        siblings = self._by_rule.setdefault(holder, [])
        if self._seen[seen] < _SIGHTINGS or len(siblings) >= PLANS_MAX or len(self.plans) >= _ALL_MAX:
            return None
        if len(repr(shape)) > NAMES_MAX:
            self._seen[seen] = _NEVER
            return None
        try:
            self.plans.append(make(shape))
        except (ValueError, TypeError):
            self._seen[seen] = _NEVER
            return None
        number = self._by_shape[key] = len(self.plans) - 1
        siblings.append(number)
        return number

    def fitting(self, holders: Sequence[WrappedRule], payload: bytes, quotes: int) -> int | None:
        """Return the number of a plan of these rules that accepts a payload, None if there is none."""
        for number in self._candidates(holders, quotes):
            try:
                self.plans[number].decode(payload)
            except FAULTS:
                continue
            return number
        return None

    def _candidates(self, holders: Sequence[WrappedRule], quotes: int) -> Iterator[int]:
        for holder in holders:
            for number in self._by_rule.get(holder, ()):
                if self.plans[number].quotes == quotes:
                    yield number
