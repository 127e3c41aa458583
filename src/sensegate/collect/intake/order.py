"""Order of the batches of a front: one that the stream refused is stored behind newer ones, and read before them.

A front has a few batches in flight. If the stream refuses one of them, the newer ones may already be stored when it is
sent again. The reader holds these back until the older one comes, so that the messages of a device keep their order. No
device waits for that: a front acknowledges in the order of its batches. A batch that does not come in time was never
acknowledged (its front has died), and is not waited for again.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sensegate.collect.intake.numbers import INSTANCES_MAX

HOLD_S = 2.0
"""Longest wait for an older batch; a front sends it again within a quarter of a second."""


class NumberedBatch(Protocol):
    """A batch as far as its order is concerned."""

    @property
    def instance(self) -> str:
        """The front's instance; empty: unknown."""
        ...

    @property
    def number(self) -> int:
        """Number among the batches of the instance."""
        ...


_B = TypeVar("_B", bound=NumberedBatch)
LowestMissing = Callable[[str, int], int | None]
"""(instance, number) -> lowest missing number above that one; None: there is none."""


class FrontOrder(Generic[_B]):
    """Batches that are held back, by instance."""

    def __init__(self, lowest_missing: LowestMissing) -> None:
        self._lowest_missing = lowest_missing
        self._held: dict[str, list[tuple[int, float, _B]]] = {}
        """Instance -> (number, when it came, batch), by number."""
        self._given_up: dict[str, int] = {}
        """Instance -> number up to which none is waited for."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def add(self, batch: _B, now: float) -> list[_B]:
        """Take a new batch; return those whose turn it is, in their order."""
        if not batch.instance:
            return [batch]
        held = self._held.setdefault(batch.instance, [])
        insort(held, (batch.number, now, batch), key=lambda entry: entry[0])
        return self._ready(batch.instance)

    def overdue(self, now: float) -> list[_B]:
        """Return the batches that have been held back for too long, and those behind them."""
        ready: list[_B] = []
        for instance, held in list(self._held.items()):
            late = [number for number, since, _ in held if now - since >= HOLD_S]
            if late:
                self._given_up.pop(instance, None)
                self._given_up[instance] = max(late)
                while len(self._given_up) > INSTANCES_MAX:
                    del self._given_up[next(iter(self._given_up))]
                ready += self._ready(instance)
        return ready

    def _ready(self, instance: str) -> list[_B]:
        held = self._held[instance]
        missing = self._lowest_missing(instance, self._given_up.get(instance, 0))
        ready = [batch for number, _, batch in held if missing is None or number < missing]
        del held[: len(ready)]
        if not held:
            del self._held[instance]
            if self._lowest_missing(instance, 0) is None:
                self._given_up.pop(instance, None)
        return ready
