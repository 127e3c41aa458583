"""Links of the documents lead somewhere; files and targets that a contributor is sent to are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "config/*.md", "deploy/*.md", "device_profiles/*.md", "src/sensegate/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
FOR_CONTRIBUTORS = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "tests" / "README.md"]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
FILE = re.compile(r"(?<![\w/.<])((?:[\w.-]+/)*[\w-]+(?:\.(?:py|md|yaml|csv)|/))(?![\w<*])")
MAKE = re.compile(r"\bmake ([a-z]+)")


def lost_links(document: Path, text: str) -> list[str]:
    """Return the relative links of a document that lead nowhere."""
    return [link for link in LINK.findall(text) if not (document.parent / link).exists()]


def code_in(text: str) -> str:
    """Return what stands in code blocks and between backticks."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def lost_files(text: str) -> list[str]:
    """Return the files and folders that a text names in code and that are neither in the root nor in a folder of it."""
    code = code_in(text)
    roots = [ROOT, ROOT / "tests", ROOT / "src" / "sensegate", *(ROOT / "src" / "sensegate").glob("*/")]
    roots += [ROOT / "src" / "sensegate" / "decode" / "formats", ROOT / "tests" / "decode" / "formats"]
    return [name for name in FILE.findall(code) if not any((root / name).exists() for root in roots)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert lost_links(document, document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", FOR_CONTRIBUTORS, ids=lambda path: path.name)
def test_what_a_contributor_is_sent_to_is_there(document: Path) -> None:
    """Files, folders and targets of make."""
    text = document.read_text(encoding="utf-8")
    assert lost_files(text) == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {*MAKE.findall(code_in(text))} - {*targets} == set()


def test_what_is_not_there_is_found() -> None:
    """A link, a file and a folder that were moved."""
    assert lost_links(ROOT / "README.md", "[a](gone.md) [b](README.md#x) [c](https://x.example/y.md)") == ["gone.md"]
    assert lost_files("`src/sensegate/gone.py` `tests/gone/` `tests/conftest.py` gone.py") == [
        "src/sensegate/gone.py",
        "tests/gone/",
    ]
