"""Errors of a configuration's values in words: a key that occurs twice, a word that is no choice, a missing quote."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import yaml

from sensegate.config.gateway import Config
from sensegate.config.reference import record_type
from sensegate.config.setting import ConfigRecord


class RepeatedKey(NamedTuple):
    """The second occurrence of a key within one section."""

    path: list[str]
    line: int
    """Line of the second occurrence, from 1; `first_line`: that of the first."""
    first_line: int


class ValueProblem(NamedTuple):
    """The wrong part of a value, and what to write instead."""

    problem: str
    remedy: str


def repeated_key(root: yaml.Node) -> RepeatedKey | None:
    """Return the first key that occurs twice in its section; a key that overrides one of a merge (`<<`) does not."""
    pending: list[tuple[yaml.Node, list[str]]] = [(root, [])]
    visited: set[int] = set()  # an alias is the node of its anchor, once more
    repeated: list[RepeatedKey] = []
    while pending:
        node, path = pending.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += [(child, [*path, str(index)]) for index, child in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in lines:
                    repeated.append(RepeatedKey([*path, name], line, lines[name]))
                lines.setdefault(name, line)
                pending.append((value, [*path, name]))
    return min(repeated, key=lambda key: key.line, default=None)


def read_switches(record: type[ConfigRecord], tree: Any) -> None:
    """Write `on` and `off` as words into a tree where they are choices: YAML reads them as true and false."""
    if not isinstance(tree, dict):
        return
    hints = get_type_hints(record, include_extras=True)
    for name, value in tree.items():
        if nested := record_type(hints[name]):
            for member in value if isinstance(value, list) else [value]:
                read_switches(nested, member)
        elif isinstance(value, bool) and {"on", "off"} <= set(_choices(hints[name])):
            tree[name] = "on" if value else "off"


def value_problem(tree: Any, path: Sequence[str]) -> ValueProblem | None:
    """Return what is wrong with the value at a path that msgspec refused; None: its own message says it."""
    hint: Any = Config
    value = tree
    for part in path:
        if isinstance(value, list):
            value = value[int(part)]
            continue
        record = record_type(hint)
        if record is None or not isinstance(value, dict) or part not in value:
            return None
        hint, value = get_type_hints(record, include_extras=True)[part], value[part]
    choices = _choices(hint)
    if isinstance(value, (dict, list)) or value is None or value in choices:
        return None
    if str(value) in choices or (not choices and _is_text(hint) and isinstance(value, int | float)):
        return ValueProblem(f"{_written(value)} is not a text", f'write it in quotes: "{_written(value)}"')
    if not choices:
        return None
    words = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value).lower(), words, n=1, cutoff=0.5)
    suggestion = f"did you mean '{near[0]}'? " if near else ""
    quoted = f"'{value[:60]}'" if isinstance(value, str) else _written(value)
    return ValueProblem(
        f"{quoted} is not permitted", f"{suggestion}permitted: {', '.join(word or repr(word) for word in words)}"
    )


def _written(value: object) -> str:
    """Return a scalar as it stands in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(hint: Any) -> tuple[Any, ...]:
    """Return the permitted values of a setting; empty: it has no list of them."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((choices for part in get_args(hint) if (choices := _choices(part))), ())


def _is_text(hint: Any) -> bool:
    """Return whether a setting is a text, or a list of texts."""
    return hint is str or any(_is_text(part) for part in get_args(hint)[:1])
