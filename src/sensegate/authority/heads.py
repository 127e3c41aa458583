"""Signed heads of the audit trail, written to a file every hour, and the signing key.

Auditors copy the file (``<directory>/audit-heads.ndjson``) elsewhere: by a log shipper, a data diode, on paper. A head
that was copied elsewhere proves every record up to it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

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

from sensegate.authority.chain import AuditRecord, HeadSigner, SignedHead, TrailSearch, fingerprint, head_of, line_of
from sensegate.authority.scope import Principal
from sensegate.authority.trail import Facts, Trail
from sensegate.bus.files import write_private
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Overloaded, StoreFull, Unavailable

HOUR_S = 3_600.0
ROWS_MAX = 500
"""Most delivery counts in one record; more counts need several records."""
FULL_WARN_SHARE = 0.8
_TAIL_BYTES = 8_192
"""The end of the file of heads is read in pieces of this size: it grows for years, and only its last line matters."""

_log = structlog.get_logger("audit")


def signer(file: Path, gateway: str) -> HeadSigner:
    """Return the signer with the key in a PEM file (see `load_or_create_key`)."""
    return HeadSigner(load_or_create_key(file, setting="audit.key_file"), gateway)


def load_or_create_key(file: Path, *, setting: str = "") -> Ed25519PrivateKey:
    """Return the key in a PEM file; if it does not exist, create it (0600) with its ``.pub`` file.

    Raises:
        ConfigError: the file cannot be read, or holds no Ed25519 key.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        created = Ed25519PrivateKey.generate()
        write_private(file, created.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        _log.info("signing key created; give the .pub file to verifiers", file=str(file))
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as why:
        raise ConfigError(
            f"the key cannot be read: {why}", file=str(file), key=setting, remedy="restore the file"
        ) from why
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            "the file holds no Ed25519 key", file=str(file), key=setting, remedy="openssl genpkey -algorithm ed25519"
        )
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
        raise ConfigError(
            f"the file holds no public key: {why}", file=str(file), remedy="give the gateway's audit.pub"
        ) from why
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("the file holds no Ed25519 key", file=str(file), remedy="give the gateway's audit.pub")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def read_heads(file: Path, *, key: bytes | None = None) -> list[SignedHead]:
    """Return the heads in a file, one per line. Raises `ConfigError` with the number of a faulty line."""
    heads = []
    try:
        lines = file.read_bytes().splitlines()
    except OSError as why:
        raise ConfigError("the file cannot be read", file=str(file), remedy=why.strerror or str(why)) from why
    for number, line in enumerate(lines, 1):
        try:
            heads.append(head_of(line, key=key))
        except ConfigError as why:
            raise ConfigError(why.problem, file=str(file), line=number, remedy=why.remedy) from why
    return heads


class AuditTrail(Trail, Protocol):
    """A trail that can be read, and whose head can be signed."""

    @property
    def key(self) -> bytes:
        """The public key of the signer; empty: heads are not signed."""
        ...

    async def signed(self) -> SignedHead:
        """Return the head of the chain with the gateway's signature. Raises `NotFound` without a key."""
        ...

    async def usage(self) -> float:
        """Return the used share of the size limit."""
        ...

    def stored(self, *, limit: int = 2**62) -> AsyncGenerator[bytes, None]:
        """Yield the records as stored, oldest first."""
        ...

    async def read(self, after: int = 0, *, limit: int = 500) -> list[tuple[int, AuditRecord]]:
        """Return (sequence, record) after a sequence, oldest first."""
        ...

    async def newest(
        self, needle: bytes, match: Callable[[AuditRecord], bool], limit: int, *, before: int = 0
    ) -> TrailSearch:
        """Return the newest records that match, newest first; `needle`: bytes that their stored form contains."""
        ...


class HourlyHeads:
    """Hourly entries of the trail: delivery counts, then the signed head is appended to a file."""

    def __init__(
        self, audit: AuditTrail, file: Path, clock: Clock, by: Principal, delivered: Callable[[int], Sequence[Facts]]
    ) -> None:
        """`delivered` returns the running totals of deliveries that changed since a time (µs), a row each."""
        self._audit = audit
        self._file = file
        self._clock = clock
        self._by = by
        self._delivered = delivered
        # Totals that changed just before a restart may be recorded twice rather than never.
        self._since = clock.now() - round(2 * HOUR_S * 1e6)
        self._last_heartbeat = 0
        self._used = 0.0

    async def run(self) -> None:
        """Write the entries at the end of every hour, until cancelled; a failure is made up for in the next hour."""
        await self._log_failure(self.check_usage)
        while True:
            now = self._clock.now() / 1e6
            await self._clock.sleep(HOUR_S - now % HOUR_S)
            await self._log_failure(self.write_head)

    def warnings(self) -> list[str]:
        """Return a warning if the trail is nearly full, after which changes are refused."""
        if self._used < FULL_WARN_SHARE:
            return []
        remedy = "raise store.audit_bytes, or let old records expire (audit.ttl_h)"
        return [f"audit: {self._used:.0%} of the size limit is used; when full, changes are refused: {remedy}"]

    async def check_usage(self) -> None:
        """Update the used share. Raises `Unavailable`."""
        self._used = await self._audit.usage()

    async def _log_failure(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (Unavailable, StoreFull, Overloaded, OSError) as why:
            _log.warning("head of the audit trail not written; retrying in the next hour", reason=str(why))

    async def write_head(self) -> SignedHead:
        """Record the delivery counts since the last call, sign the head, append it to the file and return it."""
        await self.check_usage()
        since, now = self._since, self._clock.now()
        rows = list(self._delivered(since))
        for start in range(0, len(rows), ROWS_MAX):
            part: Facts = {"since": since, "until": now, "totals": rows[start : start + ROWS_MAX]}
            await self._audit.record(self._by, "delivery.counts", self._by.id, after=part)
        if not rows and now - self._last_heartbeat >= DAY_US:
            # The chain needs a record per day: if its last record expired, nothing could link to it.
            await self._audit.record(self._by, "audit.alive", self._by.id)
        self._since = now
        self._last_heartbeat = now if rows or now - self._last_heartbeat >= DAY_US else self._last_heartbeat
        head = await self._audit.signed()
        await asyncio.to_thread(_append_line, self._file, line_of(head))
        _log.info(
            "head of the audit trail written", number=head.number, hash=head.hash[:16], key=fingerprint(self._audit.key)
        )
        return head


def _append_line(file: Path, line: bytes) -> None:
    """Append a line to a file and sync it; a line that a crash has cut off is removed first, or both would be lost."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    with os.fdopen(descriptor, "rb+") as out:
        size = out.seek(0, os.SEEK_END)
        if (end := _end_of_lines(out, size)) < size:
            _log.warning("incomplete line of the heads removed", file=str(file), bytes=size - end)
            out.truncate(end)
        out.write(line + b"\n")
        out.flush()
        os.fsync(out.fileno())


def _end_of_lines(file: BinaryIO, size: int) -> int:
    """Return the offset after the last complete line of a file of `size` bytes, which is read from its end."""
    while size > 0:
        begin = max(0, size - _TAIL_BYTES)
        file.seek(begin)
        if (end := file.read(size - begin).rfind(b"\n") + 1) > 0:
            return begin + end
        size = begin
    return 0
