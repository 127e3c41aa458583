"""Tasks of subscriptions: one for each name, replaced or ended while the others run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Run = Callable[[], Awaitable[None]]


class SubscriptionTasks:
    """Runs what `put` gives under a name until `remove`; `run` is the task that keeps them."""

    def __init__(self) -> None:
        self._wanted: dict[str, Run] = {}
        self._tasks: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    def put(self, name: str, run: Run) -> None:
        """Run something under a name, instead of what ran there."""
        self._wanted[name] = run
        self._changed.set()

    def remove(self, name: str) -> None:
        """End what runs under a name."""
        if self._wanted.pop(name, None) is not None:
            self._changed.set()

    async def run(self) -> None:
        """Run them until cancelled; an unexpected error in one ends all, so that it is noticed."""
        try:
            while True:
                self._changed.clear()
                await self._reconcile()
                changed = asyncio.ensure_future(self._changed.wait())
                running = [task for _, task in self._tasks.values() if not task.done()]
                tasks: set[asyncio.Future[object]] = {changed, *running}  # type: ignore[arg-type]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for task in running:
                    if task in done:
                        task.result()
        finally:
            await self._cancel(list(self._tasks))

    async def _reconcile(self) -> None:
        await self._cancel([name for name, (run, _) in self._tasks.items() if self._wanted.get(name) is not run])
        for name, run in self._wanted.items():
            if name not in self._tasks:
                self._tasks[name] = run, asyncio.create_task(_coroutine(run), name=f"subscription {name}")

    async def _cancel(self, names: list[str]) -> None:
        tasks = [self._tasks.pop(name)[1] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _coroutine(run: Run) -> None:
    await run()
