"""Inventory of the streams that exist, stored beside the store: a listed stream that is missing is lost, not new.

    engine/known/streams.json               account, name and creation time of each stream; accepted losses
    engine/known/<account>/<stream>/meta.*  copy of the server's metadata files, renewed with each change of a stream
    engine/known/<account>/<stream>.before.json  its settings before it was given more replicas

It is read before each start of the server, which silently skips a stream with damaged metadata; creating the stream
again (by the gateway, or by the server for the first MQTT client) would delete its blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog

from sensegate.bus import stream_meta
from sensegate.bus.files import write_private
from sensegate.bus.stream_meta import Metadata
from sensegate.config import EngineConfig
from sensegate.errors import EngineError, StreamLost

_log = structlog.get_logger("bus")

DIRECTORY, FILE, SET_ASIDE = "known", "streams.json", "aside"
EXTERNAL_FILE = "external.json"
"""Name of the inventory file for an external server."""
SETTINGS_SUFFIX = ".before.json"
PROBE = "PROBE"
"""Stream of each account to which `store_watch` writes its probes; it holds no data."""


class KnownStream(msgspec.Struct, frozen=True):
    """A stream that was created or seen by the gateway."""

    account: str
    name: str
    created: str = ""
    """Creation time as the server reports it, which identifies this incarnation. Empty: unknown."""
    missing: str = ""
    """Reason why the running server lacks the stream; empty: it has it."""


class AcceptedLoss(msgspec.Struct, frozen=True):
    """A lost stream whose loss an operator accepted; it is created again."""

    account: str
    name: str
    created: str
    by: str
    at: str
    set_aside: str = ""
    """Directory to which its remaining files were moved."""


class LostStream(msgspec.Struct, frozen=True):
    """A known stream that the server cannot find or no longer has."""

    account: str
    name: str
    reason: str
    directory: str = ""
    """Empty for an external server."""
    created: str = ""
    repairable: bool = False

    @property
    def title(self) -> str:
        """``account/name``, as commands show it."""
        return f"{self.account}/{self.name}"


class _Record(msgspec.Struct, frozen=True):
    streams: tuple[KnownStream, ...] = ()
    accepted: tuple[AcceptedLoss, ...] = ()
    format: int = 1


class Inventory:
    """Inventory of the streams of one engine. Call `load` first."""

    def __init__(self, directory: Path, *, external: bool = False, durable: bool = False) -> None:
        """Create an inventory in the directory of an engine.

        Args:
            directory: directory of the engine, which holds the store and the inventory.
            external: the server runs elsewhere: its files cannot be checked, only its responses.
            durable: sync every write to the disk from the beginning.
        """
        self._place = directory / DIRECTORY
        self._file = self._place / (EXTERNAL_FILE if external else FILE)
        self._store = directory / "store"
        self._aside = directory / SET_ASIDE
        self._external = external
        self._durable = durable
        self._streams: dict[tuple[str, str], KnownStream] = {}
        self._accepted: tuple[AcceptedLoss, ...] = ()
        self._recorded = False

    @classmethod
    def of(cls, config: EngineConfig, directory: Path) -> Self:
        """Return the inventory of an engine of this configuration; `directory` is that of the engine."""
        return cls(directory, external=bool(config.url), durable=config.durability == "power")

    def load(self) -> Self:
        """Read the inventory file.

        Raises:
            EngineError: the file exists and cannot be read.
        """
        try:
            record = msgspec.json.decode(self._file.read_bytes(), type=_Record)
        except FileNotFoundError:
            record = _Record(self._copies())
        except (OSError, msgspec.DecodeError) as why:
            raise EngineError(
                f"{self._file} cannot be read ({why}); it lists the streams that must exist; restore it, or run "
                "`sensegate doctor CONFIG --repair` to write it again from the copies beside it"
            ) from why
        else:
            self._durable = True  # from here on changes concern a store that is in use
        self._streams = {(known.account, known.name): known for known in record.streams}
        self._accepted = record.accepted
        self._recorded = bool(record.streams or record.accepted)
        return self

    # ── existing streams ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def streams(self) -> Sequence[KnownStream]:
        """All known streams."""
        return tuple(self._streams.values())

    def known(self, account: str, name: str) -> KnownStream | None:
        """Return a known stream; None: it never existed, or its loss was accepted."""
        return self._streams.get((account, name))

    def expect(self, account: str, name: str) -> None:
        """Add a stream to the inventory because other evidence shows that it exists, unless its loss was accepted."""
        given_up = any((loss.account, loss.name) == (account, name) for loss in self._accepted)
        if not given_up and (account, name) not in self._streams:
            self._streams[account, name] = KnownStream(account, name)

    def record(self, account: str, name: str, created: str) -> None:
        """Record a stream that the server has now, and copy its metadata."""
        self.copy_metadata(account, name)
        fresh = KnownStream(account, name, created)
        if self._streams.get((account, name)) != fresh:
            self._streams[account, name] = fresh
            self._write()

    def copy_metadata(self, account: str, name: str) -> None:
        """Renew the copy of a stream's metadata if the server's files are intact."""
        if self._external:
            return
        present, copied = stream_meta.read(self._directory(account, name)), self._read_copy(account, name)
        if present == copied:
            return
        if not present.is_whole(name):
            _log.error("stream metadata damaged on the disk; keeping the copy", stream=f"{account}/{name}")
            return
        stream_meta.write(self._place / account / name, present, durable=self._durable or bool(copied.meta))

    def copy_settings(self, account: str, name: str, settings: Mapping[str, Any]) -> None:
        """Keep the settings of a stream as they are before a migration; an earlier copy stays."""
        file = self._place / account / f"{name}{SETTINGS_SUFFIX}"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(file, msgspec.json.format(msgspec.json.encode(settings), indent=1), durable=True)

    # ── missing streams ─────────────────────────────────────────────────────────────────────────────────

    def lost(self) -> list[LostStream]:
        """Return the streams that the server will not find at its start, or did not have while it ran."""
        if self._external:
            return [
                LostStream(known.account, known.name, known.missing, "", known.created)
                for known in self._streams.values()
                if known.missing
            ]
        # Without an inventory file every directory counts as known; with one, others are the server's own.
        others = () if self._recorded else stream_meta.directories(self._store)
        names = dict.fromkeys([*self._streams, *others])
        losses = (self._find_loss(account, name) for account, name in names if name != PROBE)
        return [lost for lost in losses if lost is not None]

    def check(self) -> None:
        """Check that the server will find each known stream (an external one is checked later). Raises `StreamLost`."""
        if self._external:
            return
        if lost := self.lost():
            raise stream_lost_error(lost)
        self._set_aside_unreadable()

    def _set_aside_unreadable(self) -> None:
        """Move away unreadable files that the server would skip and never write again, where no message is lost.

        These are streams without messages whose creation was interrupted, and consumers, which are created on demand.
        """
        for account, name in list(stream_meta.directories(self._store)):
            directory = self._directory(account, name)
            if (account, name) not in self._streams and stream_meta.find_damage(directory):
                damaged = [directory]
            else:
                damaged = list(stream_meta.damaged_consumers(directory))
            for part in damaged:
                place = self._aside / "unread" / account / part.relative_to(directory.parent)
                shutil.rmtree(place, ignore_errors=True)
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                part.rename(place)
                _log.warning("unreadable files moved away", directory=str(part), moved_to=str(place))

    def record_missing(self, account: str, name: str, created: str = "") -> StreamLost:
        """Record that the server lacks a known stream, or has another incarnation of it; return the error to raise."""
        reason = f"it was created again at {created}" if created else "the server does not have it"
        known = self._streams[account, name]
        self._streams[account, name] = msgspec.structs.replace(known, missing=reason)
        self._write()
        return stream_lost_error(
            [LostStream(account, name, reason, self._directory_text(account, name), known.created)]
        )

    def _find_loss(self, account: str, name: str) -> LostStream | None:
        directory, known = self._directory(account, name), self._streams.get((account, name))
        copied, reason = self._read_copy(account, name), stream_meta.find_damage(directory)
        is_copied = copied.is_whole(name)
        if not reason:
            present = stream_meta.read(directory)
            if known and known.created and present.created and present.created != known.created:
                return LostStream(
                    account, name, f"it was created again at {present.created}", str(directory), known.created
                )
            # The key belongs to exactly these files: with another one the server cannot read them.
            if is_copied and present.key != copied.key and (present.meta, present.sum) == (copied.meta, copied.sum):
                reason = f"{stream_meta.KEY} is missing or damaged"
            elif known and known.missing:
                return LostStream(account, name, known.missing, str(directory), known.created)
        if not reason or (known is None and not stream_meta.has_messages(directory)):
            return None  # never recorded and empty: its creation was interrupted
        repairable = is_copied and stream_meta.has_blocks(directory)
        return LostStream(account, name, reason, str(directory), known.created if known else "", repairable)

    # ── repair, while no server runs ────────────────────────────────────────────────────────────────────

    def repair(self, lost: LostStream) -> bool:
        """Restore the metadata of a stream from its copy; return whether the server should find the stream now."""
        if self._external:
            return False
        directory, known = self._directory(lost.account, lost.name), self._streams.get((lost.account, lost.name))
        if known and known.missing and not stream_meta.find_damage(directory):
            # Its files are intact: the next start checks whether the server has it.
            self._streams[lost.account, lost.name] = msgspec.structs.replace(known, missing="")
            self._write()
        if lost.repairable:
            damaged = stream_meta.read(directory)
            place = self._aside / "metadata" / lost.account / lost.name
            stream_meta.write(place, damaged)
            stream_meta.write(directory, self._read_copy(lost.account, lost.name))
        return self._find_loss(lost.account, lost.name) is None

    def accept(self, lost: LostStream, *, by: str, at: str) -> AcceptedLoss:
        """Accept the loss of a stream: move its remaining files away; the next start creates it again."""
        directory, aside = self._directory(lost.account, lost.name), ""
        if not self._external and directory.exists():
            place = self._aside / at.replace(":", "") / lost.account / lost.name
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            directory.rename(place)
            aside = str(place)
        shutil.rmtree(self._place / lost.account / lost.name, ignore_errors=True)
        loss = AcceptedLoss(lost.account, lost.name, lost.created, by, at, aside)
        self._streams.pop((lost.account, lost.name), None)
        self._accepted = (*self._accepted, loss)
        self._write()
        return loss

    @property
    def accepted(self) -> Sequence[AcceptedLoss]:
        """Accepted losses that are not yet on the audit trail."""
        return self._accepted

    def clear_accepted(self) -> None:
        """Forget the accepted losses once the audit trail has them."""
        if self._accepted:
            self._accepted = ()
            self._write()

    def rebuild(self) -> None:
        """Replace an unreadable inventory file by one made of the copies of metadata."""
        if self._file.exists():
            self._file.replace(self._file.with_name(f"{self._file.name}.unreadable"))
        self._streams = {(known.account, known.name): known for known in self._copies()}
        self._durable = True
        self._write()

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────

    def _directory_text(self, account: str, name: str) -> str:
        return "" if self._external else str(self._directory(account, name))

    def _directory(self, account: str, name: str) -> Path:
        return stream_meta.directory_of(self._store, account, name)

    def _copies(self) -> tuple[KnownStream, ...]:
        """Return the streams whose metadata has a copy."""
        names = [
            (file.parents[1].name, file.parent.name) for file in sorted(self._place.glob(f"*/*/{stream_meta.META}"))
        ]
        return tuple(KnownStream(account, name, self._read_copy(account, name).created) for account, name in names)

    def _read_copy(self, account: str, name: str) -> Metadata:
        return stream_meta.read(self._place / account / name)

    def _write(self) -> None:
        self._place.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = _Record(tuple(self._streams.values()), self._accepted)
        text = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
        write_private(self._file, text, durable=self._durable)


class AccountStreams:
    """The part of an inventory that concerns the account of a connection."""

    def __init__(self, inventory: Inventory, account: str) -> None:
        self._inventory = inventory
        self._account = account

    def verify(self, name: str, created: str) -> None:
        """Check that a known stream is still the same; `created` is empty where the server has none.

        Raises:
            StreamLost: it is missing, or was created again.
        """
        known = self._inventory.known(self._account, name)
        if known and (not created or (known.created and known.created != created)):
            raise self._inventory.record_missing(self._account, name, created)

    def record(self, name: str, created: str) -> None:
        """Record a stream that the server has now, and copy its metadata."""
        self._inventory.record(self._account, name, created)

    def copy_metadata(self, name: str) -> None:
        """Renew the copy of a stream's metadata."""
        self._inventory.copy_metadata(self._account, name)

    def copy_settings(self, name: str, settings: Mapping[str, Any]) -> None:
        """Keep the settings of a stream as they are before a migration."""
        self._inventory.copy_settings(self._account, name, settings)


def stream_lost_error(lost: Sequence[LostStream]) -> StreamLost:
    """Return the error with which a gateway stops because of lost streams."""
    first = lost[0]
    others = f" (and {', '.join(stream.title for stream in lost[1:])})" if lost[1:] else ""
    place = f" in {first.directory}" if first.directory else ""
    return StreamLost(
        f"stream '{first.title}'{others} existed and cannot be read: {first.reason}{place}; it is not created again "
        "and nothing was changed: run `sensegate doctor CONFIG --repair`"
    )
