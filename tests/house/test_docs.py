"""The documents are under test: generated tables are fresh, the walk names every folder, examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sensegate import config
from sensegate.decode.formats import FORMATS
from sensegate.errors import ConfigError
from tests.house import docs

ROOT = docs.ROOT


def test_generated_tables_are_fresh() -> None:
    """`make docs` would change nothing."""
    stale = [
        path.relative_to(ROOT).as_posix()
        for path in docs.documents()
        if docs.regenerate(path.read_text()) != path.read_text()
    ]
    assert not stale, f"run `make docs`, which writes {', '.join(stale)} again"


def test_the_formats_without_types_are_named() -> None:
    """Where the document says which payload formats have nothing but text, it names all of them."""
    text = (ROOT / "device_profiles/README.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"^In ([^.]*?) every value is text", text, re.MULTILINE)
    untyped = {name for name, form in FORMATS.items() if not form.typed}
    assert set(re.findall(r"`(\w+)`", sentence)) == untyped


def test_every_table_stands_in_a_document() -> None:
    """No generated table is forgotten."""
    text = "".join(path.read_text(encoding="utf-8") for path in docs.documents())
    assert {block[2] for block in docs.MARKED.finditer(text)} == set(docs.TABLES)


def test_the_walk_names_every_folder() -> None:
    """The package README names each folder of the package, in the order of the flow."""
    text = (ROOT / "src/sensegate/README.md").read_text(encoding="utf-8")
    order = re.findall(r"\| \d \| `(\w+)/`", text)
    assert order == ["collect", "decode", "normalise", "persist", "share", "web"]
    for folder in ("authority", "bus", "frames", "scripts"):
        assert f"`{folder}/`" in text


@pytest.mark.parametrize("name", ["node.yaml", "centre.yaml"])
def test_example_configurations_load(name: str) -> None:
    """What stands in config/ is valid and of the role its name says."""
    assert config.load(ROOT / "config" / name).role == name.removesuffix(".yaml")


BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_configuration_gives_its_message(path: Path) -> None:
    """The first line of each bad file is the message that a user gets."""
    expected = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    with pytest.raises(ConfigError) as caught:
        config.parse(path.read_text(encoding="utf-8"), file=path.name)
    assert str(caught.value) == expected


def test_there_are_bad_configurations() -> None:
    """The list of bad files was not lost."""
    assert len(BAD) >= 4


def test_a_profile_has_one_name_in_chinese() -> None:
    """物模型, wherever people read Chinese."""
    pages = (ROOT / "src/sensegate/web/page").rglob("*.*")
    read = [ROOT / "README.zh-CN.md", *(path for path in pages if path.is_file())]
    terms = {path.name: re.findall("画像|设备描述|设备档案|配置文件", path.read_text("utf-8")) for path in read}
    assert not any(terms.values()), terms
    assert "物模型" in read[0].read_text("utf-8")
