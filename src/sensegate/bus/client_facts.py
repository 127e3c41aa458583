"""Signed facts about a client, with which a front opens a connection to the broker behind it in the client's name.

They stand in the place of the password. The auth callout checks signature and age, and decides on the client as if it
had connected itself: by its true address and client id, and a device without asking for its password again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

import msgspec

PREFIX = "sgfacts1."
AGE_MAX_S = 30.0
"""Facts are valid for so long; a clock may be off by as much."""
REMEMBERED_MAX = 100_000
"""Most nonces of valid facts that are remembered."""


class ClientFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a client that a front signs for the broker behind it."""

    user: str
    client_id: str
    address: str
    issued: int
    """µs UTC."""
    nonce: str
    is_device: bool
    """True if the front has checked the credential of a device; of others `password` is what the client sent."""
    password: str = ""


def key_of(issuer_seed: bytes) -> bytes:
    """Return the key of facts, derived from the seed of the callout's issuer."""
    return hmac.new(issuer_seed, b"sensegate client facts", hashlib.sha256).digest()


def sign(facts: ClientFacts, key: bytes) -> str:
    """Return the password that carries facts."""
    body = base64.urlsafe_b64encode(msgspec.msgpack.encode(facts)).decode()
    return f"{PREFIX}{body}.{_signature(body, key)}"


def new_nonce() -> str:
    """Return a value that no other facts have."""
    return secrets.token_hex(12)


def _signature(body: str, key: bytes) -> str:
    return hmac.new(key, body.encode(), hashlib.sha256).hexdigest()


class FactsVerifier:
    """Checks facts; each is valid once."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._used: dict[str, int] = {}

    def verify(self, password: str, user: str, now: int) -> ClientFacts | None:
        """Return the facts of a password; None: it holds none, or they are forged, old, used, or another user's."""
        body, _, signature = password.removeprefix(PREFIX).partition(".")
        if not password.startswith(PREFIX) or not hmac.compare_digest(
            signature.encode("utf-8", "surrogatepass"), _signature(body, self._key).encode()
        ):
            return None
        facts = msgspec.msgpack.decode(base64.urlsafe_b64decode(body), type=ClientFacts)
        if facts.user != user or abs(now - facts.issued) > AGE_MAX_S * 1e6 or facts.nonce in self._used:
            return None
        while self._used and (
            len(self._used) >= REMEMBERED_MAX or now - next(iter(self._used.values())) > 2 * AGE_MAX_S * 1e6
        ):
            del self._used[next(iter(self._used))]
        self._used[facts.nonce] = now
        return facts
