"""The hash chain of the audit trail: records linked by hashes, signed heads, and their verification (no I/O).

A record names the hash of its predecessor and the hash function, so a change from SHA-256 to SM3 continues the chain. A
head (number and hash of the last record) is signed with an Ed25519 key. A head that is stored elsewhere proves that the
records up to it were neither changed, removed, reordered, inserted nor cut off.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from enum import StrEnum
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sensegate.authority.trail import Facts
from sensegate.errors import ConfigError

START = "0" * 64
"""Hash of the predecessor in the first record."""
RECORD_BYTES_MAX = 262_144
ASIDE = "centre.aside"
"""Action of the record that names the records that another centre had to set aside."""
_CONTEXT = b"sensegate audit head 1\0"
"""Prefix of the signed bytes, so that the signature is not valid in another context."""


class Algorithm(StrEnum):
    """The hash function that links a record to its predecessor."""

    SHA256 = "sha256"
    SM3 = "sm3"


class AuditRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change, recorded before it is made."""

    number: int
    """Position in the chain: 1, 2, 3 …"""
    previous: str
    """Hash (hex) of the stored predecessor."""
    time: int
    actor: str
    """Id of the token, the person (``person:NAME``) or the device."""
    role: str
    action: str
    """``device.add``, ``token.revoke``, …"""
    target: str
    nonce: str
    """Distinguishes this record from others with the same content after a lost answer."""
    before: Facts | None = None
    after: Facts | None = None
    format: int = 1
    hash: Algorithm = Algorithm.SHA256
    """Hash function of `previous`; absent in records from before there was a choice: SHA-256."""


class TrailSearch(msgspec.Struct, frozen=True):
    """Outcome of a search from the end of the trail."""

    records: tuple[tuple[int, AuditRecord], ...]
    """(stream sequence, record), newest first."""
    since: int
    """Time of the oldest record that was looked at, µs UTC; 0: there is none."""
    before: int
    """Stream sequence before which a further search goes on; 0: the whole trail was looked at."""


class ChainHead(msgspec.Struct, frozen=True):
    """The head of a chain: its last record."""

    number: int = 0
    hash: str = START
    sequence: int = 0
    """Sequence on the stream."""
    algorithm: Algorithm = Algorithm.SHA256


class SignedHead(msgspec.Struct, frozen=True, tag_field="kind", tag="audit-head"):
    """A head with the gateway's signature."""

    gateway: str
    first: int
    """Number of the oldest retained record; above 1 only if records have expired (`audit.ttl_h`)."""
    number: int
    hash: str
    algorithm: Algorithm
    time: int
    """Time of the signature, µs UTC."""
    key: str
    """Public key, base64."""
    signature: str = ""
    """Ed25519 signature over all other fields, base64."""


class ChainFault(msgspec.Struct, frozen=True):
    """The first fault of a chain."""

    number: int
    problem: str


encode = msgspec.json.Encoder(order="deterministic").encode
decode = msgspec.json.Decoder(AuditRecord).decode
_decode_head = msgspec.json.Decoder(SignedHead).decode


def digest(stored: bytes, algorithm: Algorithm = Algorithm.SHA256) -> str:
    """Return the hash (hex) by which the next record names this one."""
    if algorithm is Algorithm.SHA256:
        return sha256(stored).hexdigest()
    made = hashes.Hash(hashes.SM3())
    made.update(stored)
    return made.finalize().hex()


def shortened(record: AuditRecord) -> bytes:
    """Return a record as it is stored; facts that are too long give way to their size."""
    raw = encode(record)
    if len(raw) <= RECORD_BYTES_MAX:
        return raw
    size: Facts = {"too_long_bytes": len(raw)}
    return encode(msgspec.structs.replace(record, before=None, after=size))


# ── signing ───────────────────────────────────────────────────────────────────────────────────────────


class HeadSigner:
    """Signer of the heads of a gateway."""

    def __init__(self, key: Ed25519PrivateKey, gateway: str) -> None:
        self._key = key
        self._gateway = gateway
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, head: ChainHead, *, first: int, time: int) -> SignedHead:
        """Return the signed head."""
        key = base64.b64encode(self.public).decode()
        bare = SignedHead(self._gateway, first, head.number, head.hash, head.algorithm, time, key)
        signature = base64.b64encode(self._key.sign(_signed(bare))).decode()
        return msgspec.structs.replace(bare, signature=signature)


def _signed(head: SignedHead) -> bytes:
    return _CONTEXT + encode(msgspec.structs.replace(head, signature=""))


def fingerprint(key: bytes) -> str:
    """Return the fingerprint of a public key for people: the first 32 hex digits of its SHA-256."""
    return sha256(key).hexdigest()[:32]


def line_of(head: SignedHead) -> bytes:
    """Return a head as a line of a file, without the line end."""
    return encode(head)


def head_of(line: bytes, *, key: bytes | None = None) -> SignedHead:
    """Return the head in a line after verifying its signature, with `key` (32 bytes) if one is given.

    Raises:
        ConfigError: the line is not a head, was changed, or is signed by another key.
    """
    try:
        head = _decode_head(line)
        public, signature = (base64.b64decode(text, validate=True) for text in (head.key, head.signature))
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed(head))
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, ValueError) as why:
        raise ConfigError(f"the line is not a signed head: {why}", remedy="export it again") from why
    except InvalidSignature as why:
        raise ConfigError(
            "the signature is invalid", remedy="the head was changed, or signed by another key; export it again"
        ) from why
    # Only the canonical encoding is accepted, so that nothing can hide in a line.
    if line_of(head) != line:
        raise ConfigError("the signed head is not in canonical form", remedy="export it again")
    if key is not None and public != key:
        raise ConfigError(
            f"the head is signed by key {fingerprint(public)}, not by {fingerprint(key)}",
            remedy="ask the gateway's administrator for its audit.pub of that time",
        )
    return head


# ── checking ──────────────────────────────────────────────────────────────────────────────────────────


class ChainVerifier:
    """Verifier of a chain: takes its records one after another and reports the first fault."""

    def __init__(
        self, *, first: int = 1, after: ChainHead | None = None, heads: Sequence[ChainHead | SignedHead] = ()
    ) -> None:
        """Begin before the first record.

        Args:
            first: number of the first record; above 1, its link to its predecessor is not verified.
            after: the record before the first one, instead of `first`.
            heads: heads recorded earlier, which must be on the chain.
        """
        self._number = after.number if after else first - 1
        self._after = after
        self._last: bytes | None = None
        self._unverified_start = after is None and first > 1
        self._first = self._number + 1
        self._heads: dict[int, list[ChainHead | SignedHead]] = {}
        for head in heads:
            self._heads.setdefault(head.number, []).append(head)
        self.begins = 0
        """Time of the first record, µs UTC; 0: there was none."""
        self.ends = 0

    @property
    def number(self) -> int:
        """Number of the last record taken."""
        return self._number

    @property
    def older(self) -> int:
        """Number of heads that refer to records before the first."""
        return sum(len(heads) for number, heads in self._heads.items() if 0 < number < self._first)

    def take(self, raw: bytes) -> ChainFault | None:
        """Verify the next stored record; return its fault."""
        at = self._number + 1
        try:
            record = decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as why:
            return ChainFault(at, f"is not a record: {why}")
        if record.number != at:
            return ChainFault(at, f"is missing: the next record is number {record.number}")
        if not self._is_linked(record):
            return ChainFault(at, "does not match its predecessor: one of the two was changed")
        for head in self._heads.get(at, ()):
            if digest(raw, head.algorithm) != head.hash:
                return ChainFault(at, "is not the record of a head recorded earlier")
        self._number, self._last = at, raw
        self.begins, self.ends = self.begins or record.time, record.time
        return None

    def _is_linked(self, record: AuditRecord) -> bool:
        if self._last is not None:
            return record.previous == digest(self._last, record.hash)
        if self._after is not None and self._after.number:
            return record.previous == self._after.hash and record.hash is self._after.algorithm
        return self._unverified_start or record.previous == START

    @property
    def end_at(self) -> int:
        """Highest number that must be on the chain."""
        return max(self._heads, default=0)

    def end(self) -> ChainFault | None:
        """Return the fault of a truncated end."""
        beyond = [number for number in self._heads if number > self._number]
        return ChainFault(self._number + 1, f"cut off: number {max(beyond)} existed before") if beyond else None


def verify(
    stored: Iterable[bytes], *, after: ChainHead | None = None, head: ChainHead | None = None
) -> ChainFault | None:
    """Return the first fault of a chain of stored records, oldest first; None if it is intact.

    `after` is the record before the first one; default: the chain's start. `head` is a head recorded earlier, which
    must be on the chain.
    """
    verifier = ChainVerifier(
        after=after, heads=[head] if head and head.number != (after.number if after else 0) else []
    )
    for raw in stored:
        if fault := verifier.take(raw):
            return fault
    return verifier.end()


class VerificationReport(msgspec.Struct, frozen=True):
    """The result of verifying an export."""

    records: int
    first: int
    last: int
    begins: int
    """Time of the first record, µs UTC."""
    ends: int
    signer: str
    """Fingerprint of the key that signed the head; empty: none."""
    heads: int
    """Heads recorded earlier that are on the chain."""
    older: int = 0
    """Heads recorded earlier of records that have expired."""
    fault: ChainFault | None = None
    aside: int = 0
    """Heads recorded earlier of records that another centre had to set aside, as the chain confirms."""


class SetAsideTail:
    """Records that a centre had to set aside: they follow a record of the chain, and a later record names their end."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        """Parse the stored records, one per line. Raises `ConfigError` if they are not a part of a chain."""
        verifier, self._raws = ChainVerifier(), dict[int, bytes]()
        self.after = ChainHead()
        """Head of the record that they follow."""
        self.hash = ""
        """SHA-256 of the last record."""
        for raw in lines:
            if not self._raws and (first := _record(raw)):
                self.after = ChainHead(first.number - 1, first.previous, algorithm=first.hash)
                verifier = ChainVerifier(after=self.after)
            if fault := verifier.take(raw):
                raise ConfigError(
                    f"number {fault.number} {fault.problem}", remedy="give trail.ndjson as it was set aside"
                )
            self._raws[verifier.number] = raw
            self.hash = digest(raw)

    def holds(self, head: SignedHead) -> bool:
        """Return whether a head refers to one of these records."""
        raw = self._raws.get(head.number)
        return raw is not None and digest(raw, head.algorithm) == head.hash


def _record(raw: bytes) -> AuditRecord | None:
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _confirmed_tails(records: Sequence[bytes], tails: Sequence[SetAsideTail]) -> list[SetAsideTail]:
    """Return the tails that follow a record of a chain and that a later record names as set aside."""
    following: dict[str, SetAsideTail] = {tail.hash: tail for tail in tails if tail.after == ChainHead()}
    confirmed = []
    for raw in records:
        record = _record(raw)
        if record and record.action == ASIDE:
            digest_ = str((record.after or {}).get("trail_hash", ""))
            confirmed += [following[digest_]] if digest_ in following else []
        for tail in tails:
            if record and tail.after.number == record.number and tail.after.hash == digest(raw, tail.after.algorithm):
                following[tail.hash] = tail
    return confirmed


def _set_aside_hint(records: Sequence[bytes], number: int) -> str:
    """Return a hint on a record that is not on the chain because it was set aside."""
    for raw in records:
        record = _record(raw)
        if record is None or record.action != ASIDE or record.after is None:
            continue
        after, last = record.after.get("trail_after"), record.after.get("trail_last")
        if isinstance(after, int) and isinstance(last, int) and after < number <= last:
            place = record.after.get("place")
            return f" (record {record.number} names it as set aside: give --aside {place}/trail.ndjson)"
    return ""


def check_export(
    lines: Iterable[bytes],
    *,
    heads: Sequence[SignedHead] = (),
    key: bytes | None = None,
    tails: Sequence[SetAsideTail] = (),
) -> VerificationReport:
    """Verify an export: the stored records, one per line, then the signed head.

    Args:
        lines: lines of the export, without line ends.
        heads: heads recorded earlier.
        key: the public key that must have signed the head.
        tails: records that were set aside; their heads count if the chain names them.
    """
    stored: list[bytes] = list(lines)
    try:
        own = head_of(stored[-1] if stored else b"", key=key)
    except ConfigError as why:
        unsigned = ChainFault(len(stored), f"the last line: {why}")
        return VerificationReport(max(0, len(stored) - 1), 0, 0, 0, 0, "", 0, fault=unsigned)
    signer = fingerprint(base64.b64decode(own.key))
    confirmed = _confirmed_tails(stored[:-1], tails) if tails else []
    set_aside = [head for head in heads if any(tail.holds(head) for tail in confirmed)]
    heads = [head for head in heads if head not in set_aside]
    verifier = ChainVerifier(first=own.first, heads=[own, *heads])
    other_gateway = next((head for head in heads if head.gateway != own.gateway), None)
    fault: ChainFault | None = None
    if other_gateway:
        fault = ChainFault(0, f"a head is of gateway {other_gateway.gateway}, the export of {own.gateway}")
    for raw in stored[:-1]:
        fault = fault or verifier.take(raw)
        if fault:
            break
        if verifier.number > own.number:
            fault = ChainFault(
                verifier.number, f"is after the signed head (number {own.number}), which does not cover it"
            )
    fault = fault or verifier.end()
    if fault and heads and (hint := _set_aside_hint(stored[:-1], max(fault.number, verifier.end_at))):
        fault = ChainFault(fault.number, fault.problem + hint)
    return VerificationReport(
        len(stored) - 1,
        own.first,
        verifier.number,
        verifier.begins,
        verifier.ends,
        signer,
        len(heads) - verifier.older if fault is None else 0,
        verifier.older,
        fault,
        len(set_aside),
    )
