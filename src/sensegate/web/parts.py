"""Keys of the parts that features provide, and those keys by which features that do not know each other meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from sensegate.model import SheddingRule

T = TypeVar("T")


class PartKey(Generic[T]):
    """Typed key of a part that a feature provides to its routes (`Call.part`) and to other features."""

    def __init__(self, name: str, *, absent: str) -> None:
        """`absent`: detail of the 404 response of a gateway without the feature."""
        self.name = name
        self.absent = absent


SHED = PartKey[Callable[[], Sequence[SheddingRule]]]("shed", absent="this gateway carries out no mode orders")
"""Returns the readings that active mode orders withhold from the centre."""
LAG = PartKey[Callable[[], int | None]]("lag", absent="this gateway has no centre")
"""Returns the number of log entries that the centre of this node does not have; None: unknown."""
REFUSED_COUNT = PartKey[Callable[[], Awaitable[int]]]("refused_count", absent="this gateway has no centre and no nodes")
"""Returns how much of this node its centre refuses, or how many parts of its nodes this centre has refused."""
