"""Return flow across an air gap: parts in a signed file, which a node takes only if they follow what it has.

The file is MessagePack: what is signed, the Ed25519 signature, and the public key; the node believes the one key that
its configuration names.
"""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sensegate.bus.decoding import decoder
from sensegate.errors import ConfigError
from sensegate.tiers.return_flow import ReturnFlow, ReturnPart, ReturnRequest

FILE_BYTES = 32 * 1024**2
"""A file holds about so much; the next one begins where it ends."""
_CONTEXT = b"sensegate return 1\n"


class ReturnFile(msgspec.Struct, frozen=True):
    """What is signed."""

    centre: str
    division: str
    made_at: int
    """µs UTC."""
    log_epoch: str
    after: int
    until: int
    parts: tuple[ReturnPart, ...]
    format: int = 1


class _Signed(msgspec.Struct, frozen=True):
    body: bytes
    signature: bytes
    key: bytes


_encode = msgspec.msgpack.Encoder().encode
_signed = decoder(_Signed, "file of a return flow")
_parts = decoder(ReturnFile, "file of a return flow")


async def export_file(
    returns: ReturnFlow, division: str, wanted: ReturnRequest, key: Ed25519PrivateKey, *, centre: str, made: int
) -> tuple[bytes, ReturnFile]:
    """Return a signed file of what follows a place, and what is in it. Raises as `Returns.part`."""
    parts: list[ReturnPart] = []
    size, now = 0, wanted
    while True:
        part = await returns.part(division, now)
        if not part.entries and parts and not part.more:
            break
        parts.append(part)
        size += sum(len(entry.payload) for entry in part.entries)
        if not part.more or size >= FILE_BYTES:
            break
        now = ReturnRequest(part.log_epoch, part.until)
    held = ReturnFile(centre, division, made, parts[0].log_epoch, parts[0].after, parts[-1].until, tuple(parts))
    body = _encode(held)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return _encode(_Signed(body, key.sign(_CONTEXT + body), public)), held


def read_file(file: bytes, key: bytes) -> ReturnFile:
    """Return what a file holds; `key`: the only public key that is believed (32 bytes).

    Raises:
        ConfigError: it is no such file, another key signed it, or it was changed.
    """
    try:
        signed = _signed(file)
    except ValueError as why:
        raise ConfigError(f"cannot be read: {why}", remedy="make it with `sensegate return export`") from why
    if signed.key != key:
        raise ConfigError("signed with another key", key="returns.key_file", remedy="give the centre's statements.pub")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, _CONTEXT + signed.body)
    except InvalidSignature as why:
        raise ConfigError("the signature does not fit: the file was changed", remedy="carry it over again") from why
    try:
        return _parts(signed.body)
    except ValueError as why:
        raise ConfigError(f"cannot be read: {why}", remedy="update this node") from why
