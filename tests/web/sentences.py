"""Sentences of the gateway about its own state, read from the source: what /readyz, nodes and their link can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import sensegate
from tests.house import graph

ROOT = Path(sensegate.__file__).parent
BY_NAME = frozenset({"warnings", "not_ready", "problems", "silence", "superseded"})
"""Functions of these names return sentences for readiness, or for the list of nodes, wherever they stand."""
BY_PLACE = frozenset(
    {
        ("tiers/node_states.py", "_silence"),
        ("tiers/members.py", "release_fault"),
        ("tiers/members.py", "release_note"),
        ("tiers/config_distribution.py", "tables_note"),
        ("tiers/centre_side.py", "_completed"),
        ("tiers/node_side.py", "state_text"),
        ("persist/scrubber.py", "_describe"),
        ("authority/expiry.py", "_state"),
        ("bus/cluster_watch.py", "_judge"),
    }
)
ATTRIBUTES = frozenset({"problem", "warning", "_gap"})
"""Attributes that hold such a sentence."""
ELSEWHERE = ("authoring/", "cli/", "decode/formats/", "decode/tasking.py", "demo/", "alarms/operations.py")
"""Files whose functions of these names are about something else."""
LETTERS_MIN = 10
_FIELD = re.compile(r"\{\d\}")


def templates() -> Iterator[tuple[str, str]]:
    """Yield (file, sentence with NUL in the place of each value)."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(ELSEWHERE):
            continue
        for node in graph.statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (node.name in BY_NAME or (name, node.name) in BY_PLACE):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                yield from ((name, text) for part in body for text in _texts(part))
            elif isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Attribute) and target.attr in ATTRIBUTES for target in node.targets
            ):
                yield from ((name, text) for text in _texts(node.value))


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts below a node that are long enough to be a sentence; of a text in another only the outer one."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)
        return
    if sum(letter.isalpha() for letter in text) >= LETTERS_MIN and " " in text:
        yield text


def pattern_of(english: str) -> re.Pattern[str]:
    """Return what a sentence of the table matches, as the console builds it."""
    parts = [re.escape(part) for part in _FIELD.split(english)]
    return re.compile("(.*?)".join(parts), re.DOTALL)
