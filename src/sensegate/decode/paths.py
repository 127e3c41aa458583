"""Paths to a member of a payload: ``a.b``, ``a[0].b``, ``["dotted.key"]``.

``$.a`` starts at the payload's root, ``.`` is the element itself, ``@key`` the key of the element in its object.
``^.a`` starts at the element that encloses this one, ``^^.a`` at the next one out. In `each`, the step ``*`` is every
member of a list or an object: ``stations.*.probes`` are the probes of all stations, and ``^.name`` is then a station's.
A path is a tuple of keys and indices; `ABSENT` stands for a missing member.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

Path = tuple[str | int, ...]

EVERY: Final = "*"
"""The step that stands for every member."""

_STEP = re.compile(r"""\.?(?:\["((?:[^"\\]|\\.)*)"\]|\[(\d{1,6})\]|([^.\[\]"]+))""")


class Absent:
    """Type of the single value for "missing", which differs from null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


class MemberPath(msgspec.Struct, frozen=True, array_like=True):
    """A path, from the message's root or from the current element."""

    path: Path
    from_root: bool = False
    each_value: bool = False
    """True if the text ended in ``*``: every member of the object there (for ``each``)."""
    key: bool = False
    """True for ``@key``: the key of the element itself."""
    up: int = 0
    """Number of enclosing elements to go up before the path starts."""


def parse(text: str) -> MemberPath:
    """Parse a path.

    Raises:
        ValueError: the text is not a path; the message says from where on.
    """
    if text.startswith("^"):
        outer = text.lstrip("^")
        if outer.startswith(("$", "^")) or (outer and outer[0] not in ".@["):
            raise ValueError(f"after '^' must come '.', '[' or '@key', not {outer!r}")
        return msgspec.structs.replace(parse(outer.removeprefix(".")), up=len(text) - len(outer))
    if text == "@key":
        return MemberPath((), key=True)
    from_root = text.startswith("$")
    rest = text[1:] if from_root else text
    if rest in {"", "."}:
        return MemberPath((), from_root)
    each_value = rest == "*" or rest.endswith(".*")
    if each_value:
        rest = rest[:-2] if rest.endswith(".*") else ""
    steps: list[str | int] = []
    position = 0
    while position < len(rest):
        match = _STEP.match(rest, position)
        if match is None:
            raise ValueError(f"is not a path from {rest[position:]!r} on")
        quoted, index, plain = match.groups()
        steps.append(int(index) if index is not None else plain if plain is not None else _unquote(quoted))
        position = match.end()
    return MemberPath(tuple(steps), from_root, each_value)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def render(path: Path) -> str:
    """Return the text of a path, which `parse` turns back into the path."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif re.fullmatch(r'(?!\^|@key\Z)[^.\[\]"$*\\]+', step):
            parts.append(f".{step}" if parts else step)
        else:
            quoted = step.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'["{quoted}"]')
    return "".join(parts) or "."


def walk(tree: Any, path: Path) -> Any:
    """Return the member at `path` in `tree`, or `ABSENT`."""
    for step in path:
        if isinstance(step, str):
            if not isinstance(tree, dict) or step not in tree:
                return ABSENT
            tree = tree[step]
        elif isinstance(tree, list) and step < len(tree):
            tree = tree[step]
        else:
            return ABSENT
    return tree
