"""Secrets that a gateway keeps in files, and that its registry shares with a standby or a replacement.

The registry bucket decides: a file that holds another secret is set aside, so that pseudonyms and signatures stay what
they were when a machine is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from sensegate.authority.bucket import Bucket
from sensegate.bus.process import write_private
from sensegate.errors import Conflict

SECRET = "secret"  # noqa: S105 - a word of keys
"""First part of the keys of secrets in the bucket."""

_log = structlog.get_logger("secrets")


async def agree(file: Path, checked: Callable[[Path], object], bucket: Bucket) -> None:
    """Create a secret in a file, or replace the file by the secret that the bucket holds.

    `checked` creates the file where it is missing, and raises `ConfigError` where it holds no valid secret.
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
        _take(file, row.value.decode("ascii"))
        checked(file)


def _take(file: Path, text: str) -> None:
    if file.exists():
        if file.read_text(encoding="ascii") == text:
            return
        aside = file.with_name(f"{file.name}.{file.stat().st_mtime_ns}")
        file.rename(aside)
        _log.warning("the registry holds another key; the local key file is set aside", file=str(aside))
    write_private(file, text)
