"""Frames whose parse answers many at once: a message that needs such an answer is put off until all are asked for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from sensegate.decode.frame import BatchParse, Frame, Parse
from sensegate.errors import Rejected


class Postponed(Exception):
    """The tree of a frame is not there yet; the message is decoded again when it is."""


class Trees:
    """The trees of a batch's frames, as far as they were asked for by many."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, tuple[BatchParse, Frame]] = {}
        self._found: dict[Hashable, Any] = {}

    def parse(self, parse: Parse, frame: Frame) -> Any:
        """Return the tree. Raises `Rejected`, and `Postponed` where it is there after `answer` only."""
        if not isinstance(parse, BatchParse):
            return parse(frame)
        key = (id(parse), frame.topic, frame.received, frame.port, frame.payload)
        found = self._found.get(key)
        if found is None:
            self._asked[key] = (parse, frame)
            raise Postponed
        if isinstance(found, Rejected):
            raise found
        return found

    def answer(self) -> None:
        """Ask for all that was put off: each kind of parse once."""
        kinds: dict[Any, list[Hashable]] = {}
        for key, (parse, _) in self._asked.items():
            kinds.setdefault(type(parse), []).append(key)
        for kind, keys in kinds.items():
            trees = kind.many([self._asked[key] for key in keys])
            self._found.update(zip(keys, trees, strict=True))
        self._asked.clear()
