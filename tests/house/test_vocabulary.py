"""Names use the words of the vocabulary; docstrings begin with a noun phrase or an imperative."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "src" / "sensegate"
_HEADING = "### Words that no name may use"
_ROW = re.compile(r"^\| (?P<whole>\*?)(?P<word>\w+)\*? \| (?P<instead>[^|]+) \|$", re.MULTILINE)
_QUESTION = re.compile(r"(What|Who|Whom|Whose|How|Whether|Where|When|Which|Why)\b")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@cache
def forbidden() -> tuple[dict[str, str], dict[str, str]]:
    """Return the words that may not be a whole name, and those that may not be part of one, with their replacements."""
    text = (PACKAGE / "README.md").read_text(encoding="utf-8").partition(_HEADING)[2]
    whole: dict[str, str] = {}
    part: dict[str, str] = {}
    for row in _ROW.finditer(text):
        if row["word"] != "not":
            (whole if row["whole"] else part)[row["word"]] = row["instead"]
    return whole, part


class Module(NamedTuple):
    """Names, docstrings and classes of a module; names and docstrings with their lines."""

    names: list[tuple[str, int]]
    docstrings: list[tuple[str, int]]
    """Strings that stand as statements of their own."""
    classes: list[str]


@cache
def module(source: str) -> Module:
    """Return the names, docstrings and classes of a module; each source is parsed once for all tests."""
    contents = Module([], [], [])
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                contents.names.append((node.name, node.lineno))
            case ast.ClassDef():
                contents.names.append((node.name, node.lineno))
                contents.classes.append(node.name)
            case ast.arg():
                contents.names.append((node.arg, node.lineno))
            case ast.Name(ctx=ast.Store()):
                contents.names.append((node.id, node.lineno))
            case ast.Attribute(ctx=ast.Store()):
                contents.names.append((node.attr, node.lineno))
            case ast.Expr(value=ast.Constant(value=str(text))):
                contents.docstrings.append((text, node.lineno))
            case _:
                pass
    return contents


def faults(source: str) -> list[str]:
    """Return a sentence for each name of a module that uses a forbidden word."""
    whole, part = forbidden()
    sentences: list[str] = []
    for name, line in module(source).names:
        bare = name.strip("_").lower()
        sentences += [f"line {line}: '{name}' says nothing; take {whole[word]}" for word in {bare} & whole.keys()]
        used = {word.lower() for word in _PARTS.findall(name)} & part.keys()
        sentences += [f"line {line}: '{name}' uses '{word}'; take {part[word]}" for word in sorted(used)]
    return sentences


def questions(source: str) -> list[str]:
    """Return a sentence for each docstring that begins with a question word."""
    return [
        f"line {line}: a docstring begins with '{match[0]}'; take a noun phrase or an imperative"
        for text, line in module(source).docstrings
        if (match := _QUESTION.match(text))
    ]


def empty_variables(source: str) -> list[str]:
    """Return a sentence for each variable or parameter of a module that is only a word that says nothing."""
    whole, _ = forbidden()
    sentences: list[str] = []
    words = "|".join(whole)
    # Only a module in which such a word stands where a variable may be bound is parsed.
    if not re.search(rf"\b_*(?:{words})_*\b\s*(?:=|:|,|\)|\]|in\b)|\bas +_*(?:{words})_*\b", source, re.IGNORECASE):
        return sentences
    for node in sorted(ast.walk(ast.parse(source)), key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
            name = node.arg if isinstance(node, ast.arg) else node.id
            if (word := name.strip("_").lower()) in whole:
                sentences.append(f"line {node.lineno}: '{name}' says nothing; take {whole[word]}")
    return sentences


def test_docstrings_are_noun_phrases_or_imperatives() -> None:
    """No docstring of the package begins with a question word."""
    sentences = [
        f"{path.relative_to(PACKAGE)}: {sentence}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for sentence in questions(path.read_text(encoding="utf-8"))
    ]
    assert sentences == []


def test_a_docstring_that_begins_with_a_question_word_is_refused() -> None:
    """Of a module, a function or an attribute; `Whenever` is another word, and a value no docstring."""
    source = '"""What it says."""\nkept = ""\n"""Whether it waits."""\nlabel = """What it says."""\n"""Whenever."""'
    assert questions(source) == [
        "line 1: a docstring begins with 'What'; take a noun phrase or an imperative",
        "line 3: a docstring begins with 'Whether'; take a noun phrase or an imperative",
    ]


def test_variables_of_tests_use_the_vocabulary() -> None:
    """No variable or parameter of a test is only a word of which the vocabulary says that it says nothing."""
    sentences = [
        f"{path.relative_to(TESTS)}: {sentence}"
        for path in sorted(TESTS.rglob("*.py"))
        for sentence in empty_variables(path.read_text(encoding="utf-8"))
    ]
    assert sentences == []


def test_a_variable_that_says_nothing_is_refused() -> None:
    """Parameters and targets of assignments, loops, `with` and walrus are checked; attributes and keywords are not."""
    source = (
        "for one in (): f(one.said, way=1)\nwith f() as life: pass\ndef f(meant): (again := 1)\nfirst, _found = 1, 2"
    )
    assert [sentence.partition(" says")[0] for sentence in empty_variables(source)] == [
        "line 1: 'one'",
        "line 2: 'life'",
        "line 3: 'meant'",
        "line 3: 'again'",
        "line 4: '_found'",
    ]


def test_names_use_the_vocabulary() -> None:
    """Each name is a word of the field; a forbidden one fails with the word to take."""
    sentences: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        sources = (path.read_text(encoding="utf-8"), f"{path.stem} = 0")
        sentences += [f"{path.relative_to(PACKAGE)}: {sentence}" for source in sources for sentence in faults(source)]
    assert sentences == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("for one in rows: pass", "line 1: 'one' says nothing; take the element: `device`, `batch`, `row`"),
        ("def _told(): pass", "line 1: '_told' uses 'told'; take `reported`, `payload` of a task, `command`"),
        ("class LeasePlea: pass", "line 1: 'LeasePlea' uses 'plea'; take lease `request`"),
        ("def f(veil_key): pass", "line 1: 'veil_key' uses 'veil'; take `pseudonymise`"),
    ],
)
def test_a_forbidden_word_is_refused_with_the_right_one(source: str, sentence: str) -> None:
    """In a loop, a function, a class and a parameter."""
    assert faults(source) == [sentence]


def test_a_word_that_only_contains_another_is_allowed() -> None:
    """`one_code` and `found_at` say something; `seating` is not `seat`."""
    assert faults("one_code = found_at = seating = 0") == []


def test_the_name_of_a_class_is_unique() -> None:
    """One word, one meaning: no two public classes of the package have the same name."""
    places: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in module(path.read_text(encoding="utf-8")).classes:
            if not name.startswith("_"):
                places.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
