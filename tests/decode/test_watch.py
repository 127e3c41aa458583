"""Profiles that change while running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sensegate.authoring.examples import failing_example
from sensegate.clock import FakeClock
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.watch import LOOK_S, ProfileWatcher
from tests.conftest import eventually

TEXT = """\
profile: acme/{name}
version: {version}
label: {{zh: 温度计, en: thermometer}}
source: made for the test
messages:
  - label: telemetry
    topics: ["acme-{name}/{{device}}/up"]
    readings:
      - {{field: t, property: air_temperature, unit: Cel}}
examples:
  - label: one
    topic: acme-{name}/d1/up
    payload: {{"t": 21.5}}
    expect:
      - {{property: air_temperature, value: 21.5}}
"""


class Watched:
    """A folder with profiles, looked at by a clock that is told when."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.folder = folder / "acme"
        self.folder.mkdir()
        self.clock = clock
        self.write("a")
        self.profiles = ProfileWatcher([folder], clock)
        self.heard: list[tuple[ProfileSet, list[str]]] = []
        self.profiles.on_change.append(lambda now, changed: self.heard.append((now, changed)))

    def write(self, name: str, version: object = 1) -> Path:
        """Write a profile; a version that is no number makes it wrong on line 2."""
        file = self.folder / f"{name}.yaml"
        file.write_text(TEXT.format(name=name, version=version), encoding="utf-8")
        return file

    async def looked(self, times: int = 1) -> list[str]:
        """Let it look at the files and return what it said had changed since the last call, after so many tellings."""

        async def is_reported() -> bool:
            await self.clock.advance(LOOK_S)
            return len(self.heard) >= times

        await eventually(is_reported)
        changed = [name for _, names in self.heard for name in names]
        self.heard.clear()
        return changed


@pytest.fixture
async def watched(tmp_path: Path, fake_clock: FakeClock) -> AsyncIterator[Watched]:
    made = Watched(tmp_path, fake_clock)
    task = asyncio.create_task(made.profiles.run())
    yield made
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_said_while_nothing_changes(watched: Watched) -> None:
    """Files that stay as they are are not read again."""
    before = watched.profiles.set
    for _ in range(3):
        await watched.clock.advance(LOOK_S)
    watched.write("b")
    assert await watched.looked() == ["acme/b"]
    assert watched.profiles.set is not before
    assert watched.profiles.set.find("acme/a") is before.find("acme/a")


async def test_changed_new_and_gone_are_named(watched: Watched) -> None:
    """Each by its id; the set handed out is the one in force; one that is gone is in force no more."""
    watched.write("a", 2)
    assert await watched.looked() == ["acme/a"]
    assert watched.profiles.set.versions == {"acme/a": 2}
    file = watched.write("b")
    assert await watched.looked() == ["acme/b"]
    file.unlink()
    assert await watched.looked() == ["acme/b"]
    assert watched.profiles.set.ids == ["acme/a"]


async def test_a_broken_file_leaves_the_last_good_version(watched: Watched) -> None:
    """It is named with file and line until it is mended; others are taken up meanwhile."""
    good = watched.profiles.set.find("acme/a")
    file = watched.write("a", "one")
    assert await watched.looked() == []
    assert watched.profiles.set.find("acme/a") is good
    assert [f"{file}:2" in trouble for trouble in watched.profiles.problems()] == [True]
    watched.write("b")
    assert await watched.looked() == ["acme/b"]
    assert len(watched.profiles.problems()) == 1
    watched.write("a", 3)
    assert await watched.looked() == ["acme/a"]
    assert watched.profiles.problems() == []
    assert watched.profiles.set.versions["acme/a"] == 3


async def test_specs_keep_their_places(watched: Watched) -> None:
    """What was decoded before a change is still read with the specs it was decoded with."""
    before = list(watched.profiles.set.specs)
    watched.write("a", 2)
    await watched.looked()
    specs = watched.profiles.set.specs
    assert specs[: len(before)] == before
    assert specs[-1].profile == "acme/a@2"


def test_wrong_at_the_very_start(tmp_path: Path, fake_clock: FakeClock) -> None:
    """Left out and named; the others are in force. A folder that is not there is named, too."""
    folder = tmp_path / "acme"
    folder.mkdir()
    (folder / "a.yaml").write_text(TEXT.format(name="a", version="one"), encoding="utf-8")
    (folder / "b.yaml").write_text(TEXT.format(name="b", version=1), encoding="utf-8")
    profiles = ProfileWatcher([tmp_path, tmp_path / "not-there"], fake_clock)
    assert profiles.set.ids == ["acme/b"]
    assert len(profiles.problems()) == 2
    assert any("a.yaml:2" in trouble for trouble in profiles.problems())
    assert any("not-there" in trouble for trouble in profiles.problems())


async def test_odd_files_end_nothing(watched: Watched) -> None:
    """A link to itself, a folder with a profile's name, bytes that are no text: named, and the watch goes on."""
    (watched.folder / "loop.yaml").symlink_to(watched.folder / "loop.yaml")
    (watched.folder / "folder.yaml").mkdir()
    (watched.folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert await watched.looked() == []
    assert len(watched.profiles.problems()) == 3
    watched.write("b")
    assert await watched.looked() == ["acme/b"]


DRAFT = "draft: true\n"


async def test_a_draft_in_a_folder_is_listed_and_never_in_force(tmp_path: Path, fake_clock: FakeClock) -> None:
    """Neither at the start nor as a new version of a profile in force, whose last good version stays."""
    text = (Path(__file__).parents[2] / "device_profiles" / "sensegate" / "plain.yaml").read_text(encoding="utf-8")
    file = tmp_path / "sensegate" / "plain.yaml"
    file.parent.mkdir()
    file.write_text(text + DRAFT, encoding="utf-8")
    watched = ProfileWatcher([tmp_path], fake_clock)
    assert watched.set.ids == []
    assert ["is a draft and not in force" in problem for problem in watched.problems()] == [True]
    file.write_text(text, encoding="utf-8")
    assert ProfileWatcher([tmp_path], fake_clock).set.ids == ["sensegate/plain"]


async def test_failing_examples_keep_a_file_out_of_force(tmp_path: Path, fake_clock: FakeClock) -> None:
    """As the gateway examines it; without the examination it would be in force."""
    text = (Path(__file__).parents[2] / "device_profiles" / "sensegate" / "plain.yaml").read_text(encoding="utf-8")
    assert "value: 21.5" in text
    (tmp_path / "sensegate").mkdir()
    file = tmp_path / "sensegate" / "plain.yaml"
    file.write_text(text.replace("value: 21.5", "value: 22.5", 1), encoding="utf-8")
    watched = ProfileWatcher([tmp_path], fake_clock, examine=failing_example)
    assert watched.set.ids == []
    assert "example '" in watched.problems()[0]
    assert ProfileWatcher([tmp_path], fake_clock).set.ids == ["sensegate/plain"]
