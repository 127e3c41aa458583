"""Monthly receipts: what a grant delivered, signed with the gateway's key, verifiable by anybody who has the receipt.

A receipt is one line of JSON. Its signature (Ed25519) is over all the rest, in the order of the fields.
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

_CONTEXT = b"sensegate receipt 1\0"
"""Stands before what is signed, so that the signature is good for nothing else."""
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


class DeliveryUsage(msgspec.Struct, frozen=True):
    """What went by one delivery."""

    subscriber: str
    delivery: str
    requests: int
    records: int
    bytes: int
    unsettled: int | msgspec.UnsetType = msgspec.UNSET
    """So many records more may have gone: the gateway was killed while it delivered; not said: none."""


class UsageStatement(msgspec.Struct, frozen=True, tag_field="kind", tag="receipt"):
    """What a grant delivered in a month, with the gateway's word for it."""

    gateway: str
    """Division of the gateway that delivered and signs."""
    grant: str
    feed: str
    subscriber: str
    applicant: str
    owner: str
    """Division whose level granted it."""
    purpose: str
    month: str
    """Of Beijing time."""
    complete: bool
    """The month is over; otherwise it goes on to count."""
    records: int
    bytes: int
    rows: tuple[DeliveryUsage, ...]
    time: int
    """When it was signed, µs UTC."""
    key: str
    """Public key, base64."""
    signature: str = ""
    """base64."""
    format: int = 1


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(UsageStatement).decode


class UsageStatements:
    """Makes receipts of what was metered."""

    def __init__(self, metering: Metering, key: Ed25519PrivateKey, clock: Clock, *, gateway: str) -> None:
        self._metering = metering
        self._key = key
        self._clock = clock
        self._gateway = gateway

    def statement(self, grant: Grant, month: str) -> UsageStatement:
        """Return the receipt of a month.

        Raises:
            ConfigError: not a month. NotFound: it has not begun.
        """
        if not _MONTH.fullmatch(month):
            raise ConfigError(f"'{month[:16]}'", key="month", remedy="as 2026-01")
        now = self._clock.now()
        if month > month_of(now):
            raise NotFound(f"{month} has not begun")
        rows = tuple(
            DeliveryUsage(one.token, one.delivery, one.requests, one.records, one.bytes, one.unsettled or msgspec.UNSET)
            for one in self._metering.months(month, grant=grant.id)
        )
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        bare = UsageStatement(
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
        signature = base64.b64encode(self._key.sign(_signed_bytes(bare))).decode()
        return msgspec.structs.replace(bare, signature=signature)


def encode_statement(receipt: UsageStatement) -> bytes:
    """Return the receipt as one line of JSON."""
    return _encode(receipt)


def verify_statement(line: bytes, *, key: bytes | None = None) -> UsageStatement:
    """Return a receipt that is as the gateway signed it; `key`: the only key that is believed (32 bytes).

    Raises:
        ConfigError: it is no receipt, another key signed it, it was changed, or its sums are not those of its rows.
    """
    try:
        receipt = _decode(line)
        own = base64.b64decode(receipt.key, validate=True)
        signature = base64.b64decode(receipt.signature, validate=True)
        public = Ed25519PublicKey.from_public_bytes(own)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as why:
        raise ConfigError(f"no receipt: {str(why)[:100]}", remedy="give the answer of the gateway as it came") from why
    if key is not None and own != key:
        raise ConfigError("signed with another key", key="key", remedy="give the public key of the gateway that signed")
    try:
        public.verify(signature, _signed_bytes(receipt))
    except InvalidSignature:
        raise ConfigError(
            "the signature does not fit: it was changed", key="signature", remedy="ask for it again"
        ) from None
    if (receipt.records, receipt.bytes) != tuple(
        sum(getattr(row, name) for row in receipt.rows) for name in ("records", "bytes")
    ):
        raise ConfigError("the sums are not those of the rows", key="records", remedy="report this")
    return receipt


def _signed_bytes(receipt: UsageStatement) -> bytes:
    return _CONTEXT + _encode(msgspec.structs.replace(receipt, signature=""))
