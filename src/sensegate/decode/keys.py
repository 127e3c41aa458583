"""Access to the keys of one profile file while it is compiled: errors that name them, parsed paths and topics."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from sensegate.decode import paths, topics
from sensegate.decode.grammar import Lines, key_text, line_of
from sensegate.decode.part import Scalar
from sensegate.decode.paths import EVERY, MemberPath
from sensegate.decode.profile import Token, token
from sensegate.errors import ProfileError


class ProfileKeys:
    """A file, by the lines of its keys; `path` is always the path to a key."""

    def __init__(self, lines: Lines, file: str) -> None:
        self._lines = lines
        self.file = file

    def line(self, path: tuple[str | int, ...]) -> int:
        """Return the line of a key."""
        return line_of(self._lines, path)

    def error(self, problem: str, *path: str | int, remedy: str = "") -> ProfileError:
        """Return an error at a key of the file."""
        return ProfileError(problem, file=self.file, line=self.line(path), key=key_text(path), remedy=remedy)

    def pattern(self, text: str, *path: str | int) -> topics.TopicPattern:
        """Parse a topic pattern."""
        try:
            return topics.parse(text)
        except ValueError as error:
            raise self.error(str(error), *path) from error

    def place(self, text: str, *path: str | int) -> MemberPath:
        """Parse a path to a member."""
        try:
            place = paths.parse(text)
        except ValueError as error:
            raise self.error(str(error), *path, remedy='write keys with dots as ["a.b"]') from error
        if (place.each_value or EVERY in place.path) and path[-1] != "each":
            raise self.error("'*' is allowed in `each` only", *path)
        return place

    def optional(self, text: str, *path: str | int) -> MemberPath | None:
        """Parse a path; None if it is empty."""
        return self.place(text, *path) if text else None

    def where(
        self, where: Mapping[str, Scalar | tuple[Scalar, ...] | None], here: tuple[str | int, ...], *, typed: bool
    ) -> Iterator[tuple[MemberPath, frozenset[Token]]]:
        """Yield (place, tokens of the accepted values) for each condition."""
        for text, accepted in where.items():
            values = accepted if isinstance(accepted, tuple) else (accepted,)
            tokens = {token(value) for value in values}
            if not typed and accepted is not None:  # all values of such a format are text
                tokens |= {str(value).lower() if isinstance(value, bool) else str(value) for value in values}
            yield self.place(text, *here, "where", text), frozenset(tokens)


def nearest(word: str, words: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Return a remedy that names the closest valid word, or all of them."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(words)}"
