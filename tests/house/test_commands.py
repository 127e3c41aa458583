"""Every command that a document names is there, with the options that it gives."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.commands import loaded_root

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *sorted(ROOT.glob("README*.md")),
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "config").glob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
    ROOT / "device_profiles" / "README.md",
    ROOT / "config" / "node.yaml",
    ROOT / "config" / "centre.yaml",
)
CALL = re.compile(r"(?:^|[\s`($/])sensegate((?: +(?:'[^']*'|\"[^\"]*\"|[^\s`|#;&()'\"]+))+)", re.MULTILINE)
PROSE = frozenset({"raises", "sensegate", "--version", "--help", "COMMAND"})
"""What stands behind the name where no command does."""
ROOT_COMMAND = loaded_root()


def calls(text: str) -> list[list[str]]:
    """Return the words of each call in a text: of code blocks, and between backticks."""
    text = text.replace("\\\n", " ")
    return [re.findall(r"'[^']*'|\"[^\"]*\"|\S+", call[1]) for call in CALL.finditer(text)]


def wrong(words: list[str]) -> str:
    """Return what is wrong with a call; empty where nothing is, or where it is no call but prose."""
    command, at = ROOT_COMMAND, 0
    while hasattr(command, "commands") and at < len(words):
        record = command.commands.get(words[at].rstrip(".,:"))
        if record is None:
            break
        command, at = record, at + 1
    if command is ROOT_COMMAND:
        head = words[0]
        return "" if head in PROSE or not re.fullmatch("[a-z-]+", head) else f"no '{head}'"
    if hasattr(command, "commands"):
        return f"no '{words[at]}' in {command.name}" if at < len(words) and re.fullmatch("[a-z-]+", words[at]) else ""
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    given = {word.partition("=")[0] for word in words[at:] if re.match(r"--?[a-z]", word)}
    unknown = given - known - {"--help", "-h"}
    return f"{command.name} has no {', '.join(sorted(unknown))}" if unknown else ""


def too_many(words: list[str]) -> str:
    """Return which argument of a call its command does not take; empty: none."""
    command, at = ROOT_COMMAND, 0
    while hasattr(command, "commands") and at < len(words) and words[at] in command.commands:
        command, at = command.commands[words[at]], at + 1
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    counts = [parameter.nargs for parameter in command.params if parameter.param_type_name == "argument"]
    left = 1_000 if -1 in counts else sum(counts)
    values = 0
    for word in words[at:]:
        if word.startswith("-"):
            option = options.get(word)
            values = 0 if option is None or option.is_flag else option.nargs
        elif values:
            values -= 1
        elif not left:
            return f"{command.name} takes no '{word}'"
        else:
            left -= 1
    return ""


def texts_of(source: str) -> list[str]:
    """Return the texts of a module that a program prints: its strings without docstrings, X for what is inserted."""
    nodes = list(ast.walk(ast.parse(source)))
    hidden = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    hidden |= {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = []
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            texts.append(node.value)
    return texts


@cache
def advised(source: str) -> list[list[str]]:
    """Return the words of each call between backticks in the texts of a module; one that names none is not parsed."""
    if not CALL.search(source):
        return []
    return [words for text in texts_of(source) for quoted in re.findall(r"`[^`]+`", text) for words in calls(quoted)]


def test_commands_that_texts_advise_exist() -> None:
    """An error, a warning, a help or the console names a command, its options and arguments as they are."""
    advice = [
        (path.name, words)
        for path in sorted((ROOT / "src" / "sensegate").rglob("*.py"))
        for words in advised(path.read_text("utf-8"))
    ]
    for path in (ROOT / "src" / "sensegate" / "web" / "page").rglob("*.texts.js"):
        quoted = " ".join(re.findall(r"`sensegate [^`]+`", path.read_text("utf-8")))
        advice += [(path.name, words) for words in calls(quoted.replace("{", "").replace("}", ""))]
    assert [(name, *words, problem) for name, words in advice if (problem := wrong(words) or too_many(words))] == []


def test_advice_that_leads_nowhere_is_found() -> None:
    """Control: a command that does not exist, and a name for one that takes none; docstrings are no advice."""
    advice = 'f"see `sensegate profile list {name}`", "`sensegate profile draft X`"'
    source = f'def f():\n    "`sensegate gone`"\n    raise E({advice})'
    words = advised(source)
    assert sorted(wrong(call) or too_many(call) for call in words) == ["list takes no 'X'", "no 'draft' in profile"]


def test_most_modules_that_refuse_advise() -> None:
    """There is such advice."""
    sources = (path.read_text("utf-8") for path in (ROOT / "src" / "sensegate").rglob("*.py"))
    assert sum(len(advised(source)) for source in sources) > 80


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(path: Path) -> None:
    """What a reader copies is understood."""
    texts = [f"sensegate {' '.join(words)}: {why}" for words in calls(path.read_text("utf-8")) if (why := wrong(words))]
    assert texts == []


def test_what_is_not_there_is_found() -> None:
    """A command and an option that were renamed are seen."""
    text = (
        "`sensegate mode order flood --hours 6` or\n```sh\nPASSWORD=$(.venv/bin/sensegate device frobnicate x)\n```\n"
    )
    assert [wrong(words) for words in calls(text)] == ["order has no --hours", "no 'frobnicate' in device"]


def test_calls_are_found() -> None:
    """Most documents name some."""
    assert sum(len(calls(path.read_text("utf-8"))) for path in DOCUMENTS) > 60
