"""Generated secrets: made here, shown once, kept as salted fast hashes.

They carry 192 random bits, so a slow hash would add nothing but minutes to a storm of reconnecting devices. Passwords
that people choose are another matter and are not stored here.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from hashlib import blake2b

import msgspec

PASSWORD_BYTES = 24
_SALT_BYTES = 16
_DIGEST_BYTES = 32


class HashedSecret(msgspec.Struct, frozen=True, array_like=True):
    """A secret that can be recognised but not read back."""

    salt: bytes
    digest: bytes


class Credentials(msgspec.Struct, frozen=True, array_like=True):
    """The secret in force, and for a grace time after a rotation the one before."""

    current: HashedSecret | None = None
    previous: HashedSecret | None = None
    previous_until: int = 0
    """The previous secret is good before this time (µs UTC)."""
    digest: bytes = b""
    """What HTTP Digest needs of the current secret, sealed (`digests`); empty: the device speaks no VIID."""
    previous_digest: bytes = b""


class Proof(msgspec.Struct, frozen=True):
    """That a secret was right."""

    until: int
    """When it stops being right (µs UTC); 0: no end is known."""


def make_secret() -> str:
    """Return a new secret of 192 random bits in 32 characters of ``[A-Za-z0-9_-]``."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def _digest(secret: str, salt: bytes) -> bytes:
    raw = secret.encode("utf-8", "surrogatepass")
    return blake2b(raw, digest_size=_DIGEST_BYTES, salt=salt, person=b"sensegate").digest()


def hash_secret(secret: str) -> HashedSecret:
    """Return the salted hash of a generated secret."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return HashedSecret(salt, _digest(secret, salt))


def matches(sealed: HashedSecret, secret: str) -> bool:
    """Return whether `secret` is the sealed one, in a time that does not depend on where they differ."""
    return hmac.compare_digest(sealed.digest, _digest(secret, sealed.salt))


_NOBODY = Credentials(current=hash_secret(make_secret()), previous=hash_secret(make_secret()))


def verify(credentials: Credentials | None, secret: str, now: int) -> Proof | None:
    """Return a proof if `secret` is the current one, or the previous one within its grace; else None.

    None for `credentials` (an unknown device) takes as long as a wrong secret.
    """
    known = credentials or _NOBODY
    current = known.current is not None and matches(known.current, secret)
    previous = known.previous is not None and matches(known.previous, secret)
    if credentials is None:
        return None
    if current:
        return Proof(0)
    if previous and now < known.previous_until:
        return Proof(known.previous_until)
    return None


def issue(digest: Callable[[str], bytes] = lambda _secret: b"") -> tuple[str, Credentials]:
    """Return a new secret, to be shown once, and what is kept of it; `digest`: what HTTP Digest needs of it, sealed."""
    secret = make_secret()
    return secret, Credentials(current=hash_secret(secret), digest=digest(secret))


def rotate(
    credentials: Credentials, *, now: int, grace_s: float, digest: Callable[[str], bytes] = lambda _secret: b""
) -> tuple[str, Credentials]:
    """Return a new secret and what is kept; the one in force till now stays good for `grace_s`."""
    secret = make_secret()
    until = now + round(grace_s * 1e6) if grace_s > 0 and credentials.current else 0
    before = (credentials.current, until, credentials.digest) if until else (None, 0, b"")
    return secret, Credentials(hash_secret(secret), before[0], before[1], digest(secret), before[2])
