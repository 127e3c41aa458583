"""The processes that run codec scripts of profiles: started with the gateway, and what they report."""

from __future__ import annotations

from sensegate.scripts import pool


def start() -> None:
    """Start the processes, before the first message."""
    pool.start_children()


def close() -> None:
    """End the processes."""
    pool.close()


def problems() -> list[str]:
    """Return why scripts are suspended, a sentence each."""
    return pool.decoding_pool().problems()
