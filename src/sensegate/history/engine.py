"""DuckDB for queries over files and columns in memory: opened with limits, without anything from the network."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from sensegate.errors import ConfigError


def is_installed() -> bool:
    """Return whether the extra of the history is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("duckdb", "pyarrow"))


class HistoryEngine:
    """An in-memory DuckDB; each use takes a cursor of its own, also from another thread."""

    def __init__(self, scratch: Path, *, memory_bytes: int, threads: int) -> None:
        """`scratch`: directory for what does not fit into the memory.

        Raises:
            ConfigError: the extra is not installed.
        """
        try:
            self._duckdb: Any = importlib.import_module("duckdb")
        except ImportError:
            raise ConfigError(
                "the history needs DuckDB, which is not installed",
                key="history.enabled",
                remedy="install sensegate[history], or set it to false",
            ) from None
        self._root = self._duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{memory_bytes // 1024**2}MiB",
                "threads": threads,
                "temp_directory": str(scratch),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "preserve_insertion_order": False,
            },
        )

    def cursor(self) -> Any:
        """Return a connection of its own, to be closed."""
        return self._root.cursor()

    @property
    def interrupted(self) -> type[Exception]:
        """Error of a statement that `interrupt` has ended."""
        error: type[Exception] = self._duckdb.InterruptException
        return error

    @property
    def failed(self) -> type[Exception]:
        """Error of any statement."""
        error: type[Exception] = self._duckdb.Error
        return error

    @property
    def invalid_input(self) -> type[Exception]:
        """Error of a statement whose parameters are not valid, such as a regular expression."""
        error: type[Exception] = self._duckdb.InvalidInputException
        return error

    def close(self) -> None:
        """Close it; statements that run are ended."""
        self._root.interrupt()
        self._root.close()
