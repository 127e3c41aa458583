"""The record of the streams that exist, kept beside the store: one that is missing then is lost, not new.

    engine/known/streams.json               account, name and time of creation of each; losses that were accepted
    engine/known/<account>/<stream>/meta.*  a copy of the server's metadata files, renewed whenever we change a stream

It is read before each start of the server, which would pass over a stream with damaged metadata in silence; whoever
then created it anew (we ourselves, or the server for the first MQTT client) would delete its blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec
import structlog

from sensegate.bus import stream_meta
from sensegate.bus.process import write_private
from sensegate.bus.stream_meta import Metadata
from sensegate.config import EngineConfig
from sensegate.errors import EngineError, StreamLost

_log = structlog.get_logger("bus")

DIRECTORY, FILE, ASIDE = "known", "streams.json", "aside"
EXTERNAL_FILE = "external.json"
"""In its place where the server is another's."""
PROBE = "PROBE"
"""Stream of each account into which the watch over the store writes; nothing is lost with it."""


class KnownStream(msgspec.Struct, frozen=True):
    """A stream that was created or seen."""

    account: str
    name: str
    created: str = ""
    """As the server says it: the identity of its life. Empty: not known."""
    missing: str = ""
    """Why the server, though running, did not have it; empty: it had."""


class AcceptedLoss(msgspec.Struct, frozen=True):
    """A stream that an operator gave up: it is created anew."""

    account: str
    name: str
    created: str
    by: str
    at: str
    aside: str = ""
    """Where what was left of it lies."""


class LostStream(msgspec.Struct, frozen=True):
    """A stream that existed and that the server does not have, or not any more."""

    account: str
    name: str
    why: str
    directory: str = ""
    """Empty: the server is another's."""
    created: str = ""
    repairable: bool = False

    @property
    def title(self) -> str:
        """The stream, as commands name it."""
        return f"{self.account}/{self.name}"


class _Record(msgspec.Struct, frozen=True):
    streams: tuple[KnownStream, ...] = ()
    accepted: tuple[AcceptedLoss, ...] = ()
    format: int = 1


class Inventory:
    """Of one engine. `load` first."""

    def __init__(self, directory: Path, *, external: bool = False, durable: bool = False) -> None:
        """Take the engine's directory.

        Args:
            directory: holds the store, and is to hold the record.
            external: the server runs elsewhere: only its answers can be judged, not its files.
            durable: what is written must outlive a power cut from the first moment on.
        """
        self._place = directory / DIRECTORY
        self._file = self._place / (EXTERNAL_FILE if external else FILE)
        self._store = directory / "store"
        self._aside = directory / ASIDE
        self._external = external
        self._durable = durable
        self._streams: dict[tuple[str, str], KnownStream] = {}
        self._accepted: tuple[AcceptedLoss, ...] = ()
        self._recorded = False

    @classmethod
    def of(cls, config: EngineConfig, directory: Path) -> Self:
        """Return that of an engine of this configuration; `directory` is the engine's."""
        return cls(directory, external=bool(config.url), durable=config.durability == "power")

    def load(self) -> Self:
        """Read the record.

        Raises:
            EngineError: it is there and cannot be read.
        """
        try:
            record = msgspec.json.decode(self._file.read_bytes(), type=_Record)
        except FileNotFoundError:
            record = _Record(self._copies())
        except (OSError, msgspec.DecodeError) as why:
            raise EngineError(
                f"{self._file} cannot be read ({why}); it names the streams that must exist: restore it, or "
                "`sensegate doctor CONFIG --repair` writes it again from the copies beside it"
            ) from why
        else:
            self._durable = True  # what is new from here on is a change of a store that is in use
        self._streams = {(known.account, known.name): known for known in record.streams}
        self._accepted = record.accepted
        self._recorded = bool(record.streams or record.accepted)
        return self

    # ── what exists ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def streams(self) -> Sequence[KnownStream]:
        """All that are known."""
        return tuple(self._streams.values())

    def known(self, account: str, name: str) -> KnownStream | None:
        """Return what is known of a stream; None: there never was one, or its loss was accepted."""
        return self._streams.get((account, name))

    def expect(self, account: str, name: str) -> None:
        """Take it for known that a stream exists, because something else bears witness of it."""
        given_up = any((loss.account, loss.name) == (account, name) for loss in self._accepted)
        if not given_up and (account, name) not in self._streams:
            self._streams[account, name] = KnownStream(account, name)

    def note(self, account: str, name: str, created: str) -> None:
        """Record a stream that the server has now, with a copy of its metadata."""
        self.copy(account, name)
        fresh = KnownStream(account, name, created)
        if self._streams.get((account, name)) != fresh:
            self._streams[account, name] = fresh
            self._write()

    def copy(self, account: str, name: str) -> None:
        """Renew the copy of a stream's metadata, if the server's files are whole."""
        if self._external:
            return
        present, kept = stream_meta.read(self._directory(account, name)), self._copied(account, name)
        if present == kept:
            return
        if not present.is_whole(name):
            _log.error("metadata of a stream is damaged on the disk; a copy is kept", stream=f"{account}/{name}")
            return
        stream_meta.write(self._place / account / name, present, durable=self._durable or bool(kept.meta))

    # ── what is missing ─────────────────────────────────────────────────────────────────────────────────

    def lost(self) -> list[LostStream]:
        """Return the streams that the server would not find in the store, before it starts, or did not have before."""
        if self._external:
            return [
                LostStream(known.account, known.name, known.missing, "", known.created)
                for known in self._streams.values()
                if known.missing
            ]
        # Without a record every directory bears witness. With one, what it does not name is the server's own.
        others = () if self._recorded else stream_meta.directories(self._store)
        names = dict.fromkeys([*self._streams, *others])
        judged = (self._judged(account, name) for account, name in names if name != PROBE)
        return [lost for lost in judged if lost is not None]

    def check(self) -> None:
        """See that the server will find each known stream; an external one is asked later. Raises `StreamLost`."""
        if self._external:
            return
        if lost := self.lost():
            raise refusal(lost)
        self._clear()

    def _clear(self) -> None:
        """Set aside what the server would pass over and never write again, where nothing is lost with it.

        That is a stream without messages whose creation was cut off, and consumers: who needs one makes it again.
        """
        for account, name in list(stream_meta.directories(self._store)):
            directory = self._directory(account, name)
            if (account, name) not in self._streams and stream_meta.fault(directory):
                damaged = [directory]
            else:
                damaged = list(stream_meta.damaged_consumers(directory))
            for part in damaged:
                place = self._aside / "unread" / account / part.relative_to(directory.parent)
                shutil.rmtree(place, ignore_errors=True)
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                part.rename(place)
                _log.warning("what the server could not read is set aside", directory=str(part), aside=str(place))

    def missing(self, account: str, name: str, created: str = "") -> StreamLost:
        """Return the error for a known stream that the server does not have, or has with another life."""
        why = f"it was created anew at {created}" if created else "the server does not have it"
        known = self._streams[account, name]
        self._streams[account, name] = msgspec.structs.replace(known, missing=why)
        self._write()
        return refusal([LostStream(account, name, why, self._shown(account, name), known.created)])

    def _judged(self, account: str, name: str) -> LostStream | None:
        directory, known = self._directory(account, name), self._streams.get((account, name))
        kept, why = self._copied(account, name), stream_meta.fault(directory)
        whole = kept.is_whole(name)
        if not why:
            present = stream_meta.read(directory)
            if known and known.created and present.created and present.created != known.created:
                return LostStream(
                    account, name, f"it was created anew at {present.created}", str(directory), known.created
                )
            # The key belongs to these very files: with another one the server could not read them.
            if whole and present.key != kept.key and (present.meta, present.sum) == (kept.meta, kept.sum):
                why = f"{stream_meta.KEY} is missing or damaged"
            elif known and known.missing:
                return LostStream(account, name, known.missing, str(directory), known.created)
        if not why or (known is None and not stream_meta.has_messages(directory)):
            return None  # what was never recorded and holds nothing: its creation was cut off
        repairable = whole and stream_meta.has_blocks(directory)
        return LostStream(account, name, why, str(directory), known.created if known else "", repairable)

    # ── mending, while nothing runs ─────────────────────────────────────────────────────────────────────

    def repair(self, lost: LostStream) -> bool:
        """Write the metadata of a stream again from its copy; return whether the server should find it now."""
        if self._external:
            return False
        directory, known = self._directory(lost.account, lost.name), self._streams.get((lost.account, lost.name))
        if known and known.missing and not stream_meta.fault(directory):
            # Its files are whole, perhaps again: the next start looks whether the server has it.
            self._streams[lost.account, lost.name] = msgspec.structs.replace(known, missing="")
            self._write()
        if lost.repairable:
            damaged = stream_meta.read(directory)
            place = self._aside / "metadata" / lost.account / lost.name
            stream_meta.write(place, damaged)
            stream_meta.write(directory, self._copied(lost.account, lost.name))
        return self._judged(lost.account, lost.name) is None

    def accept(self, lost: LostStream, *, by: str, at: str) -> AcceptedLoss:
        """Give a stream up: what is left of it is set aside, and it is created anew at the next start."""
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
        """Losses that were accepted and are not yet on the trail."""
        return self._accepted

    def settle(self) -> None:
        """Forget the accepted losses: the trail has them."""
        if self._accepted:
            self._accepted = ()
            self._write()

    def rebuild(self) -> None:
        """Write the record again, from the copies of metadata, in place of one that cannot be read."""
        if self._file.exists():
            self._file.replace(self._file.with_name(f"{self._file.name}.unreadable"))
        self._streams = {(known.account, known.name): known for known in self._copies()}
        self._durable = True
        self._write()

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────

    def _shown(self, account: str, name: str) -> str:
        return "" if self._external else str(self._directory(account, name))

    def _directory(self, account: str, name: str) -> Path:
        return stream_meta.directory_of(self._store, account, name)

    def _copies(self) -> tuple[KnownStream, ...]:
        """Return the streams of which there is a copy of the metadata."""
        names = [
            (file.parents[1].name, file.parent.name) for file in sorted(self._place.glob(f"*/*/{stream_meta.META}"))
        ]
        return tuple(KnownStream(account, name, self._copied(account, name).created) for account, name in names)

    def _copied(self, account: str, name: str) -> Metadata:
        return stream_meta.read(self._place / account / name)

    def _write(self) -> None:
        self._place.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = _Record(tuple(self._streams.values()), self._accepted)
        text = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
        write_private(self._file, text, durable=self._durable)


class AccountStreams:
    """The part of an inventory that the streams of one account have: what goes with a connection."""

    def __init__(self, inventory: Inventory, account: str) -> None:
        self._inventory = inventory
        self._account = account

    def judge(self, name: str, created: str) -> None:
        """See that a stream which existed is the same one now; `created` is empty where the server has none.

        Raises:
            StreamLost: it is missing, or was created anew.
        """
        known = self._inventory.known(self._account, name)
        if known and (not created or (known.created and known.created != created)):
            raise self._inventory.missing(self._account, name, created)

    def note(self, name: str, created: str) -> None:
        """Record a stream as it is now."""
        self._inventory.note(self._account, name, created)

    def copy(self, name: str) -> None:
        """Keep a copy of the metadata before it is changed."""
        self._inventory.copy(self._account, name)


def refusal(lost: Sequence[LostStream]) -> StreamLost:
    """Return the one sentence with which a gateway stops."""
    first = lost[0]
    others = f" (and {', '.join(stream.title for stream in lost[1:])})" if lost[1:] else ""
    place = f" in {first.directory}" if first.directory else ""
    return StreamLost(
        f"stream '{first.title}'{others} existed and cannot be read: {first.why}{place}; it is not created anew and "
        "nothing was changed: run `sensegate doctor CONFIG --repair`"
    )
