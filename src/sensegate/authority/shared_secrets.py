"""Secrets in files of a gateway that the registry shares with a standby or a replacement.

The registry bucket is authoritative: a file with another secret is renamed, so that pseudonyms and signatures stay the
same after a machine is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from sensegate.authority.bucket import Bucket
from sensegate.bus.files import write_private
from sensegate.errors import Conflict

SECRET = "secret"  # noqa: S105 - prefix of keys, not a secret
"""First part of the keys of secrets in the bucket."""

_log = structlog.get_logger("secrets")


async def synchronise_secret(file: Path, checked: Callable[[Path], object], bucket: Bucket) -> None:
    """Create a secret in a file, or replace the file by the secret that the bucket holds.

    `checked` creates the file if it is missing, and raises `ConfigError` if it holds no valid secret.
    """
    key = f"{SECRET}/{file.name}"
    row = await bucket.get(key)
    if row is None or row.value is None:
        checked(file)
        try:
            await bucket.put(key, await asyncio.to_thread(file.read_bytes), expected=0)
        except Conflict:
            row = await bucket.get(key)  # another process of this gateway was faster
    if row is not None and row.value is not None:
        _replace_file(file, row.value.decode("ascii"))
        checked(file)


def _replace_file(file: Path, text: str) -> None:
    if file.exists():
        if file.read_text(encoding="ascii") == text:
            return
        backup = file.with_name(f"{file.name}.{file.stat().st_mtime_ns}")
        file.rename(backup)
        _log.warning("key file replaced: the registry holds another key; the old file is renamed", file=str(backup))
    write_private(file, text)
