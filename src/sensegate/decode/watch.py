"""Keep the profiles in force up to date: a changed file or a decision of the store takes effect without a restart.

A broken file, or a version that does not compile, leaves the previous version in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from sensegate.clock import Clock
from sensegate.decode.profiles import Chosen, Examine, ProfileSet

LOOK_S = 1.0

_log = structlog.get_logger("decode")

Changed = Callable[[ProfileSet, list[str]], None]
"""(set now in force, ids of the profiles that are new, changed or gone)."""


class ProfileWatcher:
    """Check the files once a second; a file that is broken at the start is left out and reported by `problems`."""

    def __init__(
        self,
        places: Sequence[Path | str],
        clock: Clock,
        chosen: Sequence[Chosen] = (),
        *,
        examine: Examine = lambda _profile: None,
    ) -> None:
        """`chosen`: the versions of the store in force from the start. `examine`: says which file must not be."""
        self._examine = examine
        self._places = [Path(place) for place in places]
        self._clock = clock
        self._chosen = tuple(chosen)
        self._last_stamps = self._stamps()
        self._lock = asyncio.Lock()
        self.set = ProfileSet([], []).reload(self._places, examine=examine).choose(self._chosen)
        self._log_problems(self.set)
        self.on_change: list[Changed] = []

    def begin_with(self, chosen: Sequence[Chosen]) -> None:
        """Put the versions of the store that were decided before this start in force; no listener is called.

        Unlike in `choose`, a version that does not compile leaves no other in force: there was none before it.
        """
        self._chosen = tuple(chosen)
        self.set = self.set.choose(self._chosen)
        self._log_problems(self.set)

    def problems(self) -> list[str]:
        """Return the problems of files that are therefore not in force, as sentences."""
        problems = [
            f"{problem}; its last good version, if there is one, stays in force" for problem in self.set.problems
        ]
        return [*problems, *self.set.superseded()]

    async def run(self) -> None:
        """Apply changes of the files until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            stamps = await asyncio.to_thread(self._stamps)
            if stamps != self._last_stamps:
                unchanged = {file for file, *_ in {*stamps} & {*self._last_stamps}}
                self._last_stamps = stamps
                async with self._lock:
                    # Twenty profiles take half a second: not on the loop that serves the devices.
                    self._apply(await asyncio.to_thread(self._read, unchanged))

    async def choose(self, chosen: Sequence[Chosen]) -> None:
        """Put exactly these versions of the store in force; return when they are."""
        async with self._lock:
            self._chosen = tuple(chosen)
            self._apply(await asyncio.to_thread(self.set.choose, self._chosen, self.set))

    def _read(self, unchanged: set[str]) -> ProfileSet:
        return self.set.reload(self._places, unchanged, self._examine).choose(self._chosen, self.set)

    def _apply(self, new: ProfileSet) -> None:
        old, self.set = self.set, new
        changed = [
            name
            for name in sorted({*old.ids, *new.ids})
            if old.find(name) is not new.find(name) or old.arms.get(name) != new.arms.get(name)
        ]
        _log.info("profiles in force", profiles=len(new), changed=changed)
        self._log_problems(new)
        for listener in self.on_change:
            listener(new, changed)

    @staticmethod
    def _log_problems(profiles: ProfileSet) -> None:
        for problem in profiles.problems:
            _log.error("profile is broken and not in force", reason=str(problem))

    def _stamps(self) -> list[tuple[str, int, int]]:
        stamps: list[tuple[str, int, int]] = []
        for place in self._places:
            if place.is_dir():
                _add_stamps(str(place), stamps)
            else:
                with contextlib.suppress(OSError):  # not readable: reading it reports the error
                    parts = [place.stat(), *(script.stat() for script in place.parent.glob("*.js"))]
                    times, sizes = (part.st_mtime_ns for part in parts), (part.st_size for part in parts)
                    stamps.append((str(place), sum(times), sum(sizes)))
        return sorted(stamps)


def _add_stamps(folder: str, stamps: list[tuple[str, int, int]]) -> None:
    """Add (file, time, size) of the profiles of a folder; the scripts beside a profile count with it.

    `os.scandir`, because it is done every second: by `pathlib` it took a hundredth of a core.
    """
    own: list[tuple[str, int, int]] = []
    time = size = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # deleted meanwhile, or not readable
        for entry in entries:
            name = entry.name
            with contextlib.suppress(OSError):
                if name.endswith(".yaml") and not name.startswith("_"):
                    stat = entry.stat()
                    own.append((entry.path, stat.st_mtime_ns, stat.st_size))
                elif name.endswith(".js"):
                    stat = entry.stat()
                    time, size = time + stat.st_mtime_ns, size + stat.st_size
                elif entry.is_dir(follow_symlinks=False):
                    _add_stamps(entry.path, stamps)
    stamps += [(file, own_time + time, own_size + size) for file, own_time, own_size in own]
