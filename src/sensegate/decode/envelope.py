"""Take the device's bytes out of the envelope of a carrier (a LoRaWAN network server, an IoT platform)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import xxhash

from sensegate.decode.layout.runtime import without_prefix
from sensegate.decode.paths import MemberPath
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}", re.ASCII)
_COUNTER_MASK = 0xFFFF
_DIGEST_BITS = 40


def _text(raw: Any, encoding: str) -> str:
    if not isinstance(raw, str):
        raise Rejected(QuarantineReason.SCHEMA, f"the frame is not text in {encoding}")
    return raw


def _base64(raw: Any) -> bytes:
    text = _text(raw, "base64")
    if not _BASE64.fullmatch(text):
        raise Rejected(QuarantineReason.MALFORMED, "the frame is not base64")
    text = text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise Rejected(QuarantineReason.MALFORMED, "the frame is not base64") from error


def _hex(raw: Any) -> bytes:
    try:
        return bytes.fromhex(without_prefix(_text(raw, "hex")))
    except ValueError as error:
        raise Rejected(QuarantineReason.MALFORMED, "the frame is not hex") from error


def _json(raw: Any) -> bytes:
    if isinstance(raw, str):
        return raw.encode()
    try:
        return msgspec.json.encode(raw)
    except (TypeError, ValueError, RecursionError) as error:  # CBOR and the like hold values that JSON cannot
        raise Rejected(QuarantineReason.MALFORMED, "the member cannot be written as JSON") from error


READERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "base64": _base64,
    "hex": _hex,
    "text": lambda raw: _text(raw, "UTF-8").encode(),
    "json": _json,
}
"""Encoding -> function from a member of the envelope to the device's bytes. They raise `Rejected` only."""


class EnvelopePayload(NamedTuple):
    """Place and encoding of the device's bytes in an envelope."""

    place: MemberPath
    port: MemberPath | None
    read: Callable[[Any], bytes]

    def bytes_of(self, raw: Any) -> bytes:
        """Return the device's bytes. Raises `Rejected` if the member does not hold them."""
        return raw if isinstance(raw, bytes) else self.read(raw)

    def distinguishing_bytes(self, raw: Any) -> bytes:
        """Return bytes that distinguish frames: the device's, or the member as sent if they cannot be decoded."""
        try:
            return b"" if raw is None else self.bytes_of(raw)
        except Rejected:
            return str(raw).encode("utf-8", "surrogatepass")


def port_of(raw: Any) -> int | None:
    """Return the port that a member states, None if it states none."""
    number = _integer(raw)
    return number if number is not None and 0 <= number < 2**16 else None


def frame_key(counter: Any, data: bytes, place: int) -> int:
    """Return the key of the values at `place` of a radio frame: its counter, then a digest of its bytes.

    Networks count with 16 or 32 bits, and some omit a 0. The counter is in the upper bits, so that the keys of a device
    rise as long as its counter does.
    """
    number = (_integer(counter) or 0) & _COUNTER_MASK
    digest = xxhash.xxh3_64_intdigest(data, seed=place) >> (64 - _DIGEST_BITS)
    return number << _DIGEST_BITS | digest


def _integer(raw: Any) -> int | None:
    if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) <= 10:
        return int(raw)
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else None
