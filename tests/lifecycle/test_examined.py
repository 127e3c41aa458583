"""Profiles are examined once for each content and code; nothing but the gateway's own file spares them that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sensegate.authoring.examples import failing_example
from sensegate.bus.backup.contents import FileKind, kind_of
from sensegate.decode.profile import CompiledProfile
from sensegate.decode.profiles import ProfileSet
from sensegate.demo.city import EXAMINED
from sensegate.errors import ProfileError
from sensegate.lifecycle import examined
from sensegate.lifecycle.examined import FILE, ROOMS, ExaminedProfiles, code_digest, digest_of, reads_files
from tests.house import graph

DEVICE_PROFILES = Path(__file__).parents[2] / "device_profiles"
TEXT = """\
profile: acme/a
version: 1
label: {zh: 温度计, en: thermometer}
source: made for the test
messages:
  - topics: ["acme/{device}/up"]
    readings:
      - {field: t, property: air_temperature, unit: Cel}
examples:
  - label: warm
    topic: acme/d1/up
    payload: {"t": 21.5}
    expect:
      - {property: air_temperature, value: 21.5}
"""
WRONG = TEXT.replace("value: 21.5", "value: 22.5")


class Start:
    """A start of a gateway that counts the profiles examined."""

    def __init__(self, directory: Path, folder: Path, code: str = "release 1") -> None:
        self.names: list[str] = []
        profiles = ExaminedProfiles(directory, self._examine, code)
        self.set = ProfileSet([], []).reload([folder], examine=profiles)
        profiles.save()

    def _examine(self, profile: CompiledProfile) -> ProfileError | None:
        self.names.append(profile.id)
        return failing_example(profile)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a profile whose example passes."""
    folder = tmp_path / "profiles" / "acme"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text(TEXT, encoding="utf-8")
    return folder


def test_a_profile_that_has_passed_is_not_examined_by_the_next_start(tmp_path: Path, folder: Path) -> None:
    """The second start finds it in the gateway's directory, in a file that others cannot read or write."""
    assert Start(tmp_path, folder).names == ["acme/a"]
    reopened = Start(tmp_path, folder)
    assert (reopened.names, reopened.set.ids) == ([], ["acme/a"])
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_an_edited_profile_is_examined_again(tmp_path: Path, folder: Path) -> None:
    """Whatever was edited, an example or a rule; one whose example fails is not in force, then and later."""
    Start(tmp_path, folder)
    (folder / "a.yaml").write_text(WRONG, encoding="utf-8")
    for _ in range(2):
        start = Start(tmp_path, folder)
        assert (start.names, start.set.ids) == (["acme/a"], [])
    (folder / "a.yaml").write_text(TEXT.replace("unit: Cel", "unit: K"), encoding="utf-8")
    start = Start(tmp_path, folder)
    assert (start.names, start.set.ids) == (["acme/a"], [])


def test_another_release_examines_all(tmp_path: Path, folder: Path) -> None:
    """A verdict of other code or other libraries says nothing."""
    Start(tmp_path, folder)
    assert Start(tmp_path, folder, "release 2").names == ["acme/a"]
    assert Start(tmp_path, folder, "release 2").names == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"code": "release 1", "passed": 7}', b"\xff\xfe"])
def test_a_damaged_file_examines_all(tmp_path: Path, folder: Path, content: bytes) -> None:
    """It is written anew."""
    Start(tmp_path, folder)
    (tmp_path / FILE).write_bytes(content)
    assert Start(tmp_path, folder).names == ["acme/a"]
    assert Start(tmp_path, folder).names == []


def test_a_file_beside_the_profiles_says_nothing(tmp_path: Path, folder: Path) -> None:
    """Who may write profiles cannot spare one its examples."""
    Start(tmp_path, folder)
    for place in (folder, folder.parent):
        (place / FILE).write_bytes((tmp_path / FILE).read_bytes())
    directory = tmp_path / "other"
    directory.mkdir()
    assert Start(directory, folder).names == ["acme/a"]


def test_a_directory_that_cannot_be_written_only_costs_time(tmp_path: Path, folder: Path) -> None:
    """The profiles are in force all the same."""
    for _ in range(2):
        start = Start(tmp_path / "missing", folder)
        assert (start.names, start.set.ids) == (["acme/a"], ["acme/a"])


def test_a_profile_that_depends_on_other_files_is_examined_at_each_start(tmp_path: Path) -> None:
    """Its script or its keys may have changed without it."""
    scripts = DEVICE_PROFILES / "watteco"
    assert all(
        reads_files(profile) for profile in map(ProfileSet.load([scripts / "th.yaml"]).find, ["watteco/th"]) if profile
    )
    for _ in range(2):
        assert Start(tmp_path, scripts / "th.yaml").names == ["watteco/th"]


def test_only_these_formats_read_files() -> None:
    """`reads_files` knows every format that opens a file of the profile's folder."""
    formats = Path(examined.__file__).parents[1] / "decode"
    opening = {path.stem for path in formats.rglob("*.py") if re.search(r"\.folder\b", path.read_text("utf-8"))}
    assert opening == {"hj212", "script"}


@pytest.mark.slow
def test_the_code_that_counts_is_all_that_examples_import() -> None:
    """A change in any module that running examples can reach changes the digest."""
    imports = graph._imports()
    reached: set[str] = set()
    waiting = ["sensegate.authoring.examples", "sensegate.decode.profiles"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imports[module]
    rooms = {graph.room_of(module) for module in reached} - {""}
    assert rooms <= set(ROOMS), sorted(rooms - set(ROOMS))
    assert len(code_digest()) == 64


def test_every_part_of_a_profile_counts(folder: Path) -> None:
    """Profiles that differ in one word have different digests, equal ones the same."""

    def digest(text: str) -> str:
        (folder / "a.yaml").write_text(text, encoding="utf-8")
        profile = ProfileSet.load([folder]).find("acme/a")
        assert profile is not None
        return digest_of(profile)

    texts = [TEXT, WRONG, TEXT.replace("version: 1", "version: 2"), TEXT.replace("field: t", "field: u")]
    digests = [digest(text) for text in texts]
    assert len(set(digests)) == len(texts)
    assert digest(TEXT) == digests[0]


def test_a_backup_leaves_it_out() -> None:
    """A restored gateway examines its profiles itself."""
    assert kind_of(FILE) is FileKind.OMITTED


def test_a_demo_copies_it_by_its_name() -> None:
    """The nodes of a demo take over what its centre has examined; a copy of another file would change nothing."""
    assert EXAMINED == FILE
