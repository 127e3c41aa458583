"""The chain of the audit trail as such: records bound to one another by hashes, heads that are signed, their checking.

Pure. A record names the hash of the one before it, and by which hash; so a change from SHA-256 to SM3 goes on the same
chain. A head (number and hash of the last record) is signed with an Ed25519 key. Whoever keeps a head elsewhere can
prove that the records up to it were neither changed, removed, exchanged, added to nor cut off.
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
"""What the first record names as the hash before it."""
RECORD_BYTES_MAX = 262_144
ASIDE = "centre.aside"
"""Action of the record that names what another centre had to set aside."""
_CONTEXT = b"sensegate audit head 1\0"
"""Stands before what is signed, so that the signature is good for nothing else."""


class Algorithm(StrEnum):
    """How a record names its predecessor."""

    SHA256 = "sha256"
    SM3 = "sm3"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change, as it was about to be made."""

    number: int
    """1, 2, 3 … of this chain."""
    previous: str
    """Hash (hex) of the predecessor as stored."""
    time: int
    actor: str
    """Id of the token, of the person (``person:NAME``), or of the device."""
    role: str
    action: str
    """``device.add``, ``token.revoke``, …"""
    target: str
    nonce: str
    """Tells this record from any other with the same content after a loss."""
    before: Facts | None = None
    after: Facts | None = None
    format: int = 1
    hash: Algorithm = Algorithm.SHA256
    """Of `previous`. Records made before there was a choice have none: SHA-256."""


class Head(msgspec.Struct, frozen=True):
    """The end of a chain."""

    number: int = 0
    hash: str = START
    sequence: int = 0
    """Sequence on the stream."""
    algorithm: Algorithm = Algorithm.SHA256


class SignedHead(msgspec.Struct, frozen=True, tag_field="kind", tag="audit-head"):
    """A head with the gateway's word for it."""

    gateway: str
    first: int
    """Number of the oldest record that is kept; more than 1 only where `audit.ttl_h` has ended the life of some."""
    number: int
    hash: str
    algorithm: Algorithm
    time: int
    """When it was signed, µs UTC."""
    key: str
    """Public key, base64."""
    signature: str = ""
    """Ed25519 over all the rest, base64."""


class Fault(msgspec.Struct, frozen=True):
    """Where a chain is broken."""

    number: int
    what: str


encode = msgspec.json.Encoder(order="deterministic").encode
decode = msgspec.json.Decoder(Record).decode
_decode_head = msgspec.json.Decoder(SignedHead).decode


def digest(stored: bytes, algorithm: Algorithm = Algorithm.SHA256) -> str:
    """Return the hash (hex) by which the next record names this one."""
    if algorithm is Algorithm.SHA256:
        return sha256(stored).hexdigest()
    made = hashes.Hash(hashes.SM3())
    made.update(stored)
    return made.finalize().hex()


def fitted(record: Record) -> bytes:
    """Return a record as it is stored; facts that are too long give way to their size."""
    raw = encode(record)
    if len(raw) <= RECORD_BYTES_MAX:
        return raw
    size: Facts = {"too_long_bytes": len(raw)}
    return encode(msgspec.structs.replace(record, before=None, after=size))


# ── signing ───────────────────────────────────────────────────────────────────────────────────────────


class Signer:
    """Signs heads for one gateway."""

    def __init__(self, key: Ed25519PrivateKey, gateway: str) -> None:
        self._key = key
        self._gateway = gateway
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, head: Head, *, first: int, time: int) -> SignedHead:
        """Return the head with our word for it."""
        key = base64.b64encode(self.public).decode()
        bare = SignedHead(self._gateway, first, head.number, head.hash, head.algorithm, time, key)
        signature = base64.b64encode(self._key.sign(_signed(bare))).decode()
        return msgspec.structs.replace(bare, signature=signature)


def _signed(head: SignedHead) -> bytes:
    return _CONTEXT + encode(msgspec.structs.replace(head, signature=""))


def fingerprint(key: bytes) -> str:
    """Return how people compare a public key: the first 32 hex digits of its SHA-256."""
    return sha256(key).hexdigest()[:32]


def line_of(head: SignedHead) -> bytes:
    """Return a head as it stands in files, without the end of the line."""
    return encode(head)


def head_of(line: bytes, *, key: bytes | None = None) -> SignedHead:
    """Return the head in a line if its signature holds, by `key` (32 bytes) if one is given.

    Raises:
        ConfigError: it is no head, was changed, or is signed by another key.
    """
    try:
        head = _decode_head(line)
        public, signature = (base64.b64decode(text, validate=True) for text in (head.key, head.signature))
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed(head))
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, ValueError) as why:
        raise ConfigError(f"not a signed head: {why}", remedy="export it again") from why
    except InvalidSignature as why:
        raise ConfigError("its signature does not hold", remedy="it was changed, or never signed by that key") from why
    # Nothing that a reader would overlook: other spellings of the same head are not taken.
    if line_of(head) != line:
        raise ConfigError("a signed head in another spelling than ours", remedy="export it again")
    if key is not None and public != key:
        raise ConfigError(
            f"signed by the key {fingerprint(public)}, not by {fingerprint(key)}",
            remedy="ask the gateway's administrator for its audit.pub of that time",
        )
    return head


# ── checking ──────────────────────────────────────────────────────────────────────────────────────────


class Walk:
    """Takes the records of a chain one after another and says where it breaks."""

    def __init__(self, *, first: int = 1, after: Head | None = None, heads: Sequence[Head | SignedHead] = ()) -> None:
        """`first`: number of the first record; more than 1: what it says of its predecessor is believed.

        `after`: the record before the first one, instead. `heads`: ends noted earlier that must be among them.
        """
        self._number = after.number if after else first - 1
        self._after = after
        self._last: bytes | None = None
        self._believe = after is None and first > 1
        self._first = self._number + 1
        self._heads: dict[int, list[Head | SignedHead]] = {}
        for head in heads:
            self._heads.setdefault(head.number, []).append(head)
        self.begins = 0
        """Time of the first record, µs UTC; 0: none was taken."""
        self.ends = 0

    @property
    def number(self) -> int:
        """Number of the last record taken."""
        return self._number

    @property
    def older(self) -> int:
        """How many of the heads speak of records from before the first."""
        return sum(len(heads) for number, heads in self._heads.items() if 0 < number < self._first)

    def take(self, raw: bytes) -> Fault | None:
        """Take the next record as stored; return what is wrong with it."""
        at = self._number + 1
        try:
            record = decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as why:
            return Fault(at, f"not a record: {why}")
        if record.number != at:
            return Fault(at, f"missing: the next one is number {record.number}")
        if not self._fits(record):
            return Fault(at, "does not fit its predecessor: one of the two was changed")
        for head in self._heads.get(at, ()):
            if digest(raw, head.algorithm) != head.hash:
                return Fault(at, "is not the record noted as the head")
        self._number, self._last = at, raw
        self.begins, self.ends = self.begins or record.time, record.time
        return None

    def _fits(self, record: Record) -> bool:
        if self._last is not None:
            return record.previous == digest(self._last, record.hash)
        if self._after is not None and self._after.number:
            return record.previous == self._after.hash and record.hash is self._after.algorithm
        return self._believe or record.previous == START

    @property
    def end_at(self) -> int:
        """Greatest number of which there must be a record."""
        return max(self._heads, default=0)

    def end(self) -> Fault | None:
        """Return what is missing at the end."""
        beyond = [number for number in self._heads if number > self._number]
        return Fault(self._number + 1, f"cut off: number {max(beyond)} was there before") if beyond else None


def verify(stored: Iterable[bytes], *, after: Head | None = None, head: Head | None = None) -> Fault | None:
    """Return the first break of a chain of stored records, oldest first; None if it is whole.

    `after`: the record before the first one; none: the chain's start. `head`: an end noted earlier that must be
    among them.
    """
    walk = Walk(after=after, heads=[head] if head and head.number != (after.number if after else 0) else [])
    for raw in stored:
        if fault := walk.take(raw):
            return fault
    return walk.end()


class Report(msgspec.Struct, frozen=True):
    """What came of checking an export."""

    records: int
    first: int
    last: int
    begins: int
    """Time of the first record, µs UTC."""
    ends: int
    signer: str
    """Fingerprint of the key by which the end is signed; empty: none."""
    heads: int
    """Heads noted earlier that were found again."""
    older: int = 0
    """Heads noted earlier of records that are no longer kept."""
    fault: Fault | None = None
    aside: int = 0
    """Heads noted earlier of records that another centre had to set aside, as the chain says."""


class Tail:
    """Records that a centre had to set aside: they go on from one of the chain, another of which names their end."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        """Take them, one a line as stored. Raises `ConfigError`: they are no part of a chain."""
        walk, self._raws = Walk(), dict[int, bytes]()
        self.after = Head()
        """The record that they follow."""
        self.hash = ""
        """SHA-256 of the last."""
        for raw in lines:
            if not self._raws and (first := _record(raw)):
                self.after = Head(first.number - 1, first.previous, algorithm=first.hash)
                walk = Walk(after=self.after)
            if fault := walk.take(raw):
                raise ConfigError(f"number {fault.number} {fault.what}", remedy="give trail.ndjson as it was set aside")
            self._raws[walk.number] = raw
            self.hash = digest(raw)

    def holds(self, head: SignedHead) -> bool:
        """Return whether a head is of one of these records."""
        raw = self._raws.get(head.number)
        return raw is not None and digest(raw, head.algorithm) == head.hash


def _record(raw: bytes) -> Record | None:
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _named(held: Sequence[bytes], tails: Sequence[Tail]) -> list[Tail]:
    """Return those that follow a record of a chain, and of which a later one says that they were set aside."""
    following: dict[str, Tail] = {tail.hash: tail for tail in tails if tail.after == Head()}
    found = []
    for raw in held:
        record = _record(raw)
        if record and record.action == ASIDE:
            said = str((record.after or {}).get("trail_hash", ""))
            found += [following[said]] if said in following else []
        for tail in tails:
            if record and tail.after.number == record.number and tail.after.hash == digest(raw, tail.after.algorithm):
                following[tail.hash] = tail
    return found


def _hint(held: Sequence[bytes], number: int) -> str:
    """Return what is known of a noted record that is not on a chain."""
    for raw in held:
        record = _record(raw)
        if record is None or record.action != ASIDE or record.after is None:
            continue
        after, last = record.after.get("trail_after"), record.after.get("trail_last")
        if isinstance(after, int) and isinstance(last, int) and after < number <= last:
            place = record.after.get("place")
            return f" (number {record.number} says that such a one was set aside: --aside {place}/trail.ndjson)"
    return ""


def check_export(
    lines: Iterable[bytes],
    *,
    heads: Sequence[SignedHead] = (),
    key: bytes | None = None,
    tails: Sequence[Tail] = (),
) -> Report:
    """Check an export: records, one a line as stored, then the head that was signed over them.

    Args:
        lines: of the export, without their ends.
        heads: those noted earlier.
        key: the public key that must have signed the end.
        tails: what was set aside: a head of a record there counts where the chain names them.
    """
    held: list[bytes] = list(lines)
    try:
        own = head_of(held[-1] if held else b"", key=key)
    except ConfigError as why:
        wrong = Fault(len(held), f"the last line: {why}")
        return Report(max(0, len(held) - 1), 0, 0, 0, 0, "", 0, fault=wrong)
    signer = fingerprint(base64.b64decode(own.key))
    aside = _named(held[:-1], tails) if tails else []
    apart = [head for head in heads if any(tail.holds(head) for tail in aside)]
    heads = [head for head in heads if head not in apart]
    walk = Walk(first=own.first, heads=[own, *heads])
    foreign = next((head for head in heads if head.gateway != own.gateway), None)
    fault: Fault | None = None
    if foreign:
        fault = Fault(0, f"a head is of gateway {foreign.gateway}, the export of {own.gateway}")
    for raw in held[:-1]:
        fault = fault or walk.take(raw)
        if fault:
            break
        if walk.number > own.number:
            fault = Fault(walk.number, f"stands behind the head (number {own.number}), which does not speak for it")
    fault = fault or walk.end()
    if fault and heads and (hint := _hint(held[:-1], max(fault.number, walk.end_at))):
        fault = Fault(fault.number, fault.what + hint)
    return Report(
        len(held) - 1,
        own.first,
        walk.number,
        walk.begins,
        walk.ends,
        signer,
        len(heads) - walk.older if fault is None else 0,
        walk.older,
        fault,
        len(apart),
    )
