"""Record of restores beside a store (`restored.json`): which copies it was made of, for the trail and the centre."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from sensegate.bus.files import write_private
from sensegate.errors import ConfigError

FILE: Final = "restored.json"
KEPT_MAX: Final = 100


class Restore(msgspec.Struct, frozen=True):
    """A store was put in place from a backup."""

    made: int
    """Time when the backup was made, µs UTC."""
    at: int
    """Time when it was restored, µs UTC."""
    by: str
    """User of the system."""
    source: str
    """Directory of the backup."""
    original: str
    """``host:directory`` of the gateway that was backed up."""
    aside: str = ""
    """Directory to which the previous store was moved; empty: there was none."""


class RestoreHistory(msgspec.Struct, frozen=True):
    """All restores that made a store, oldest first."""

    restores: tuple[Restore, ...] = ()
    recorded: int = 0
    """Number of them that are on the trail."""
    count: int = 0
    """Number of restores, also of those that are not kept here any more."""
    merged: int = 0
    """Registries are merged with the copies that the centre has of them, up to this restore."""
    claimed: int = 0
    """The writer of a node's lanes claims by a restore, up to this one."""
    revisions: dict[str, int] = {}
    """Registry -> revision with which the restored copy of it ended; empty: not looked at yet."""
    format: int = 1

    def with_restore(self, restore: Restore) -> RestoreHistory:
        """Return the history with one more restore."""
        kept = (*self.restores, restore)[-KEPT_MAX:]
        recorded = max(0, min(self.recorded, len(kept) - 1))
        return RestoreHistory(kept, recorded, self.count + 1, self.merged, self.claimed)

    @property
    def unrecorded(self) -> tuple[Restore, ...]:
        """Restores that are not on the trail yet."""
        return self.restores[self.recorded :]

    @property
    def is_merged(self) -> bool:
        """Return whether the registries are no older than what the centre has of them."""
        return self.merged >= self.count

    def epoch(self, epoch: str) -> str:
        """Return the epoch of a log, told apart from that of the copies before this store."""
        return f"{epoch}.{self.count}" if self.count else epoch


def read(directory: Path) -> RestoreHistory:
    """Return the history of a gateway's store.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    file = directory / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=RestoreHistory)
    except FileNotFoundError:
        return RestoreHistory()
    except (OSError, msgspec.DecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(file), remedy="restore it from the backup") from why


def write(directory: Path, history: RestoreHistory) -> None:
    """Write the history of a store, durably."""
    write_private(directory / FILE, msgspec.json.format(msgspec.json.encode(history), indent=1))


def settle(directory: Path, history: RestoreHistory) -> None:
    """Note that all restores are on the trail."""
    if history.unrecorded and os.path.lexists(directory / FILE):
        write(directory, msgspec.structs.replace(history, recorded=len(history.restores)))
