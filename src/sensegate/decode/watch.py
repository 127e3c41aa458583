"""Keep the profiles in force up to date: a changed file or a decision of the store takes effect without a restart.

A broken file, or a version that does not compile, leaves the previous version in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
import structlog

from sensegate.clock import Clock
from sensegate.decode.profiles import Chosen, Examine, ProfileSet, files

LOOK_S = 1.0
LOOKS_PER_LISTING = 60
"""Looks from which on the folders are listed again even if none seems changed: their times have a coarse resolution."""

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
        self._looks = 0
        self._listing: _Listing | None = None
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
        listing = self._listing
        self._looks += 1
        if self._looks % LOOKS_PER_LISTING == 0 or listing is None or listing.is_outdated():
            listing = self._listing = _listed(self._places)
        stamps = []
        for group, scripts in listing.groups:
            with contextlib.suppress(OSError):  # deleted meanwhile, or not readable: reading it reports the error
                script_time, script_size = _stamp(scripts)
                for file in group:
                    with contextlib.suppress(OSError):
                        time, size = _stamp([file])
                        stamps.append((file, time + script_time, size + script_size))
        return stamps


class _Listing(msgspec.Struct, frozen=True):
    """The files of the profiles and the scripts beside them, as they were listed."""

    folders: dict[str, int]
    """Place or folder below one -> its time of modification in ns, 0: there is none."""
    groups: list[tuple[list[str], list[str]]]
    """Of each folder its profiles, and the scripts beside them."""

    def is_outdated(self) -> bool:
        """Return whether a folder has other files by now."""
        return any(_modified(folder) != time for folder, time in self.folders.items())


def _listed(places: Sequence[Path]) -> _Listing:
    """List the files. The times of the folders are of before, so that what changes meanwhile is listed again."""
    folders = {folder: _modified(folder) for place in places for folder in (str(place), *_folders_below(place))}
    groups = [
        (list(map(str, group)), sorted(map(str, folder.glob("*.js"))))
        for folder, group in groupby(files(places), lambda file: file.parent)
    ]
    return _Listing(folders, groups)


def _folders_below(place: Path) -> Iterator[str]:
    for folder, names, _ in os.walk(place):
        yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118 - a third of the time of `Path`


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - a third of the time of `Path`
    except OSError:
        return 0


def _stamp(paths: Sequence[str]) -> tuple[int, int]:
    """Return the sums of the times of modification (ns) and of the sizes. Raises `OSError`."""
    states = [os.stat(path) for path in paths]  # noqa: PTH116 - a third of the time of `Path`
    return sum(state.st_mtime_ns for state in states), sum(state.st_size for state in states)
