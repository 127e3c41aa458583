"""The boundary between two batches: where state of the stages may change, and what others wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sensegate.bus.columns import Batch
from sensegate.clock import Clock
from sensegate.errors import Unavailable
from sensegate.persist.commit import Committer

DRAIN_S, DRAIN_POLL_S = 20.0, 0.1


class BatchBoundary:
    """Hooks that run before the next batch, never within one: no batch is interpreted by two states."""

    def __init__(self) -> None:
        self._hooks: list[Callable[[], None]] = []

    def add(self, hook: Callable[[], None]) -> None:
        """Run a hook once, before the next batch."""
        self._hooks.append(hook)

    def run(self) -> None:
        """Run the hooks that wait, in the order in which they were added."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook()


class CommitBarrier:
    """Lets other parts wait for commits, and add identities between two of them."""

    def __init__(self, boundary: BatchBoundary, committer: Committer, clock: Clock) -> None:
        self._boundary = boundary
        self._committer = committer
        self._clock = clock

    def remember(self, batches: Sequence[Batch]) -> None:
        """Add the identities of readings to the duplicate index, before the next batch."""

        def add() -> None:
            for batch in batches:
                self._committer.remember(batch)

        self._boundary.add(add)

    async def wait_drained(self, source: str, newest: int) -> None:
        """Wait until all that a source has up to a sequence is committed. Raises `Unavailable` after `DRAIN_S`."""
        for _ in range(round(DRAIN_S / DRAIN_POLL_S)):
            position = self._committer.position(source)
            if newest <= (position.sequence if position else 0):
                return
            await self._clock.sleep(DRAIN_POLL_S)
        raise Unavailable(f"messages of {source} up to {newest} are not committed yet; tried again")
