"""Reading of a gateway's configuration from YAML: each error names file, line, key and what to do.

An unknown key is an error that names the nearest known one, a number outside its range one that gives the range, a
word that is no choice one that lists the choices. A key that occurs twice in its section is refused.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import yaml

from sensegate.config.gateway import Config
from sensegate.config.reference import record_type
from sensegate.config.renamed import REMOVED, RENAMED
from sensegate.config.rules import violations
from sensegate.config.setting import ConfigRecord
from sensegate.config.value_errors import read_switches, repeated_key, value_problem
from sensegate.errors import ConfigError

_NUMBER_MAX = 1e12
"""Largest number that a setting accepts; infinity and `nan` are rejected."""


def line_of(text: str, path: list[str]) -> int:
    """Return the line (from 1) of a key path in YAML text, or of its nearest parent."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return 1
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line


def _unknown_key(record: type[ConfigRecord], tree: object, path: list[str]) -> tuple[list[str], str] | None:
    """Return (path, what to do) of the first key that no record has; None if there is none."""
    if not isinstance(tree, dict):
        return None
    hints = get_type_hints(record, include_extras=True)
    for key, value in tree.items():
        if key not in hints:
            return [*path, str(key)], _suggestion([*path, str(key)], list(hints))
        nested = record_type(hints[key])
        if nested is None:
            continue
        children = enumerate(value) if isinstance(value, list) else [("", value)]
        for index, child in children:
            unknown = _unknown_key(nested, child, [*path, str(key), *([str(index)] if index != "" else [])])
            if unknown:
                return unknown
    return None


def _suggestion(path: Sequence[str], known: Sequence[str]) -> str:
    """Return what to write instead of an unknown key: its new name, or the nearest known one."""
    old = re.sub(r"\.\d+(?=\.)", "[]", ".".join(path))
    if new := RENAMED.get(old):
        return f"it is called '{new}' now"
    if reason := REMOVED.get(old):
        return f"remove it: {reason}"
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"


def _invalid_scalars(tree: object, path: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield (path, fault) for each scalar that no setting accepts: huge numbers, lone surrogates."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, member in members:
        yield from _invalid_scalars(member, [*path, str(name)])
    if isinstance(tree, float) and not abs(tree) <= _NUMBER_MAX:
        yield path, f"must be a number up to {_NUMBER_MAX:g}"
    if isinstance(tree, str) and not tree.isascii() and any("\ud800" <= sign <= "\udfff" for sign in tree):
        yield path, "contains half of a character (a lone surrogate)"


def _out_of_range(record: type[ConfigRecord], tree: object, path: list[str]) -> Iterator[tuple[list[str], str, str]]:
    """Yield (path, fault, remedy) for each number outside the range of its setting."""
    if not isinstance(tree, dict):
        return
    hints = get_type_hints(record, include_extras=True)
    for name, value in tree.items():
        meta = get_args(hints[name])[1]
        if nested := record_type(hints[name]):
            members = enumerate(value) if isinstance(value, list) else [("", value)]
            for at, member in members:
                yield from _out_of_range(nested, member, [*path, name, *([str(at)] if at != "" else [])])
        elif meta.ge is not None and _is_number(value) and not meta.ge <= value <= meta.le:
            yield [*path, name], f"{value} is out of range", f"give a number from {meta.ge:,} to {meta.le:,}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse(text: str, *, file: str = "") -> Config:
    """Return the configuration that YAML text describes.

    Raises:
        ConfigError: names file, line, key and what to do.
    """

    def error(path: list[str], problem: str, remedy: str = "see config/README.md") -> ConfigError:
        return ConfigError(problem, file=file, line=line_of(text, path), key=".".join(path), remedy=remedy)

    tree = _read_tree(text, file)
    if unknown := _unknown_key(Config, tree, []):
        path, remedy = unknown
        raise error(path, "unknown key", remedy)
    for path, problem in _invalid_scalars(tree, []):
        raise error(path, problem)
    for path, problem, remedy in _out_of_range(Config, tree, []):
        raise error(path, problem, remedy)
    read_switches(Config, tree)
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as why:
        message, _, place = str(why).partition(" - at `$")
        path = [part for part in place.rstrip("`").replace("[", ".").replace("]", "").split(".") if part]
        if wrong := value_problem(tree, path):
            raise error(path, wrong.problem, wrong.remedy) from why
        raise error(path, message) from why
    for violation in violations(config):
        raise error(list(violation.path), violation.problem, violation.remedy)
    return config


def _read_tree(text: str, file: str) -> object:
    """Return the data of YAML text. Raises `ConfigError`: it is not YAML, nested too deeply, or a key occurs twice."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if repeated := repeated_key(node):
            raise ConfigError(
                "the key occurs twice",
                file=file,
                line=repeated.line,
                key=".".join(repeated.path),
                remedy=f"keep one of them; the first is on line {repeated.first_line}",
            )
        return loader.construct_document(node)
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        raise ConfigError(
            "the text is not YAML",
            file=file,
            line=mark.line + 1 if mark else 1,
            remedy=str(getattr(why, "problem", why)),
        ) from why
    except RecursionError as why:
        raise ConfigError("the text is nested too deeply", file=file, line=1, remedy="see config/README.md") from why


def load(path: Path) -> Config:
    """Read a configuration file; see `parse`."""
    try:
        return parse(path.read_text(encoding="utf-8"), file=str(path))
    except OSError as why:
        raise ConfigError("the file cannot be read", file=str(path), remedy=why.strerror or str(why)) from why


def read_secret(file: str, environment: str = "") -> str:
    """Return a secret from an environment variable or a file (without the trailing newline); never log it.

    Raises:
        ConfigError: neither exists.
    """
    if environment and (value := os.environ.get(environment)):
        return value
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as why:
        remedy = f"{why.strerror or why}; write the secret into it, mode 0600, for the gateway's user"
        raise ConfigError("the secret cannot be read", file=file, remedy=remedy) from why
