"""Monthly usage statements: what a grant delivered, signed by the gateway and verifiable without it.

A statement is one line of JSON. Its Ed25519 signature covers all other fields, in their order.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sensegate.clock import Clock
from sensegate.errors import ConfigError, NotFound
from sensegate.share.grants import Grant
from sensegate.share.metering import Metering
from sensegate.share.quota import month_of

_CONTEXT = b"sensegate usage statement 1\0"
"""Prefix of the signed bytes, so that the signature is valid for nothing else."""
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


class DeliveryUsage(msgspec.Struct, frozen=True):
    """Records delivered by one delivery."""

    subscriber: str
    delivery: str
    requests: int
    records: int
    bytes: int
    unsettled: int | msgspec.UnsetType = msgspec.UNSET
    """Records that may have been delivered without being counted, when the gateway was killed; absent: none."""
    scanned: int | msgspec.UnsetType = msgspec.UNSET
    """Rows looked through for the responses; absent: none."""


class UsageStatement(msgspec.Struct, frozen=True, tag_field="kind", tag="usage-statement"):
    """Signed (Ed25519) usage of a grant in a month; keep it byte for byte, for `sensegate statement verify`."""

    gateway: str
    """Division of the gateway that delivered and signed."""
    grant: str
    feed: str
    subscriber: str
    applicant: str
    owner: str
    """Division whose level granted the access."""
    purpose: str
    month: str
    """Month of Beijing time, ``2026-01``."""
    complete: bool
    """True if the month is over; otherwise the counts still rise."""
    records: int
    bytes: int
    rows: tuple[DeliveryUsage, ...]
    time: int
    """Time of the signature, µs UTC."""
    key: str
    """Public key, base64."""
    signature: str = ""
    """Signature, base64."""
    format: int = 1


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(UsageStatement).decode


class UsageStatements:
    """Creates usage statements from the metered counts."""

    def __init__(self, metering: Metering, key: Ed25519PrivateKey, clock: Clock, *, gateway: str) -> None:
        self._metering = metering
        self._key = key
        self._clock = clock
        self._gateway = gateway

    def statement(self, grant: Grant, month: str) -> UsageStatement:
        """Return the signed statement of a grant and month.

        Raises:
            ConfigError: it is not a month. NotFound: the month has not begun.
        """
        if not _MONTH.fullmatch(month):
            raise ConfigError(f"'{month[:16]}' is not a month", key="month", remedy="write it as 2026-01")
        now = self._clock.now()
        if month > month_of(now):
            raise NotFound(f"{month} has not begun")
        rows = tuple(
            DeliveryUsage(
                usage.token,
                usage.delivery,
                usage.requests,
                usage.records,
                usage.bytes,
                usage.unsettled or msgspec.UNSET,
                usage.scanned or msgspec.UNSET,
            )
            for usage in self._metering.months(month, grant=grant.id)
        )
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        unsigned = UsageStatement(
            gateway=self._gateway,
            grant=grant.id,
            feed=grant.feed,
            subscriber=grant.subscriber,
            applicant=grant.applicant,
            owner=grant.level,
            purpose=grant.purpose,
            month=month,
            complete=month < month_of(now),
            records=sum(row.records for row in rows),
            bytes=sum(row.bytes for row in rows),
            rows=rows,
            time=now,
            key=base64.b64encode(public).decode(),
        )
        signature = base64.b64encode(self._key.sign(_signed_bytes(unsigned))).decode()
        return msgspec.structs.replace(unsigned, signature=signature)


def encode_statement(statement: UsageStatement) -> bytes:
    """Return a statement as one line of JSON."""
    return _encode(statement)


def verify_statement(line: bytes, *, key: bytes | None = None) -> UsageStatement:
    """Return the statement of a line whose signature is valid; `key`: the only accepted public key (32 bytes).

    Raises:
        ConfigError: it is not a statement, was signed with another key, was changed, or its sums differ from its rows.
    """
    try:
        statement = _decode(line)
        own = base64.b64decode(statement.key, validate=True)
        signature = base64.b64decode(statement.signature, validate=True)
        public = Ed25519PublicKey.from_public_bytes(own)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as why:
        raise ConfigError(
            f"this is not a usage statement: {str(why)[:100]}", remedy="give the response of the gateway unchanged"
        ) from why
    if key is not None and own != key:
        raise ConfigError(
            "the statement was signed with another key",
            key="key",
            remedy="give the public key of the gateway that signed it",
        )
    try:
        public.verify(signature, _signed_bytes(statement))
    except InvalidSignature:
        raise ConfigError(
            "the signature is invalid: the statement was changed", key="signature", remedy="fetch it again"
        ) from None
    if (statement.records, statement.bytes) != tuple(
        sum(getattr(row, name) for row in statement.rows) for name in ("records", "bytes")
    ):
        raise ConfigError(
            "the sums differ from the rows", key="records", remedy="report this to the gateway's operator"
        )
    return statement


def _signed_bytes(statement: UsageStatement) -> bytes:
    return _CONTEXT + _encode(msgspec.structs.replace(statement, signature=""))
