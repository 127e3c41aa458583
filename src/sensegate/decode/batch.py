"""Parse many frames at once: a message that needs such a parse is postponed until all are parsed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from sensegate.decode.frame import BatchParse, Parse, PayloadFrame
from sensegate.errors import Rejected


class Postponed(Exception):
    """The tree of a frame is not ready; the message is decoded later, when it is."""


class BatchTrees:
    """The trees of a batch's frames that are parsed many at once."""

    def __init__(self) -> None:
        self._pending: dict[Hashable, tuple[BatchParse, PayloadFrame]] = {}
        self._results: dict[Hashable, Any] = {}

    def parse(self, parse: Parse, frame: PayloadFrame) -> Any:
        """Return the tree. Raises `Rejected`, and `Postponed` if it is ready only after `parse_pending`."""
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

    def request(self, parse: BatchParse, frame: PayloadFrame) -> Hashable:
        """Queue a frame, which the next `parse_pending` parses; return the key of its result."""
        key = _key(parse, frame)
        self._pending[key] = (parse, frame)
        return key

    def result(self, key: Hashable) -> Any:
        """Return the tree, or the `Rejected` (not raised); None: the frame is not parsed yet."""
        return self._results.get(key)

    def parse_pending(self) -> None:
        """Parse all pending frames, with one call for each kind of parse."""
        kinds: dict[Any, list[Hashable]] = {}
        for key, (parse, _) in self._pending.items():
            kinds.setdefault(type(parse), []).append(key)
        for kind, keys in kinds.items():
            trees = kind.many(list(map(self._pending.__getitem__, keys)))
            self._results.update(zip(keys, trees, strict=True))
        self._pending.clear()


def _key(parse: BatchParse, frame: PayloadFrame) -> Hashable:
    return id(parse), frame.topic, frame.received, frame.port, frame.payload
