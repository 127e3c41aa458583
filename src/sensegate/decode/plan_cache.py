"""The plans learned so far: a shape seen a few times gets one. A cache: bounded, and it never changes results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sensegate.decode.columnar import Readers
from sensegate.decode.columnar_envelopes import EnvelopePlan
from sensegate.decode.extract import Bound, Leaf
from sensegate.decode.plan import Plan, Shape, skeleton
from sensegate.decode.profile import Rule

PLANS_MAX = 32
"""Plans of one rule."""
_ALL_MAX = 2_048
"""Plans in all; a shape beyond goes the general way."""
_SEEN_MAX = 4_096
_SIGHTINGS = 3
"""A shape is planned when it was seen so often."""
_NEVER = -(2**31)

Holder = tuple[Rule, str]
"""A rule, and the key that its payload is wrapped in."""

FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a payload that is not of a plan's shape."""


class Plans:
    """Plans by number, by rule and by shape."""

    def __init__(self, nesting_max: int = 32) -> None:
        self.plans: list[Plan | EnvelopePlan] = []
        self.readers = Readers(nesting_max)
        """For formats that give bare values."""
        self._by_rule: dict[Holder, list[int]] = {}
        self._by_shape: dict[tuple[Rule, str, Shape], int] = {}
        self._seen: dict[tuple[Rule, str, Shape], int] = {}

    @property
    def count(self) -> int:
        """Plans in all: it rises with each that is learned."""
        return len(self.plans) + self.readers.count

    def learn(self, holder: Holder, tree: Any, deciding: Sequence[Leaf], bound: Bound) -> int | None:
        """Return the number of the plan for a message that was understood, None as long as there is none."""
        return self._learn(holder, tree, deciding, lambda shape: Plan(holder[0], bound, shape))

    def learn_envelope(
        self,
        holder: Holder,
        tree: Any,
        deciding: Sequence[Leaf],
        bound: Bound,
        beside: tuple[Rule, Bound] | None,
    ) -> int | None:
        """Return the number of the plan for an envelope whose frame was understood, None as long as there is none."""
        return self._learn(holder, tree, deciding, lambda shape: EnvelopePlan(holder[0], bound, shape, beside))

    def _learn(
        self, holder: Holder, tree: Any, deciding: Sequence[Leaf], make: Callable[[Shape], Plan | EnvelopePlan]
    ) -> int | None:
        shape = skeleton(tree, deciding)
        if shape is None:
            return None
        key = (*holder, shape)
        if (known := self._by_shape.get(key)) is not None:
            return known
        if len(self._seen) > _SEEN_MAX:
            self._seen.clear()
        self._seen[key] = self._seen.get(key, 0) + 1
        siblings = self._by_rule.setdefault(holder, [])
        if self._seen[key] < _SIGHTINGS or len(siblings) >= PLANS_MAX or len(self.plans) >= _ALL_MAX:
            return None
        try:
            self.plans.append(make(shape))
        except (ValueError, TypeError):
            self._seen[key] = _NEVER
            return None
        number = self._by_shape[key] = len(self.plans) - 1
        siblings.append(number)
        return number

    def fitting(self, holders: Sequence[Holder], payload: bytes, quotes: int) -> int | None:
        """Return the number of a plan of these rules into which a payload fits, None if there is none."""
        for number in self._candidates(holders, quotes):
            try:
                self.plans[number].decode(payload)
            except FAULTS:
                continue
            return number
        return None

    def _candidates(self, holders: Sequence[Holder], quotes: int) -> Iterator[int]:
        for holder in holders:
            for number in self._by_rule.get(holder, ()):
                if self.plans[number].quotes == quotes:
                    yield number
