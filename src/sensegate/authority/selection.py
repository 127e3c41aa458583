"""Selection of devices in the registry by columns, in order of id."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from sensegate.authority.index import DeviceIndex
from sensegate.authority.scope import Scope
from sensegate.model import BOOL


class DeviceSelection:
    """Queries on the columns of an index; the order of ids is cached between queries."""

    def __init__(self, index: DeviceIndex) -> None:
        self._index = index
        self._order: list[int] = []

    def mask(
        self, present: Sequence[bytes | None], scope: Scope | None, profile: str, domain: str, department: str
    ) -> BOOL:
        """Return a mask of the present devices in scope of a profile, domain and department (empty: any)."""
        index, size = self._index, len(present)
        mask = np.fromiter((value is not None for value in present), np.bool_, size)
        if scope and size:
            covered = np.array([code.startswith(scope.division) for code in index.divisions.all], np.bool_)
            mask &= covered[index.division[:size]]
        # Scope and filter both apply: a scope of one department never shows another.
        for column, words, required in (
            (index.department, index.departments, scope.department if scope else ""),
            (index.department, index.departments, department),
            (index.profile, index.profiles, profile),
            (index.domain, index.domains, domain),
        ):
            if required:
                mask &= column[:size] == words.find(required)
        return mask

    def in_order(self, mask: BOOL, after: str) -> Iterator[int]:
        """Yield the indices of a mask in order of id, after a given id."""
        ids = self._index.ids
        if len(self._order) != len(ids):
            added = sorted(range(len(self._order), len(ids)), key=ids.__getitem__)
            self._order = list(heapq.merge(self._order, added, key=ids.__getitem__))
        for at in self._order:
            if at < len(mask) and mask[at] and ids[at] > after:
                yield at
