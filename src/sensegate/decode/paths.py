"""Paths to a member of a payload: ``a.b``, ``a[0].b``, ``["dotted.key"]``.

``$.a`` begins at the payload's root, ``.`` is the element itself, ``@key`` the key under which the element stands.
``^.a`` begins at the element that encloses this one, ``^^.a`` at the next one out. In `each`, the step ``*`` is every
member of a list or an object: ``stations.*.probes`` are the probes of all stations, ``^.name`` is then a station's.
A path is a tuple of keys and indices; `ABSENT` is what stands at a place that is not there.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

Path = tuple[str | int, ...]

EVERY: Final = "*"
"""The step that is every member of what stands there."""

_STEP = re.compile(r"""\.?(?:\["((?:[^"\\]|\\.)*)"\]|\[(\d{1,6})\]|([^.\[\]"]+))""")


class Absent:
    """The one value for "not there"; never the same as null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A path, from the message's root or from the element at hand."""

    path: Path
    from_root: bool = False
    each_value: bool = False
    """True where the text ended in ``*``: every member of the object there (for ``each``)."""
    key: bool = False
    """True for ``@key``: the key under which the element itself stands."""
    up: int = 0
    """So many elements further out the path begins."""


def parse(text: str) -> Place:
    """Return the place that `text` names.

    Raises:
        ValueError: if it is no path; the message says from where on.
    """
    if text.startswith("^"):
        outer = text.lstrip("^")
        if outer.startswith(("$", "^")) or (outer and outer[0] not in ".@["):
            raise ValueError(f"after '^' stands '.', '[' or '@key', not {outer!r}")
        return msgspec.structs.replace(parse(outer.removeprefix(".")), up=len(text) - len(outer))
    if text == "@key":
        return Place((), key=True)
    from_root = text.startswith("$")
    rest = text[1:] if from_root else text
    if rest in {"", "."}:
        return Place((), from_root)
    each_value = rest == "*" or rest.endswith(".*")
    if each_value:
        rest = rest[:-2] if rest.endswith(".*") else ""
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if found is None:
            raise ValueError(f"no path from {rest[at:]!r} on")
        quoted, index, plain = found.groups()
        steps.append(int(index) if index is not None else plain if plain is not None else _unquote(quoted))
        at = found.end()
    return Place(tuple(steps), from_root, each_value)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def render(path: Path) -> str:
    """Return the text of a path, such that `parse` gives it back."""
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
    """Return what stands at `path` in `tree`, or `ABSENT`."""
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
