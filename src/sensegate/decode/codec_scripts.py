"""Processes that run codec scripts of profiles: started with the gateway, and their reports."""

from __future__ import annotations

from sensegate.config import ScriptsConfig
from sensegate.scripts import pool


def configure(config: ScriptsConfig) -> None:
    """Set what the processes require of the system, before profiles are loaded."""
    pool.configure(require_filter=config.require_seccomp)


def start() -> None:
    """Start the processes, before the first message."""
    pool.start_children()


def close() -> None:
    """End the processes."""
    pool.close()


def problems() -> list[str]:
    """Return why scripts are suspended or do not run, a sentence each."""
    return pool.problems()
