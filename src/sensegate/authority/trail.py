"""The shape of an audit trail, as those see it who change things."""

from __future__ import annotations

from typing import Protocol

from sensegate.authority.scope import Principal

Facts = dict[str, object]
"""What changed: key -> value as JSON; never a secret."""


class Trail(Protocol):
    """Where every change is recorded before it is made."""

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        """Append a record and return when it is durable.

        Raises:
            StoreFull, Unavailable: it is not (or may not be) recorded: the change is not made.
        """
        ...


class MemoryTrail:
    """A trail that lives as long as its object."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str, Facts | None, Facts | None]] = []

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        self.records.append((by.id, action, target, before, after))
