"""Generated secrets: created here, shown once, stored as salted fast hashes.

With 192 random bits they need no slow hash, which would only prolong a storm of reconnecting devices. Passwords that
people choose are handled in `passwords`.
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
    """The salted hash of a secret."""

    salt: bytes
    digest: bytes


class Credentials(msgspec.Struct, frozen=True, array_like=True):
    """The current secret, and for a grace period after a rotation the previous one."""

    current: HashedSecret | None = None
    previous: HashedSecret | None = None
    previous_until: int = 0
    """End of the validity of the previous secret (µs UTC)."""
    digest: bytes = b""
    """Encrypted HTTP Digest hash of the current secret (`viid.password_digests`); empty: no VIID."""
    previous_digest: bytes = b""


class Proof(msgspec.Struct, frozen=True):
    """The proof that a secret was right."""

    until: int
    """End of the validity of the secret (µs UTC); 0: none."""


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
    """Return whether a secret has this hash; takes constant time."""
    return hmac.compare_digest(sealed.digest, _digest(secret, sealed.salt))


_NOBODY = Credentials(current=hash_secret(make_secret()), previous=hash_secret(make_secret()))


def verify(credentials: Credentials | None, secret: str, now: int) -> Proof | None:
    """Return a proof if `secret` is the current one, or the previous one within its grace period; else None.

    None for `credentials` (an unknown device) takes as long as a wrong secret.
    """
    checked = credentials or _NOBODY
    current = checked.current is not None and matches(checked.current, secret)
    previous = checked.previous is not None and matches(checked.previous, secret)
    if credentials is None:
        return None
    if current:
        return Proof(0)
    if previous and now < checked.previous_until:
        return Proof(checked.previous_until)
    return None


def issue(digest: Callable[[str], bytes] = lambda _secret: b"") -> tuple[str, Credentials]:
    """Return a new secret, to be shown once, and its hashes; `digest` returns its encrypted HTTP Digest hash."""
    secret = make_secret()
    return secret, Credentials(current=hash_secret(secret), digest=digest(secret))


def rotate(
    credentials: Credentials, *, now: int, grace_s: float, digest: Callable[[str], bytes] = lambda _secret: b""
) -> tuple[str, Credentials]:
    """Return a new secret and its hashes; the current one stays valid for `grace_s`."""
    secret = make_secret()
    until = now + round(grace_s * 1e6) if grace_s > 0 and credentials.current else 0
    before = (credentials.current, until, credentials.digest) if until else (None, 0, b"")
    return secret, Credentials(hash_secret(secret), before[0], before[1], digest(secret), before[2])
