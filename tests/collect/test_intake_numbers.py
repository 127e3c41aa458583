"""Numbers of batches: one that comes twice is known, one that never comes is a gap, whatever the order."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sensegate.collect.intake.batch import IN_FLIGHT_MAX
from sensegate.collect.intake.numbers import INSTANCES_MAX, WINDOW, NumberTracker
from sensegate.model import BatchNumbers, SourcePosition


def read(numbers: list[int], tracker: NumberTracker | None = None) -> tuple[list[int], int, NumberTracker]:
    """Return the numbers that are new, how many are overdue, and the tracker."""
    tracker = tracker or NumberTracker({})
    new, overdue = [], 0
    for number in numbers:
        if not tracker.is_known("a", number):
            new.append(number)
            overdue += tracker.add("a", number)
    return new, overdue, tracker


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 12)))
def test_batches_in_flight_in_any_order(order: list[int], repeated: list[int]) -> None:
    """Of those in flight each is taken once, in whatever order and however often it is stored; nothing is overdue."""
    new, overdue, tracker = read([*order, *repeated])
    assert (new, overdue) == (list(order), 0)
    assert tracker.numbers == {"a": BatchNumbers(12)}


@given(st.lists(st.integers(1, 400), max_size=60, unique=True).map(sorted))
def test_each_gap_is_told_once(numbers: list[int]) -> None:
    """With numbers that rise, overdue are those missing further behind the greatest than may be in flight."""
    _, overdue, _ = read(numbers)
    if numbers and numbers[0] <= WINDOW:
        missing = set(range(1, numbers[-1] - IN_FLIGHT_MAX)) - set(numbers)
        assert overdue == len(missing)


@given(st.lists(st.integers(1, (1 << 64) - 1), max_size=10))
def test_the_state_goes_through_a_commit_record(numbers: list[int]) -> None:
    """The state of any numbers, however far apart, can be stored, and goes on as it was."""
    _, _, tracker = read(numbers)
    position = SourcePosition("e", 1, numbers=tracker.numbers)
    stored = msgspec.json.decode(msgspec.json.encode(position), type=SourcePosition)
    assert read(numbers, NumberTracker(stored.numbers))[0] == []


def test_a_front_that_is_not_known_leaves_no_gap() -> None:
    """A front beyond the kept ones begins anew wherever it is; one that begins late within the window has gaps."""
    assert read([5_000])[1] == 0
    assert read([40])[1] == 40 - 1 - IN_FLIGHT_MAX


def test_the_fronts_that_are_kept() -> None:
    """The front that was silent for longest is forgotten first."""
    tracker = NumberTracker({})
    for number in range(INSTANCES_MAX):
        tracker.add(str(number), 1)
    tracker.add("0", 2)
    tracker.add("new", 1)
    assert "0" in tracker.numbers
    assert "1" not in tracker.numbers
    assert len(tracker.numbers) == INSTANCES_MAX
