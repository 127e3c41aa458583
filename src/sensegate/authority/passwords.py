"""Passwords that people choose: rules, and slow hashes (argon2id)."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from sensegate.errors import ConfigError, Overloaded

LENGTH_MIN, BYTES_MAX = 12, 256
KINDS_MIN = 3
PHRASE_MIN = 24
"""Length from which no mix of character kinds is required."""
DISTINCT_MIN = 6
_COMMON = (
    "password",
    "passw0rd",
    "admin",
    "administrator",
    "qwerty",
    "asdfgh",
    "123456",
    "654321",
    "111111",
    "888888",
    "woaini",
    "5201314",
    "iloveyou",
    "letmein",
    "welcome",
    "sensegate",
    "guangdong",
    "changeme",
    "default",
)
"""Parts of half of all leaked passwords; a password that adds only a few characters to one is rejected."""
_EXTRA_MAX = 6
CONCURRENT_MAX = 2
WAITING_MAX = 40
T = TypeVar("T")


def weakness(password: str, *, name: str = "") -> str:
    """Return the fault of a new password of the person `name`; empty: none."""
    return next(_weaknesses(password, name), "")


def _weaknesses(password: str, name: str) -> Iterator[str]:
    folded = password.casefold()
    if len(password) < LENGTH_MIN:
        yield f"has {len(password)} characters; at least {LENGTH_MIN}"
    if len(password.encode("utf-8", "surrogatepass")) > BYTES_MAX:
        yield f"is longer than {BYTES_MAX} bytes"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Cn"} for character in password):
        yield "contains control characters"
    if name and name.casefold() in folded:
        yield "contains the name of its owner"
    if len(set(folded)) < DISTINCT_MIN:
        yield f"has too few different characters; at least {DISTINCT_MIN}"
    if common := next((word for word in _COMMON if word in folded and len(folded) - len(word) <= _EXTRA_MAX), ""):
        yield f"is the common password '{common}' with few changes"
    kinds = sum(any(is_kind(character) for character in password) for is_kind in _KINDS)
    if kinds < KINDS_MIN and len(password) < PHRASE_MIN:
        yield f"needs {KINDS_MIN} of: lower case, upper case, digits, symbols; or {PHRASE_MIN} characters of any kind"


_KINDS: tuple[Callable[[str], bool], ...] = (
    str.islower,
    str.isupper,
    str.isdigit,
    lambda character: not character.isalnum(),
    # Scripts without case, such as Chinese, are a kind of their own.
    lambda character: character.isalpha() and not character.isascii(),
)


def require_strong(password: str, *, name: str = "") -> None:
    """Require that a new password follows the rules. Raises `ConfigError`."""
    if why := weakness(password, name=name):
        raise ConfigError(f"the new password {why}", key="password", remedy="choose another one")


def generate_password() -> str:
    """Return a random initial password, to be changed at the first sign-in."""
    while True:
        text = secrets.token_urlsafe(15)
        if not weakness(text):
            return text


class PasswordHashes:
    """Slow hashes, computed in threads: each takes 64 MiB and about 50 ms of a core."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)
        self._waiting = 0
        self._running: set[asyncio.Task[object]] = set()

    async def hash(self, password: str) -> str:
        """Return the hash of a password. Raises `Overloaded`."""
        return await self._in_thread(_hasher.hash, password)

    async def verify(self, stored: str, password: str) -> bool:
        """Return whether a password matches a hash; an empty hash never matches, in the same time.

        Raises:
            Overloaded: too many computations are waiting.
        """
        return await self._in_thread(_is_match, stored, password) and bool(stored)

    async def _in_thread(self, work: Callable[..., T], *arguments: str) -> T:
        if self._waiting >= WAITING_MAX:
            raise Overloaded("too many sign in at once; try again")
        self._waiting += 1
        # Not cancelled with its caller: the thread cannot be, and must hold its slot until it ends.
        running = asyncio.create_task(self._in_slot(work, *arguments))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.shield(running)

    async def _in_slot(self, work: Callable[..., T], *arguments: str) -> T:
        try:
            async with self._slots:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1


def _is_match(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored or _dummy_hash(), password)
    except (VerificationError, InvalidHashError):
        return False


_hasher = PasswordHasher(type=Type.ID)


@cache
def _dummy_hash() -> str:
    # Computed on first use: at import every command would wait for it.
    return _hasher.hash(secrets.token_urlsafe(24))
