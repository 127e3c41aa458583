"""Do a profile's examples notice a mistake in its script? Every number in it is made wrong in turn."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensegate.authoring.examples import check_profile

ROOT = Path(__file__).parents[2] / "device_profiles"
SHARE = 0.95
"""So many of the mistakes must be noticed."""
_NUMBER = re.compile(r"(?<![\w.$#])(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:e\d+)?)\b")
_SILENT = re.compile(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"", re.DOTALL)


def mistakes(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) with one number of a script one too great, comments and texts left out."""
    silent = [match.span() for match in _SILENT.finditer(text)]
    for span_match in _NUMBER.finditer(text):
        if any(begin <= span_match.start() < end for begin, end in silent):
            continue
        number = (
            str(int(span_match[0], 16) + 1)
            if span_match[0].startswith("0x")
            else repr(float(span_match[0]) + 1).removesuffix(".0")
        )
        yield (
            text.count("\n", 0, span_match.start()) + 1,
            text[: span_match.start()] + number + text[span_match.end() :],
        )


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(ROOT.glob("*/*.js")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_examples_notice_a_wrong_number_in_a_script(file: Path, tmp_path: Path) -> None:
    """What no example notices might as well be wrong."""
    folder = tmp_path / file.parent.name
    folder.mkdir()
    profile = Path(shutil.copy(file.with_suffix(".yaml"), folder))
    text = file.read_text(encoding="utf-8")
    (folder / file.name).write_text(text, encoding="utf-8")
    assert check_profile(profile) == []
    made, unnoticed = 0, []
    for line, wrong in mistakes(text):
        (folder / file.name).write_text(wrong, encoding="utf-8")
        made += 1
        if not check_profile(profile):
            unnoticed.append(f"{file.name}:{line}: {wrong.splitlines()[line - 1].strip()}")
    print(f"{file.name}: {made - len(unnoticed)} of {made} noticed", *unnoticed, sep="\n")
    assert len(unnoticed) <= (1 - SHARE) * made


def test_mistakes_are_made() -> None:
    """Numbers in comments and texts are none of them."""
    text = 'var a1 = 0x0f; // 5\nreturn "6" + x[2] * 1.5;'
    assert [(line, wrong.splitlines()[line - 1]) for line, wrong in mistakes(text)] == [
        (1, "var a1 = 16; // 5"),
        (2, 'return "6" + x[3] * 1.5;'),
        (2, 'return "6" + x[2] * 2.5;'),
    ]
