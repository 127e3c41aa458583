"""Return flow across an air gap: parts in a signed file, which a node accepts only if they follow its position.

The file is MessagePack: the signed body, its Ed25519 signature, and the public key; the node trusts only the key that
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
"""Approximate size of a file; the next one continues where it ends."""
_CONTEXT = b"sensegate return 1\n"


class ReturnFile(msgspec.Struct, frozen=True):
    """The signed body of a file."""

    centre: str
    division: str
    made_at: int
    """Time of the export, µs UTC."""
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
    returns: ReturnFlow, division: str, request: ReturnRequest, key: Ed25519PrivateKey, *, centre: str, made_at: int
) -> tuple[bytes, ReturnFile]:
    """Return a signed file of the rows after a position, and its body. Raises as `ReturnFlow.part`."""
    parts: list[ReturnPart] = []
    size = 0
    while True:
        part = await returns.part(division, request)
        if not part.entries and parts and not part.more:
            break
        parts.append(part)
        size += sum(len(entry.payload) for entry in part.entries)
        if not part.more or size >= FILE_BYTES:
            break
        request = ReturnRequest(part.log_epoch, part.until)
    content = ReturnFile(centre, division, made_at, parts[0].log_epoch, parts[0].after, parts[-1].until, tuple(parts))
    body = _encode(content)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return _encode(_Signed(body, key.sign(_CONTEXT + body), public)), content


def read_file(file: bytes, key: bytes) -> ReturnFile:
    """Verify a file and return its body; `key`: the only trusted public key (32 bytes).

    Raises:
        ConfigError: it is not such a file, another key signed it, or it was changed.
    """
    try:
        signed = _signed(file)
    except ValueError as why:
        raise ConfigError(f"cannot be read: {why}", remedy="make it with `sensegate return export`") from why
    if signed.key != key:
        raise ConfigError(
            "the file is signed with another key", key="returns.key_file", remedy="give the centre's statements.pub"
        )
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, _CONTEXT + signed.body)
    except InvalidSignature as why:
        raise ConfigError("the signature is wrong: the file was changed", remedy="transfer it again") from why
    try:
        return _parts(signed.body)
    except ValueError as why:
        raise ConfigError(f"cannot be read: {why}", remedy="update this node") from why
