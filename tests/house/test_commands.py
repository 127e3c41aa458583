"""Every command that a document names is there, with the options that it gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.commands import loaded_root

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *sorted(ROOT.glob("README*.md")),
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
