"""Numbers of batches: which batches of each front are committed, so that one stored twice is committed once.

A front sends a batch again when it does not know whether the server stored it, maybe long after the server's own
duplicate window. Therefore each commit holds, per front, the greatest number and which of those before it are missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from sensegate.collect.intake.batch import IN_FLIGHT_MAX
from sensegate.model import BatchNumbers

WINDOW = 64
"""Numbers before the greatest of which it is known whether they are missing; a later one fills its gap."""
INSTANCES_MAX = 32
"""Most fronts in a commit; the one that has been silent for longest is forgotten."""

_WINDOW_MASK = (1 << WINDOW) - 1


class NumberTracker:
    """The numbers of the batches read so far; `numbers` is what a commit keeps of them."""

    def __init__(self, committed: Mapping[str, BatchNumbers]) -> None:
        self._numbers = dict(committed)

    @property
    def numbers(self) -> dict[str, BatchNumbers]:
        """Instance (hexadecimal) -> numbers, the most recent front last."""
        return dict(self._numbers)

    def is_known(self, instance: str, number: int) -> bool:
        """Return whether a batch was read before."""
        numbers = self._numbers.get(instance)
        if numbers is None or number > numbers.last:
            return False
        before = numbers.last - 1 - number
        return number == numbers.last or before >= WINDOW or not numbers.missing >> before & 1

    def lowest_missing(self, instance: str, above: int) -> int | None:
        """Return the lowest number above another that is missing and may still come; None: there is none."""
        numbers = self._numbers.get(instance)
        if numbers is None:
            return None
        for number in range(max(above, numbers.last - 1 - IN_FLIGHT_MAX) + 1, numbers.last):
            if numbers.missing >> (numbers.last - 1 - number) & 1:
                return number
        return None

    def add(self, instance: str, number: int) -> int:
        """Add a batch that is not known; return how many earlier ones are now overdue: gaps."""
        numbers = self._numbers.pop(instance, BatchNumbers(0))
        overdue = 0
        if number > numbers.last:
            step = number - numbers.last
            # Numbers of a front that is not known (any more) may have been committed long ago: none is a gap.
            if numbers.last or number <= WINDOW:
                moved = numbers.missing << min(step, WINDOW)
                missing = moved | ((1 << (min(step, WINDOW + 1) - 1)) - 1)
                reported = (numbers.missing >> IN_FLIGHT_MAX) << min(step, WINDOW)
                overdue = ((missing >> IN_FLIGHT_MAX) & ~reported).bit_count() + max(step - 1 - WINDOW, 0)
                numbers = BatchNumbers(number, missing & _WINDOW_MASK)
            else:
                numbers = BatchNumbers(number)
        else:
            numbers = BatchNumbers(numbers.last, numbers.missing & ~(1 << (numbers.last - 1 - number)))
        self._numbers[instance] = numbers
        while len(self._numbers) > INSTANCES_MAX:
            del self._numbers[next(iter(self._numbers))]
        return overdue
