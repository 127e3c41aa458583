"""Parse many frames at once: a message that needs such a parse is postponed until all are parsed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from copy import deepcopy
from typing import Any

from sensegate.decode.frame import BatchParse, FormedObject, FormedTree, Parse, PayloadFrame
from sensegate.decode.reshape import Reshape
from sensegate.errors import Rejected


class Postponed(Exception):
    """The tree of a frame is not ready; the message is decoded later, when it is."""


class BatchTrees:
    """The trees of a batch's frames that are parsed many at once."""

    def __init__(self) -> None:
        self._pending: dict[Hashable, tuple[BatchParse, PayloadFrame]] = {}
        self._results: dict[Hashable, Any] = {}
        self._requests: list[tuple[BatchParse, PayloadFrame]] = []

    def parse(self, parse: Parse, frame: PayloadFrame) -> Any:
        """Return the tree. Raises `Rejected`, and `Postponed` if it is ready only after `parse_pending`."""
        if isinstance(parse, Reshape) and isinstance(parse.parse, BatchParse) and parse.parse.ordered:
            return parse.changed(deepcopy(self.parse(parse.parse, frame)), frame)
        if not isinstance(parse, BatchParse):
            return parse(frame)
        key = _key(parse, frame)
        result = self._results.get(key)
        if result is None:
            self._pending[key] = (parse, frame)
            raise Postponed
        if isinstance(result, Rejected):
            raise result
        return result

    def request(self, requests: Iterable[tuple[BatchParse, PayloadFrame]]) -> None:
        """Queue frames, which the next `parse_pending` parses."""
        self._requests += requests

    def keep(self, parse: BatchParse, frame: PayloadFrame, result: Any) -> None:
        """Keep the result of a requested frame for `parse`."""
        self._results[_key(parse, frame)] = _tree(result)

    def parse_pending(self) -> list[Any]:
        """Parse all frames, with one call for each kind of parse; return the results of those that were requested."""
        requests, count = [*self._requests, *self._pending.values()], len(self._requests)
        kinds: dict[type[BatchParse], list[int]] = {}
        for place, (parse, _) in enumerate(requests):
            kinds.setdefault(type(parse), []).append(place)
        results: list[Any] = [None] * len(requests)
        for kind, places in kinds.items():
            trees = kind.many(list(map(requests.__getitem__, places)))
            for place, tree in zip(places, trees, strict=True):
                results[place] = tree
        self._results.update(zip(self._pending, map(_tree, results[count:]), strict=True))
        self._pending.clear()
        self._requests.clear()
        return results[:count]


def _key(parse: BatchParse, frame: PayloadFrame) -> Hashable:
    return id(parse), frame.topic, frame.received, frame.port, frame.payload, parse.ordered and frame.number


def _tree(result: Any) -> Any:
    """Return a result as the slow path needs it: a tree, which knows its flat values as `formed`."""
    if not isinstance(result, FormedTree):
        return result
    tree = result.form.tree(result.values) if result.tree is None else result.tree()
    return tree if hasattr(tree, "formed") else FormedObject(tree, result)
