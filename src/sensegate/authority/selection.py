"""Selection and order of devices in the registry, by columns."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from sensegate.authority.index import STATES, DeviceIndex, WordList
from sensegate.authority.scope import Scope
from sensegate.model import BOOL, I32, I64, DeviceState


class DeviceFilter(msgspec.Struct, frozen=True):
    """Conditions on the entries of a list; empty: any."""

    states: frozenset[DeviceState] = frozenset()
    profile: str = ""
    domain: str = ""
    department: str = ""
    text: str = ""
    """Part of id, alias, name, asset or owner, ignoring case."""
    fields: Mapping[str, Callable[[str], bool]] = {}
    """Name of a field of `Device` -> condition on its text."""


class _SearchedFields(msgspec.Struct, frozen=True):
    id: str
    alias: str = ""
    name: str = ""
    asset: str = ""
    owner: str = ""


class _SearchedEntry(msgspec.Struct, frozen=True):
    """The part of a registry entry in which texts are searched."""

    device: _SearchedFields


_decode_searched = msgspec.msgpack.Decoder(_SearchedEntry).decode


class SearchTexts:
    """Texts in which entries are searched, ignoring case, by device index.

    A text is made when it is first searched and discarded when its entry changes.
    """

    def __init__(self) -> None:
        self._texts: list[str | None] = []

    def discard(self, at: int) -> None:
        """Discard the text of a device whose entry has changed."""
        if at < len(self._texts):
            self._texts[at] = None

    def search(self, text: str, values: Sequence[bytes | None], candidates: I64) -> I64:
        """Return the candidates whose text contains another one; `values` are the encoded entries, by index."""
        self._texts += [None] * (len(values) - len(self._texts))
        texts, folded = self._texts, text.casefold()
        matching = []
        for at in candidates.tolist():
            searched = texts[at]
            if searched is None:
                searched = texts[at] = _text_of(values[at])
            if folded in searched:
                matching.append(at)
        return np.array(matching, np.int64)


def _text_of(value: bytes | None) -> str:
    if value is None:
        return ""
    fields = _decode_searched(value).device
    return f"{fields.id}\n{fields.alias}\n{fields.name}\n{fields.asset}\n{fields.owner}".casefold()


class DeviceSelection:
    """Queries on the columns of an index; the order of ids is kept between queries."""

    def __init__(self, index: DeviceIndex) -> None:
        self._index = index
        self._order: list[int] = []
        self._order_column: I64 = np.zeros(0, np.int64)

    def words(self) -> dict[str, tuple[I32, WordList]]:
        """Return the columns of words by the name of their field, with the table into which they lead."""
        index, size = self._index, len(self._index)
        return {
            "division": (index.division[:size], index.divisions),
            "department": (index.department[:size], index.departments),
            "domain": (index.domain[:size], index.domains),
            "profile": (index.profile[:size], index.profiles),
            "gateway": (index.gateway[:size], index.gateways),
        }

    def mask(self, scope: Scope | None, wanted: DeviceFilter) -> BOOL:
        """Return a mask of the registered devices in a scope that fit a filter's profile, domain and department."""
        index, size = self._index, len(self._index)
        mask: BOOL = index.present[:size].copy()
        if scope and size:
            covered = np.array([code.startswith(scope.division) for code in index.divisions.all], np.bool_)
            mask &= covered[index.division[:size]]
        # Scope and filter both apply: a scope of one department never shows another.
        for column, words, required in (
            (index.department, index.departments, scope.department if scope else ""),
            (index.department, index.departments, wanted.department),
            (index.profile, index.profiles, wanted.profile),
            (index.domain, index.domains, wanted.domain),
        ):
            if required:
                mask &= column[:size] == words.find(required)
        return mask

    def in_order(self, mask: BOOL, after: str = "") -> I64:
        """Return the indices of a mask in order of id, after a given id."""
        order = self._order_column if len(self._order_column) == len(self._index) else self._sorted()
        if after:
            order = order[bisect.bisect_right(self._order, after, key=self._index.ids.__getitem__) :]
        if len(mask) < len(self._index):  # devices were added since the mask was made
            order = order[order < len(mask)]
        selected: I64 = order[mask[order]]
        return selected

    def _sorted(self) -> I64:
        """Return the indices of all devices in order of id, with those that were added since the last call."""
        self._order += range(len(self._order), len(self._index))
        # What is in order already is merged, not sorted again.
        self._order.sort(key=self._index.ids.__getitem__)
        self._order_column = np.array(self._order, np.int64)
        return self._order_column


def rank_words(words: Sequence[str]) -> I64:
    """Return the rank of each word among all, equal for equal words."""
    ranks = {word: rank for rank, word in enumerate(sorted(set(words)))}
    return np.array([ranks[word] for word in words], np.int64)


def rank_values(values: Sequence[Any]) -> I64:
    """Return the rank of each value among all: None first, then numbers, then texts."""
    ranks = {value: rank for rank, value in enumerate(sorted(set(values), key=_rank))}
    return np.array([ranks[value] for value in values], np.int64)


def _rank(value: object) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))


STATE_RANKS: I64 = rank_words([state.value for state in STATES])
"""Rank of each state by its name, in the order of `STATES`."""
