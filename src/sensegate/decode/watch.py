"""The profiles in force while running: a changed file is taken up, a broken one leaves its last good version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from sensegate.clock import Clock
from sensegate.decode.profiles import ProfileSet, files

LOOK_S = 1.0

_log = structlog.get_logger("decode")

Changed = Callable[[ProfileSet, list[str]], None]
"""(set now in force, ids of the profiles that are new, changed or gone)."""


class Profiles:
    """Looks at the files once a second; a file that is wrong at the very start is left out and named in `troubles`."""

    def __init__(self, places: Sequence[Path | str], clock: Clock) -> None:
        self._places = [Path(place) for place in places]
        self._clock = clock
        self._seen = self._stamps()
        self.set = ProfileSet([], []).reload(self._places)
        self._say(self.set)
        self.on_change: list[Changed] = []

    def troubles(self) -> list[str]:
        """Return what is wrong with files that are therefore not in force, a sentence each."""
        return [f"{why}; its last good version, if there is one, stays in force" for why in self.set.problems]

    async def run(self) -> None:
        """Take up changes until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            stamps = await asyncio.to_thread(self._stamps)
            if stamps != self._seen:
                self._seen = stamps
                # Twenty profiles take half a second: not in the loop that serves the devices.
                self._take(await asyncio.to_thread(self.set.reload, self._places))

    def _take(self, new: ProfileSet) -> None:
        old, self.set = self.set, new
        changed = [name for name in sorted({*old.ids, *new.ids}) if old.find(name) is not new.find(name)]
        _log.info("profiles read again", profiles=len(new), changed=changed)
        self._say(new)
        for listener in self.on_change:
            listener(new, changed)

    @staticmethod
    def _say(profiles: ProfileSet) -> None:
        for why in profiles.problems:
            _log.error("a profile is wrong and not in force", error=str(why))

    def _stamps(self) -> list[tuple[str, int, int]]:
        found = []
        for path in files(self._places):
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to see: reading it says so
                status = path.stat()
                found.append((str(path), status.st_mtime_ns, status.st_size))
        return found
