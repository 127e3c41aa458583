"""The keys that pseudonymise plates and free ids of video metadata, in a file next to the store (0600).

A plate is pseudonymised with the random key of the day (UTC+8) on which it was seen. That key is destroyed some days
later; from then on pseudonyms of that day cannot be resolved by anybody. Sightings outside of these days use today's
key together with their day. The key of other identifiers is created once and kept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from sensegate.clock import Clock
from sensegate.config.video import BasisConfig
from sensegate.errors import ConfigError, StoreFull
from sensegate.video.pseudonyms import day_of, normalised_plate, pseudonym

ROTATION_CHECK_S = 600.0
_EPOCH = date(1970, 1, 1)
_FUTURE_DAYS = 1
"""Tolerated days in the future, for camera clocks that are ahead; limits the number of keys."""

_log = structlog.get_logger("keyring")


class _KeyFile(msgspec.Struct, frozen=True):
    """The content of the key file."""

    word: str
    days: dict[int, str]
    """Keys (hex) by day since 1970."""
    format: int = 1


class _Basis(NamedTuple):
    kinds: frozenset[str]
    fields: frozenset[str]
    last_day: int


class Keyring:
    """A `video.format.Pseudonymiser` with persistent keys that are destroyed in time."""

    def __init__(
        self,
        file: Path,
        clock: Clock,
        *,
        days: int = 1,
        basis: Iterable[BasisConfig] = (),
        known: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Load or create the keys; `known` returns whether a text is a registered device, which is not pseudonymised.

        Raises:
            ConfigError: the file cannot be read, or is readable by others.
        """
        self._file = file
        self._clock = clock
        self._retention_days = days
        self._known = known
        self._basis = [
            _Basis(frozenset(basi.kinds), frozenset(basi.fields), (date.fromisoformat(basi.expires) - _EPOCH).days)
            for basi in basis
        ]
        self._word, self._days = self._read()
        try:
            self._remove_old()
        except OSError as why:
            raise StoreFull(f"{self._file}: former keys cannot be destroyed: {why.strerror}") from why
        self.expire_keys()

    def plate(self, number: str, at: int) -> str:
        """Return the pseudonym of a number plate seen at `at` (µs UTC). Raises `StoreFull`."""
        day, today = day_of(at), day_of(self._clock.now())
        form = normalised_plate(number)
        if today - self._retention_days <= day <= today + _FUTURE_DAYS:
            return pseudonym(self._key(day), "plate", form)
        return pseudonym(self._key(today), f"plate of day {day}", form)

    def identifier(self, text: str) -> str:
        """Return the permanent pseudonym of a text; the name of a registered device is returned unchanged."""
        return text if self._known(text) else pseudonym(self._word, "word", text)

    def permits(self, kind: str, field: str) -> bool:
        """Return whether a valid written legal basis permits a field of this kind of object."""
        if not self._basis:
            return False
        today = day_of(self._clock.now())
        return any(kind in basi.kinds and field in basi.fields and today <= basi.last_day for basi in self._basis)

    def expire_keys(self) -> None:
        """Destroy expired keys. Raises `StoreFull`."""
        today = day_of(self._clock.now())
        # A key too far in the future was created while our own clock was wrong.
        kept = {
            day: key for day, key in self._days.items() if today - self._retention_days <= day <= today + _FUTURE_DAYS
        }
        if len(kept) < len(self._days) or not self._file.exists():
            self._write(kept)

    async def run(self) -> None:
        """Destroy expired keys periodically, until cancelled."""
        while True:
            try:
                self.expire_keys()
            except StoreFull as why:
                _log.warning("expired keys not destroyed; retrying", reason=str(why))
            await self._clock.sleep(ROTATION_CHECK_S)

    def _key(self, day: int) -> bytes:
        key = self._days.get(day)
        if key is None:
            self.expire_keys()
            # Stored before it is used, so that after a crash the day keeps its key.
            self._write({**self._days, day: (key := secrets.token_bytes(32))})
        return key

    def _read(self) -> tuple[bytes, Mapping[int, bytes]]:
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_KeyFile)
            if self._file.stat().st_mode & 0o077:
                raise ConfigError("the file is readable by others", file=str(self._file), remedy="chmod 600")
            return bytes.fromhex(kept.word), {day: bytes.fromhex(key) for day, key in kept.days.items()}
        except FileNotFoundError:
            return secrets.token_bytes(32), {}
        except (OSError, ValueError) as why:
            # The text of the error could quote the content of the file.
            remedy = "restore the file, or remove it to start with new pseudonyms"
            raise ConfigError(
                f"the file cannot be read: {type(why).__name__}", file=str(self._file), remedy=remedy
            ) from None

    def _remove_old(self) -> Path:
        """Destroy the former keys that a crash left; return where the next ones are held until they are replaced."""
        old = self._file.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            if old.samefile(self._file):
                old.unlink()  # the crash came before the file was replaced
            else:
                _blank(old)
        return old

    def _write(self, days: Mapping[int, bytes]) -> None:
        kept = _KeyFile(self._word.hex(), {day: key.hex() for day, key in sorted(days.items())})
        fresh = self._file.with_suffix(".new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(msgspec.json.encode(kept))
                out.flush()
                os.fsync(out.fileno())
            old = self._remove_old()
            with contextlib.suppress(FileNotFoundError):
                os.link(self._file, old)
            fresh.replace(self._file)
            _blank(old)
        except OSError as why:
            raise StoreFull(f"{self._file}: the keys of video metadata cannot be written: {why.strerror}") from why
        self._days = dict(days)


def _blank(file: Path) -> None:
    """Overwrite a file with zeros and delete it, so that its keys do not stay on the disk."""
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as old:
        old.write(bytes(os.fstat(old.fileno()).st_size))
        old.flush()
        os.fsync(old.fileno())
        file.unlink()
