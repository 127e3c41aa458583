"""The keys by which plates and free ids of video metadata are hidden, in one file beside the store (0600).

A plate's key is that of the day (UTC+8) on which it was seen. It is random, and destroyed with the file's next writing
some days later: from then on nobody, we included, can tell what a pseudonym of that day stood for. What is seen outside
of these days is hidden under today's key together with its day. The key of words is made once and stays.
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

LOOK_S = 600.0
_EPOCH = date(1970, 1, 1)
_AHEAD_DAYS = 1
"""A camera's clock may be ahead by so much; keys of later days are not made, or anybody could have many made."""

_log = structlog.get_logger("keyring")


class _Kept(msgspec.Struct, frozen=True):
    """The file."""

    word: str
    days: dict[int, str]
    """Day since 1970 -> key, hex."""
    format: int = 1


class _Basis(NamedTuple):
    kinds: frozenset[str]
    fields: frozenset[str]
    last_day: int


class Keyring:
    """A `video.form.Veil` whose keys outlive the process and do not outlive their time."""

    def __init__(
        self,
        file: Path,
        clock: Clock,
        *,
        days: int = 1,
        basis: Iterable[BasisConfig] = (),
        known: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Read the keys, or make them; `known`: a text is the name of a registered device, which is not hidden.

        Raises:
            ConfigError: the file cannot be read, or others may read it.
        """
        self._file = file
        self._clock = clock
        self._life = days
        self._known = known
        self._basis = [
            _Basis(frozenset(basi.kinds), frozenset(basi.fields), (date.fromisoformat(basi.expires) - _EPOCH).days)
            for basi in basis
        ]
        self._word, self._days = self._read()
        self.turn()

    def plate(self, number: str, at: int) -> str:
        """Return the pseudonym of a number plate seen at `at` (µs UTC). Raises `StoreFull`."""
        day, today = day_of(at), day_of(self._clock.now())
        form = normalised_plate(number)
        if today - self._life <= day <= today + _AHEAD_DAYS:
            return pseudonym(self._key(day), "plate", form)
        return pseudonym(self._key(today), f"plate of day {day}", form)

    def identifier(self, text: str) -> str:
        """Return the pseudonym of a text, always the same; the name of a registered device as it is."""
        return text if self._known(text) else pseudonym(self._word, "word", text)

    def permits(self, kind: str, field: str) -> bool:
        """Say whether a written legal basis that has not expired lets a field of this kind of object pass."""
        if not self._basis:
            return False
        today = day_of(self._clock.now())
        return any(kind in basi.kinds and field in basi.fields and today <= basi.last_day for basi in self._basis)

    def turn(self) -> None:
        """Destroy the keys whose time has come. Raises `StoreFull`."""
        today = day_of(self._clock.now())
        # One that is too far ahead was made by a clock of ours that was wrong.
        kept = {day: key for day, key in self._days.items() if today - self._life <= day <= today + _AHEAD_DAYS}
        if len(kept) < len(self._days) or not self._file.exists():
            self._write(kept)

    async def run(self) -> None:
        """Destroy keys in time although nothing comes, until cancelled."""
        while True:
            try:
                self.turn()
            except StoreFull as why:
                _log.warning("keys of past days are not destroyed yet; tried again", why=str(why))
            await self._clock.sleep(LOOK_S)

    def _key(self, day: int) -> bytes:
        key = self._days.get(day)
        if key is None:
            self.turn()
            # On disk before it is used: after a crash the day goes on under the same key.
            self._write({**self._days, day: (key := secrets.token_bytes(32))})
        return key

    def _read(self) -> tuple[bytes, Mapping[int, bytes]]:
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept)
            if self._file.stat().st_mode & 0o077:
                raise ConfigError("others may read it", file=str(self._file), remedy="chmod 600")
            return bytes.fromhex(kept.word), {day: bytes.fromhex(key) for day, key in kept.days.items()}
        except FileNotFoundError:
            return secrets.token_bytes(32), {}
        except (OSError, ValueError) as why:
            # The text of the error could quote the file.
            remedy = "restore it; without it pseudonyms begin anew: then remove it"
            raise ConfigError(f"cannot be read: {type(why).__name__}", file=str(self._file), remedy=remedy) from None

    def _write(self, days: Mapping[int, bytes]) -> None:
        kept = _Kept(self._word.hex(), {day: key.hex() for day, key in sorted(days.items())})
        fresh = self._file.with_suffix(".new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(msgspec.json.encode(kept))
                out.flush()
                os.fsync(out.fileno())
            old = self._file.with_suffix(".old")
            old.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.link(self._file, old)
            fresh.replace(self._file)
            _blank(old)
        except OSError as why:
            raise StoreFull(f"{self._file}: the keys of video metadata cannot be written: {why.strerror}") from why
        self._days = dict(days)


def _blank(file: Path) -> None:
    """Write zeros over a file that is about to go, as far as its disk lets us: its keys must not stay behind."""
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as old:
        old.write(bytes(os.fstat(old.fileno()).st_size))
        old.flush()
        os.fsync(old.fileno())
        file.unlink()
