"""Joining a centre with a code, by HTTP and once; the link to the centre is stored beside the node's store."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sensegate import __version__
from sensegate.bus import trust
from sensegate.bus.files import write_private
from sensegate.bus.free_ports import url_host
from sensegate.errors import ConfigError, Conflict, Overloaded, PermissionDenied, SensegateError, Unavailable
from sensegate.tiers.members import JoinAnswer, JoinRequest, parse_join_code

FILE = "link.json"
LOG_EPOCH_FILE = "log.life"
"""File with the epoch of the node's log, by which the centre recognises the store."""
TIMEOUT_S = 30.0


class StoredLink(msgspec.Struct, frozen=True):
    """The link of a node that has joined (mode 0600: it holds the secret)."""

    member: str
    """Id of the node at the centre."""
    division: str
    slot: str
    """Account of the link at the centre's server."""
    url: str
    """``nats://…`` or ``tls://…``."""
    secret: str
    centre: str
    """Address of the centre's HTTP side."""
    generation: int = 0
    log_first: int = 1
    """First sequence of a new log of this node."""
    certificate: str = ""
    """PEM of the centre's link, see `trust.joined_centre_context`; empty where the link has no TLS."""
    fingerprint: str = ""
    """SHA-256 (hex) of the certificate of the centre's HTTP side; empty where it has none."""
    format: int = 1


def read_link(directory: Path) -> StoredLink | None:
    """Return the link of a node; None: it has not joined.

    Raises:
        ConfigError: the file exists and cannot be read.
    """
    file = directory / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=StoredLink)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as why:
        raise ConfigError(
            f"cannot be read: {why}", file=str(file), remedy="restore it, or join with a new code"
        ) from why


def write_link(directory: Path, link: StoredLink) -> None:
    """Store the link of a node."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(directory / FILE, msgspec.json.format(msgspec.json.encode(link), indent=1).decode())


def retire_link(directory: Path) -> None:
    """Disable the link; the file is renamed and stays for inspection."""
    file = directory / FILE
    if file.exists():
        file.replace(directory / f"{FILE}.left")


def read_log_epoch(directory: Path) -> str:
    """Return the epoch of the log in this directory; empty: there is none."""
    file = directory / LOG_EPOCH_FILE
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


async def join(directory: Path, code: str, centre: str, *, member: str = "", link_url: str = "") -> StoredLink:
    """Join a centre with a code, and store the link.

    Args:
        directory: of the node's store.
        code: join code from the centre.
        centre: address of the centre's HTTP side.
        member: id of this node in its configuration, for which the code must be; empty: any.
        link_url: address of the centre's link, where it differs from the one that the centre answers.

    Raises:
        PermissionDenied, Conflict, Overloaded: the centre refuses.
        Unavailable: it does not answer.
        ConfigError: the code is for another node.
    """
    invited, _, fingerprint = parse_join_code(code)
    if member and invited != member:
        raise ConfigError(f"the code is for {invited}, this node is {member}", remedy=f"ask for a code for {member}")
    request = JoinRequest(code.strip(), __version__, read_log_epoch(directory))
    body = await _post(f"{centre.rstrip('/')}/api/v1/nodes/join", request, fingerprint)
    answer = msgspec.convert(body, JoinAnswer)
    host = url_host(answer.link.host or urlsplit(centre).hostname or "")
    link = StoredLink(
        answer.member,
        answer.division,
        answer.slot,
        link_url or f"{answer.link.scheme}://{host}:{answer.link.port}",
        answer.secret,
        centre.rstrip("/"),
        answer.generation,
        answer.log_first,
        answer.link.certificate,
        fingerprint,
    )
    write_link(directory, link)
    return link


async def leave(directory: Path) -> StoredLink:
    """Leave the centre, and disable the link.

    Raises:
        ConfigError: this node has not joined.
        PermissionDenied, Unavailable: as `join`.
    """
    present = read_link(directory)
    if present is None:
        raise ConfigError("this node has not joined", file=str(directory / FILE), remedy="there is nothing to leave")
    path = f"/api/v1/nodes/{present.member}/leave"
    await _post(f"{present.centre}{path}", {"secret": present.secret}, present.fingerprint)
    retire_link(directory)
    return present


def tls_context(link: StoredLink) -> ssl.SSLContext | None:
    """Return the TLS context that trusts only the certificate from the join; None for a link without TLS."""
    if not link.url.startswith("tls://"):
        return None
    return trust.joined_centre_context(link.certificate, urlsplit(link.url).hostname or "")


async def _post(url: str, body: object, fingerprint: str) -> Any:
    import aiohttp  # noqa: PLC0415 - a quarter of a second, needed once in a node's life

    # The certificate named by the code is trusted, whoever signed it.
    trusted: Any = aiohttp.Fingerprint(bytes.fromhex(fingerprint)) if fingerprint else True
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url, data=msgspec.json.encode(body), headers={"Content-Type": "application/json"}, ssl=trusted
            ) as answer,
        ):
            raw = await answer.read()
            if answer.status >= 400:
                raise _error_of(answer.status, raw)
            return msgspec.json.decode(raw)
    except aiohttp.ServerFingerprintMismatch as why:
        raise PermissionDenied(f"{url} has another certificate than the code names: it is not the centre") from why
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as why:
        raise Unavailable(f"{url} does not answer like a centre: {why or type(why).__name__}") from why


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
    """Return the join code in a file. Raises `ConfigError` where it cannot be read."""
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError(f"the join code cannot be read: {why}", file=file, remedy="give a readable file") from why


def mark_code_used(file: str) -> None:
    """Rename the file of a used join code, where this is permitted."""
    if os.access(file, os.W_OK):
        Path(file).replace(f"{file}.used")
