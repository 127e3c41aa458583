"""Signed heads of the audit trail, written to a file every hour, and the key that signs them.

The file (``<directory>/audit-heads.ndjson``) is there to be copied elsewhere by whoever audits: a log shipper, a
one-way drop, a printed page. A head that left the gateway proves every record up to it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sensegate.authority.chain import Record, SignedHead, Signer, fingerprint, head_of, line_of
from sensegate.authority.scope import Principal
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Overloaded, StoreFull, Unavailable

HOUR_S = 3_600.0
ROWS_MAX = 500
"""Most counts in one record of deliveries; more make several records."""
FULL = 0.8

_log = structlog.get_logger("audit")


def signer(file: Path, gateway: str) -> Signer:
    """Return what signs heads, by the key in a PEM file as of `key_in`."""
    return Signer(key_in(file, setting="audit.key_file"), gateway)


def key_in(file: Path, *, setting: str = "") -> Ed25519PrivateKey:
    """Return the key in a PEM file; make it (0600), and ``.pub`` beside it, if it is not there.

    Raises:
        ConfigError: it cannot be read, or is no Ed25519 key.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(pem)
        _log.info("a key that signs was made; give its .pub to who checks", file=str(file))
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(file), key=setting, remedy="restore it") from why
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("no Ed25519 key", file=str(file), key=setting, remedy="openssl genpkey -algorithm ed25519")
    public = file.with_suffix(".pub")
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public.exists() or public.read_bytes() != pem:
        public.write_bytes(pem)
    return key


def public_key(file: Path) -> bytes:
    """Return the 32 bytes of the public key in a PEM file. Raises `ConfigError`."""
    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as why:
        raise ConfigError(f"no public key: {why}", file=str(file), remedy="give the gateway's audit.pub") from why
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("no Ed25519 key", file=str(file), remedy="give the gateway's audit.pub")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def read(file: Path, *, key: bytes | None = None) -> list[SignedHead]:
    """Return the heads in a file, one a line. Raises `ConfigError` naming the line that is wrong."""
    found = []
    try:
        lines = file.read_bytes().splitlines()
    except OSError as why:
        raise ConfigError("cannot be read", file=str(file), remedy=why.strerror or str(why)) from why
    for number, line in enumerate(lines, 1):
        try:
            found.append(head_of(line, key=key))
        except ConfigError as why:
            raise ConfigError(why.problem, file=str(file), line=number, remedy=why.remedy) from why
    return found


class AuditTrail(Trail, Protocol):
    """A trail that is read back, and whose end can be signed."""

    @property
    def key(self) -> bytes:
        """The public key of the signer; empty: the trail is not signed."""
        ...

    async def signed(self) -> SignedHead:
        """Return the end of the chain with the gateway's signature. Raises `NotFound` without a key."""
        ...

    async def used(self) -> float:
        """Return the share of the room for records that is used."""
        ...

    def stored(self, *, limit: int = 2**62) -> AsyncGenerator[bytes, None]:
        """Yield the records as they are stored, oldest first."""
        ...

    async def read(self, after: int = 0, *, limit: int = 500) -> list[tuple[int, Record]]:
        """Return (sequence, record) after a sequence, oldest first."""
        ...


class Hours:
    """What the trail is told every hour: what was delivered, as counts; then its head is signed and written."""

    def __init__(
        self, audit: AuditTrail, file: Path, clock: Clock, by: Principal, delivered: Callable[[int], Sequence[Facts]]
    ) -> None:
        """`delivered` returns the counts (totals since they began) that have grown since a time (µs), a row each."""
        self._audit = audit
        self._file = file
        self._clock = clock
        self._by = by
        self._delivered = delivered
        # Totals again of what moved before a restart: better twice than never.
        self._since = clock.now() - round(2 * HOUR_S * 1e6)
        self._alive = 0
        self._used = 0.0

    async def run(self) -> None:
        """Do so at the end of every hour, until cancelled; what fails is done in the next one."""
        await self._survive(self.look)
        while True:
            now = self._clock.now() / 1e6
            await self._clock.sleep(HOUR_S - now % HOUR_S)
            await self._survive(self.turn)

    def troubles(self) -> list[str]:
        """Return what is to be done before nothing may be changed any more."""
        if self._used < FULL:
            return []
        remedy = "raise store.audit_bytes, or end the life of old records (audit.ttl_h)"
        return [f"audit: {self._used:.0%} of its room is used; when it is full nothing may be changed: {remedy}"]

    async def look(self) -> None:
        """See how much room there is. Raises `Unavailable`."""
        self._used = await self._audit.used()

    async def _survive(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (Unavailable, StoreFull, Overloaded, OSError) as why:
            _log.warning("no head of the audit trail was written this hour", cause=str(why))

    async def turn(self) -> SignedHead:
        """Record what was delivered since the last time; sign the head and append it to the file; return it."""
        await self.look()
        since, now = self._since, self._clock.now()
        rows = list(self._delivered(since))
        for start in range(0, len(rows), ROWS_MAX):
            part: Facts = {"since": since, "until": now, "totals": rows[start : start + ROWS_MAX]}
            await self._audit.record(self._by, "delivery.counts", self._by.id, after=part)
        if not rows and now - self._alive >= DAY_US:
            # A chain whose last record has expired could not go on from it.
            await self._audit.record(self._by, "audit.alive", self._by.id)
        self._since = now
        self._alive = now if rows or now - self._alive >= DAY_US else self._alive
        head = await self._audit.signed()
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        with os.fdopen(descriptor, "ab") as out:
            out.write(line_of(head) + b"\n")
        _log.info("head of the audit trail", number=head.number, hash=head.hash[:16], key=fingerprint(self._audit.key))
        return head
