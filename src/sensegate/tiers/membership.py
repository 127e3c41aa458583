"""A node joins its centre with a code: by HTTP, once; what it is told is kept beside its store."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sensegate import __version__
from sensegate.bus import trust
from sensegate.bus.ports import bracketed
from sensegate.bus.process import write_private
from sensegate.errors import ConfigError, Conflict, Overloaded, PermissionDenied, SensegateError, Unavailable
from sensegate.tiers.members import JoinAnswer, JoinRequest, parse_join_code

FILE = "link.json"
LOG_EPOCH_FILE = "log.life"
"""File with the epoch of the node's log: tells the centre whether it is the store that it knows."""
TIMEOUT_S = 30.0


class StoredLink(msgspec.Struct, frozen=True):
    """The way to the centre of a node that has joined (0600: it holds the secret)."""

    member: str
    """Its id at the centre."""
    division: str
    slot: str
    """The account of its link at the centre's server."""
    url: str
    """``nats://…`` or ``tls://…``."""
    secret: str
    centre: str
    """Address of the centre's HTTP side."""
    generation: int = 0
    log_first: int = 1
    """Sequence with which a new log of this node begins."""
    certificate: str = ""
    """PEM of the centre's link, see `trust.told`; empty where the link has no TLS."""
    fingerprint: str = ""
    """SHA-256 (hex) of the certificate of the centre's HTTP side; empty where it has none."""
    format: int = 1


def read_link(directory: Path) -> StoredLink | None:
    """Return what a node of this directory was told; None: it has not joined.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    file = directory / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=StoredLink)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as why:
        raise ConfigError(
            "cannot be read", file=str(file), remedy=f"restore it, or join with a new code: {why}"
        ) from why


def write_link(directory: Path, told: StoredLink) -> None:
    """Keep what a node was told."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(directory / FILE, msgspec.json.format(msgspec.json.encode(told), indent=1).decode())


def retire_link(directory: Path) -> None:
    """Take the way to the centre out of use; the file stays beside, for the eyes of people."""
    file = directory / FILE
    if file.exists():
        file.replace(directory / f"{FILE}.left")


def read_log_epoch(directory: Path) -> str:
    """Return the epoch of the log of this directory; empty: there is none."""
    file = directory / LOG_EPOCH_FILE
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


async def join(directory: Path, code: str, centre: str, *, member: str = "", link: str = "") -> StoredLink:
    """Join with a code and keep what is told.

    Args:
        directory: of the node's store.
        code: as the centre gave it.
        centre: address of the centre's HTTP side.
        member: id of this node by its configuration: the code must be for it.
        link: address of the centre's link, where it is not the one that the centre tells.

    Raises:
        PermissionDenied, Conflict, Overloaded: the centre says no. Unavailable: it does not answer.
        ConfigError: the code is for another node.
    """
    invited, _, fingerprint = parse_join_code(code)
    if member and invited != member:
        raise ConfigError(f"the code is for {invited}, this node is {member}", remedy=f"ask for a code of {member}")
    asked = JoinRequest(code.strip(), __version__, read_log_epoch(directory))
    answer = await _post(f"{centre.rstrip('/')}/api/v1/nodes/join", asked, fingerprint)
    told = msgspec.convert(answer, JoinAnswer)
    host = bracketed(told.link.host or urlsplit(centre).hostname or "")
    made = StoredLink(
        told.member,
        told.division,
        told.slot,
        link or f"{told.link.scheme}://{host}:{told.link.port}",
        told.secret,
        centre.rstrip("/"),
        told.generation,
        told.log_first,
        told.link.certificate,
        fingerprint,
    )
    write_link(directory, made)
    return made


async def leave(directory: Path) -> StoredLink:
    """Tell the centre that this node leaves, and forget the way to it.

    Raises:
        ConfigError: it has not joined. PermissionDenied, Unavailable: as `join`.
    """
    present = read_link(directory)
    if present is None:
        raise ConfigError("this node has not joined", file=str(directory / FILE), remedy="nothing to leave")
    path = f"/api/v1/nodes/{present.member}/leave"
    await _post(f"{present.centre}{path}", {"secret": present.secret}, present.fingerprint)
    retire_link(directory)
    return present


def tls_context(told: StoredLink) -> ssl.SSLContext | None:
    """Return the context that trusts the certificate that was told; None for a link without TLS."""
    if not told.url.startswith("tls://"):
        return None
    return trust.told(told.certificate, urlsplit(told.url).hostname or "")


async def _post(url: str, body: object, fingerprint: str) -> Any:
    import aiohttp  # noqa: PLC0415 - a quarter of a second, needed once in a node's life

    # A certificate that the code names is the right one, whoever signed it.
    trust: Any = aiohttp.Fingerprint(bytes.fromhex(fingerprint)) if fingerprint else True
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url, data=msgspec.json.encode(body), headers={"Content-Type": "application/json"}, ssl=trust
            ) as answer,
        ):
            raw = await answer.read()
            if answer.status >= 400:
                raise _error_of(answer.status, raw)
            return msgspec.json.decode(raw)
    except aiohttp.ServerFingerprintMismatch as why:
        raise PermissionDenied(f"{url} shows another certificate than the code names: this is not the centre") from why
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as why:
        raise Unavailable(f"{url} does not answer as a centre does: {why or type(why).__name__}") from why


def _error_of(status: int, raw: bytes) -> SensegateError:
    try:
        detail = str(msgspec.json.decode(raw)["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        detail = f"status {status}"
    if status == 429:
        return Overloaded(detail)
    if status in (409, 412):
        return Conflict(detail)
    return PermissionDenied(detail) if status < 500 else Unavailable(detail)


def read_code(file: str) -> str:
    """Return the code in a file. Raises `ConfigError`."""
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError("join code cannot be read", file=file, remedy=str(why)) from why


def mark_code_used(file: str) -> None:
    """Move a code that has been used aside, so that nobody wonders."""
    if os.access(file, os.W_OK):
        Path(file).replace(f"{file}.used")
