"""Update the expectations of a profile's examples to their present results, after a change compared with the document.

Only examples whose readings differ are rewritten, and only their expectations; comments elsewhere stay. An example that
is refused, or expects a refusal or a frame, is left as it is.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from sensegate.authoring.examples import decode_example, run_example
from sensegate.authoring.learn.examples import expected_lines
from sensegate.config import yaml as yamls
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.model import Spec

_EXPECTATIONS = frozenset({"expect", "reject", "ignored"})


def accept(file: Path) -> list[str]:
    """Rewrite the expectations of examples that fail by their values; return their labels. Raises `ProfileError`."""
    specs: list[Spec] = []
    profile = compile_file(file, specs)
    profiles = ProfileSet([profile], specs)
    text = file.read_text(encoding="utf-8")
    changes: list[tuple[int, int, str]] = []
    labels: list[str] = []
    for node, example in zip(_example_nodes(text), profile.source.examples, strict=True):
        if example.refuse or example.frame or not run_example(profiles, profile, example):
            continue
        result = decode_example(profiles, profile, example)
        if result.fields.quarantined:
            continue
        changes.append(_change(text, node, "".join(expected_lines(result, profiles))))
        labels.append(example.label)
    for start, end, replacement in reversed(changes):
        text = text[:start] + replacement + text[end:]
    if changes:
        file.write_text(text, encoding="utf-8")
    return labels


def _example_nodes(text: str) -> list[yaml.MappingNode]:
    root = yaml.compose(text, Loader=yamls.LOADER)
    members = root.value if isinstance(root, yaml.MappingNode) else []
    nodes = next((value for key, value in members if key.value == "examples"), None)
    return [node for node in nodes.value if isinstance(node, yaml.MappingNode)] if nodes is not None else []


def _change(text: str, node: yaml.MappingNode, expectations: str) -> tuple[int, int, str]:
    """Return (start, end, text in their place) for the expectations of one example."""
    indent = " " * node.start_mark.column
    shifted = "".join(indent + line.removeprefix("    ") + "\n" for line in expectations.splitlines())
    others = [(key, value) for key, value in node.value if key.value not in _EXPECTATIONS]
    if node.flow_style:
        kept = [f"{key.value}: {_source(text, value)}" for key, value in others]
        return node.start_mark.index, node.end_mark.index, f"\n{indent}".join(kept) + "\n" + shifted.rstrip("\n")
    start, end = node.start_mark.index, _end_of(text, node)
    block = f"{indent}" + text[start:end]
    for key, value in reversed(node.value):
        if key.value in _EXPECTATIONS:
            first = text.rindex("\n", 0, key.start_mark.index) + 1
            block = block[: first - start + len(indent)] + block[_end_of(text, value) - start + len(indent) :]
    return start, end, block.removeprefix(indent) + shifted


def _end_of(text: str, node: yaml.Node) -> int:
    """Return the index after the last line of a node; a block's own mark lies behind the comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    last = len(text[: node.end_mark.index].rstrip())
    newline = text.find("\n", last)
    return len(text) if newline < 0 else newline + 1


def _source(text: str, node: yaml.Node) -> str:
    return text[node.start_mark.index : node.end_mark.index]


__all__ = ["accept"]
