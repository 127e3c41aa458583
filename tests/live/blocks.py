"""Blocks of documents, run as they stand."""

from __future__ import annotations

import asyncio
import os
import sys


async def output(kind: str, block: str, environment: dict[str, str]) -> str:
    """Run a block; return what it prints."""
    words = ["bash", "-c", block] if kind == "sh" else [sys.executable, "-c", block]
    process = await asyncio.create_subprocess_exec(
        *words, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(40):
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()
