"""Rollout of released profile versions in this process: materialise, compile in the background, switch atomically.

Releases (every process is notified) ─▶ Rollout.run ─▶ ContentStore.materialise ─▶ apply ─▶ messages of the next batch
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from sensegate.decode.choice import VersionChoice
from sensegate.errors import NotFound, Unavailable
from sensegate.lifecycle.releases import Releases

IN_FORCE_S = 2.0
"""Time within which a decision is in force on every worker."""

_log = structlog.get_logger("lifecycle")

MaterialisedVersions = list[tuple[VersionChoice, Path]]
Apply = Callable[[MaterialisedVersions], Awaitable[None]]
"""Applies versions; returns once they are in force, or once one is known to fail."""


class Rollout:
    """Applies the decisions of `Releases` in this process."""

    def __init__(self, releases: Releases) -> None:
        self._releases = releases
        self._wanted = asyncio.Event()
        self._requested = 0
        self._completed = 0
        self._progressed = asyncio.Condition()
        self._applied: list[VersionChoice] = []
        releases.on_change.append(self._on_release_change)

    def _on_release_change(self, _profile: str) -> None:
        self._requested += 1
        self._wanted.set()

    async def initial(self) -> MaterialisedVersions:
        """Return the present decisions, materialised, to start with."""
        self._applied = self._releases.choices()
        return await self.materialised(self._applied)

    async def materialised(self, choices: Sequence[VersionChoice]) -> MaterialisedVersions:
        """Return choices with the file of each version.

        The file of a missing content does not exist, which compiling it reports.
        """
        versions: MaterialisedVersions = []
        for choice in choices:
            try:
                file = await self._releases.contents.materialise(choice.profile, choice.digest)
            except NotFound as why:
                _log.warning("version cannot be put in force", version=choice.name, reason=str(why))
                file = Path(f"{choice.name}: its content is not in the store")
            versions.append((choice, file))
        return versions

    async def run(self, apply: Apply) -> None:
        """Apply every decision until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            requested, choices = self._requested, self._releases.choices()
            try:
                if choices != self._applied:
                    await apply(await self.materialised(choices))
            except Unavailable:
                self._wanted.set()
                raise
            self._applied = choices
            async with self._progressed:
                self._completed = requested
                self._progressed.notify_all()

    async def wait_in_force(self) -> bool:
        """Wait until all present decisions are in force in this process; return False after `IN_FORCE_S`."""
        requested = self._requested
        try:
            async with asyncio.timeout(IN_FORCE_S), self._progressed:
                await self._progressed.wait_for(lambda: self._completed >= requested)
        except TimeoutError:
            return False
        return True
