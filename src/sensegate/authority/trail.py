"""The interface of the audit trail for code that changes things."""

from __future__ import annotations

from typing import Protocol

from sensegate.authority.scope import Principal

Facts = dict[str, object]
"""Changed values by key, as JSON; never a secret."""


class Trail(Protocol):
    """A trail in which every change is recorded before it is made."""

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        """Append a record and return when it is durable.

        Raises:
            StoreFull, Unavailable: the record was not (or may not have been) written; do not make the change.
        """
        ...


class MemoryTrail:
    """A trail in memory."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str, Facts | None, Facts | None]] = []

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        self.records.append((by.id, action, target, before, after))
