"""The profiles in force while running: a changed file and a decision of the store are taken up without a restart.

A broken file, and a version that cannot be compiled, leave what was in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from sensegate.clock import Clock
from sensegate.decode.profiles import Chosen, ProfileSet, files

LOOK_S = 1.0

_log = structlog.get_logger("decode")

Changed = Callable[[ProfileSet, list[str]], None]
"""(set now in force, ids of the profiles that are new, changed or gone)."""


class Profiles:
    """Looks at the files once a second; a file that is wrong at the very start is left out and named in `troubles`."""

    def __init__(self, places: Sequence[Path | str], clock: Clock, chosen: Sequence[Chosen] = ()) -> None:
        """`chosen`: the versions of the store that are in force from the start."""
        self._places = [Path(place) for place in places]
        self._clock = clock
        self._chosen = tuple(chosen)
        self._seen = self._stamps()
        self._one_at_a_time = asyncio.Lock()
        self.set = ProfileSet([], []).reload(self._places).choose(self._chosen)
        self._say(self.set)
        self.on_change: list[Changed] = []

    def troubles(self) -> list[str]:
        """Return what is wrong with files that are therefore not in force, a sentence each."""
        return [f"{why}; its last good version, if there is one, stays in force" for why in self.set.problems]

    async def run(self) -> None:
        """Take up changes of the files until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            stamps = await asyncio.to_thread(self._stamps)
            if stamps != self._seen:
                unchanged = {file for file, *_ in {*stamps} & {*self._seen}}
                self._seen = stamps
                async with self._one_at_a_time:
                    # Twenty profiles take half a second: not in the loop that serves the devices.
                    self._take(await asyncio.to_thread(self._read, unchanged))

    async def choose(self, chosen: Sequence[Chosen]) -> None:
        """Put these versions of the store in force, and no others; return when they are."""
        async with self._one_at_a_time:
            self._chosen = tuple(chosen)
            self._take(await asyncio.to_thread(self.set.choose, self._chosen, self.set))

    def _read(self, unchanged: set[str]) -> ProfileSet:
        return self.set.reload(self._places, unchanged).choose(self._chosen, self.set)

    def _take(self, new: ProfileSet) -> None:
        old, self.set = self.set, new
        changed = [
            name
            for name in sorted({*old.ids, *new.ids})
            if old.find(name) is not new.find(name) or old.arms.get(name) != new.arms.get(name)
        ]
        _log.info("profiles in force", profiles=len(new), changed=changed)
        self._say(new)
        for listener in self.on_change:
            listener(new, changed)

    @staticmethod
    def _say(profiles: ProfileSet) -> None:
        for why in profiles.problems:
            _log.error("a profile is wrong and not in force", error=str(why))

    def _stamps(self) -> list[tuple[str, int, int]]:
        found = []
        scripts: dict[Path, list[os.stat_result]] = {}
        for path in files(self._places):
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to see: reading it says so
                beside = scripts.get(path.parent)
                if beside is None:
                    beside = scripts[path.parent] = [script.stat() for script in sorted(path.parent.glob("*.js"))]
                parts = [path.stat(), *beside]
                times, sizes = (part.st_mtime_ns for part in parts), (part.st_size for part in parts)
                found.append((str(path), sum(times), sum(sizes)))
        return found
