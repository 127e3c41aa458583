"""Passwords that people choose: what they must be, and their slow hash (argon2id)."""

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
"""A password so long needs no kinds of characters."""
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
"""Beginnings of half of all leaked passwords; a password that is one of them and a little more is none."""
_LITTLE = 6
AT_ONCE = 2
WAITING_MAX = 40
T = TypeVar("T")


def weakness(password: str, *, name: str = "") -> str:
    """Return what is wrong with a new password, or an empty string; `name`: of whom it is."""
    return next(_faults(password, name), "")


def _faults(password: str, name: str) -> Iterator[str]:
    plain = password.casefold()
    if len(password) < LENGTH_MIN:
        yield f"has {len(password)} characters; at least {LENGTH_MIN}"
    if len(password.encode("utf-8", "surrogatepass")) > BYTES_MAX:
        yield f"is longer than {BYTES_MAX} bytes"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Cn"} for character in password):
        yield "holds control characters"
    if name and name.casefold() in plain:
        yield "holds the name of its owner"
    if len(set(plain)) < DISTINCT_MIN:
        yield f"repeats itself; at least {DISTINCT_MIN} different characters"
    if found := next((word for word in _COMMON if word in plain and len(plain) - len(word) <= _LITTLE), ""):
        yield f"is '{found}' and a little more, which is guessed first"
    kinds = sum(any(is_one(character) for character in password) for is_one in _KINDS)
    if kinds < KINDS_MIN and len(password) < PHRASE_MIN:
        yield f"needs {KINDS_MIN} of: small letters, capitals, digits, signs; or {PHRASE_MIN} characters of any kind"


_KINDS: tuple[Callable[[str], bool], ...] = (
    str.islower,
    str.isupper,
    str.isdigit,
    lambda character: not character.isalnum(),
    # Scripts without upper and lower case are a kind of their own.
    lambda character: character.isalpha() and not character.isascii(),
)


def require_strong(password: str, *, name: str = "") -> None:
    """Return if a new password may be taken. Raises `ConfigError`."""
    if why := weakness(password, name=name):
        raise ConfigError(f"the new password {why}", key="password", remedy="choose another one")


def generate_password() -> str:
    """Return a password for somebody who will change it at the first sign-in."""
    while True:
        text = secrets.token_urlsafe(15)
        if not weakness(text):
            return text


class PasswordHashes:
    """Makes and compares slow hashes beside the loop: each takes 64 MiB and a core for some 50 ms."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return what is kept of a password. Raises `Overloaded`."""
        return await self._beside(_hasher.hash, password)

    async def verify(self, kept: str, password: str) -> bool:
        """Return whether a password is that of a hash; an empty hash takes as long as any other and is never right.

        Raises:
            Overloaded: so many wait already.
        """
        return await self._beside(_right, kept, password) and bool(kept)

    async def _beside(self, work: Callable[..., T], *given: str) -> T:
        if self._waiting >= WAITING_MAX:
            raise Overloaded("too many sign in at once; try again")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work, *given)
        finally:
            self._waiting -= 1


def _right(kept: str, password: str) -> bool:
    try:
        return _hasher.verify(kept or _of_nobody(), password)
    except (VerificationError, InvalidHashError):
        return False


_hasher = PasswordHasher(type=Type.ID)


@cache
def _of_nobody() -> str:
    # Made when it is first compared with, not when the module is read: every command would wait for it.
    return _hasher.hash(secrets.token_urlsafe(24))
