"""Batches of a front are delivered in the order of their numbers, however they were stored."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from sensegate.collect.intake.numbers import NumberTracker
from sensegate.collect.intake.order import HOLD_S, FrontOrder


class Numbered(NamedTuple):
    """A batch."""

    instance: str
    number: int


class Reader:
    """A tracker and an order, as the source has them."""

    def __init__(self) -> None:
        self.numbers = NumberTracker({})
        self.order = FrontOrder[Numbered](self.numbers.lowest_missing)
        self.delivered: list[Numbered] = []

    def take(self, batch: Numbered, now: float = 0.0) -> None:
        """Take a stored batch."""
        self.numbers.add(batch.instance, batch.number)
        self.delivered += self.order.add(batch, now)


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_refused_batches_are_delivered_before_newer_ones(fronts: list[str], chance: object) -> None:
    """Of two fronts with four batches in flight each, stored in any order: all, and by number."""
    sent = {front: [Numbered(front, number + 1) for number in range(fronts.count(front))] for front in "ab"}
    reader = Reader()
    waiting = {front: list(batches) for front, batches in sent.items()}
    while any(waiting.values()):
        front = next(front for front in chance.sample("ab", 2) if waiting[front])  # type: ignore[attr-defined]
        oldest = waiting[front][0].number
        flight = [batch for batch in waiting[front][:4] if batch.number < oldest + 4]
        batch = chance.choice(flight)  # type: ignore[attr-defined]
        waiting[front].remove(batch)
        reader.take(batch)
    assert not len(reader.order)
    for front in "ab":
        assert [batch for batch in reader.delivered if batch.instance == front] == sent[front]


def test_a_batch_that_never_comes_is_waited_for_only_once() -> None:
    """A front that died had not acknowledged it: the newer ones go on after the limit, and are not held again."""
    reader = Reader()
    for number in (1, 3, 4):
        reader.take(Numbered("a", number), now=10.0)
    assert [batch.number for batch in reader.delivered] == [1]
    assert reader.order.overdue(10.0 + HOLD_S / 2) == []
    assert [batch.number for batch in reader.order.overdue(10.0 + HOLD_S)] == [3, 4]
    reader.take(Numbered("a", 5), now=11.0)
    reader.take(Numbered("a", 2), now=11.0)
    assert [batch.number for batch in reader.delivered] == [1, 5, 2]
    assert not len(reader.order)


def test_control_without_the_order() -> None:
    """Control: as stored, a refused batch stands behind newer ones."""
    stored = [Numbered("a", number) for number in (1, 3, 2)]
    assert [batch.number for batch in stored] != [1, 2, 3]
    reader = Reader()
    for batch in stored:
        reader.take(batch)
    assert [batch.number for batch in reader.delivered] == [1, 2, 3]


def test_batches_of_an_unknown_front_are_not_held() -> None:
    """A damaged batch has no number that could be believed; of a front first seen late nothing is missing."""
    reader = Reader()
    assert reader.order.add(Numbered("", 9), 0.0) == [Numbered("", 9)]
    reader.take(Numbered("late", 5_000))
    assert reader.delivered == [Numbered("late", 5_000)]
