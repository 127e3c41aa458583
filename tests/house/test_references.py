"""References in docstrings and comments lead somewhere: `room.module.Name` names what exists."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

from tests.house import graph

PACKAGE = Path(__file__).parents[2] / "src" / "sensegate"
ROOMS = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
_REFERENCE = re.compile(r"(?<!`)`((?:[a-z_]\w*\.)+\w+)(?:\(\))?`(?!`)")
_CLASS_REFERENCE = re.compile(r"(?<!`)`([A-Z]\w*[a-z]\w*\.\w+)(?:\(.*?\))?`(?!`)")
_DESCRIPTION = re.compile(r"Args:\n|`[a-z_]\w*`(?::\s|\s+returns\s|\s+is\s+called\s)")
"""Text without which no docstring of a module describes a parameter: only modules that have it are parsed."""
_FILE_ENDINGS = {"py", "md", "csv", "yaml", "json", "jsonl", "css", "js", "sh", "service"}


def _resolves(reference: str) -> bool:
    """Return whether a dotted name below the package is a module, or an attribute found from one."""
    parts = reference.split(".")
    for length in range(len(parts), 0, -1):
        try:
            result: object = importlib.import_module(".".join(["sensegate", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            annotations = getattr(result, "__annotations__", {})
            if not hasattr(result, name) and name not in annotations:
                return False
            result = getattr(result, name, None)
        return isinstance(result, ModuleType) or length > 0
    return False


def references(text: str) -> list[str]:
    """Return the dotted names in single backticks that begin with a room, file names apart."""
    names = (match.group(1) for match in _REFERENCE.finditer(text))
    return [name for name in names if name.split(".")[0] in ROOMS and name.rpartition(".")[2] not in _FILE_ENDINGS]


def class_references(text: str) -> list[str]:
    """Return the references in single backticks to a class, or to a member of one."""
    return [match.group(1) for match in _CLASS_REFERENCE.finditer(text)]


def _defined() -> dict[str, list[type]]:
    """Return the public classes of the package by name, and those that its modules import from libraries."""
    classes: dict[str, list[type]] = {name: [kind] for name, kind in vars(builtins).items() if isinstance(kind, type)}
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.name == "__main__.py":
            continue  # it runs the command line
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        for name, kind in vars(module).items():
            if isinstance(kind, type):
                classes.setdefault(name, []).append(kind)
    return classes


def _has(kind: type, member: str) -> bool:
    names = {name for base in kind.__mro__ for name in (*vars(base), *inspect.get_annotations(base))}
    source = inspect.getsource(kind) if kind.__module__.startswith("sensegate") else ""
    return member in names or f"self.{member}" in source


def test_dotted_names_in_texts_exist() -> None:
    """A module or its member that a docstring names can be found by that name."""
    stale = {
        file.relative_to(PACKAGE).as_posix(): names
        for file in sorted(PACKAGE.rglob("*.py"))
        if (names := [name for name in references(file.read_text(encoding="utf-8")) if not _resolves(name)])
    }
    assert stale == {}


def test_members_of_classes_in_texts_exist() -> None:
    """`Class.member` names a class of the package, or one of the language, that has the member."""
    classes = _defined()
    stale = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for reference in class_references(file.read_text(encoding="utf-8")):
            name, _, member = reference.partition(".")
            if not any(_has(kind, member) for kind in classes.get(name, [])):
                stale[f"{file.relative_to(PACKAGE).as_posix()}: {reference}"] = name in classes
    assert stale == {}


def test_a_name_that_does_not_exist_is_found() -> None:
    """The control."""
    assert not _resolves("clock.Post")
    assert _resolves("bus.contract.Log.write")
    assert references("see `clock.Post`, `flow.py`, ``clock.Code`` and `numpy.int64`") == ["clock.Post"]
    assert class_references("see `Log.fetch`, `Log`, ``Log.code``") == ["Log.fetch"]
    assert not any(_has(kind, "fetsh") for kind in _defined()["Log"])


def _documented_parameters(docstring: str) -> list[str]:
    """Return the names that a docstring describes: rows of "Args:", and the `name` that begins a sentence."""
    names = []
    _, _, section = docstring.partition("Args:\n")
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if row := re.match(r"( +)(\w+): ", line):
            names.append((len(row[1]), row[2]))
    least = min((indent for indent, _ in names), default=0)
    sentences = re.findall(r"(?:^|[.;] )`([a-z_]\w*)`(?:: | returns | is called )", " ".join(docstring.split()))
    return [*(name for indent, name in names if indent == least), *sentences]


def _undocumented(source: str) -> list[str]:
    """Return `function: name` of each described name that is neither a parameter nor an attribute of the class."""
    stale: list[str] = []
    if not _DESCRIPTION.search(source):
        return stale
    for owner in graph.statements(ast.parse(source)):
        if not isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = [*owner.args.posonlyargs, *owner.args.args, *owner.args.kwonlyargs]
        arguments += [argument for argument in (owner.args.vararg, owner.args.kwarg) if argument]
        known = {argument.arg for argument in arguments}
        docstring = inspect.cleandoc(ast.get_docstring(owner) or "")
        stale += [f"{owner.name}: {name}" for name in _documented_parameters(docstring) if name not in known]
    return stale


def test_parameters_in_docstrings_exist() -> None:
    """A parameter that a docstring describes is one of the function."""
    stale = {
        file.relative_to(PACKAGE).as_posix(): names
        for file in sorted(PACKAGE.rglob("*.py"))
        if (names := _undocumented(file.read_text(encoding="utf-8")))
    }
    assert stale == {}


def test_a_parameter_that_does_not_exist_is_found() -> None:
    """The control."""
    text = '''def f(log, end):
    """Do it; `log`: the log. `last`: a number.

    Args:
        end: the end,
            continued: here.
        begin: gone.
    """'''
    assert _undocumented(text) == ["f: begin", "f: last"]
