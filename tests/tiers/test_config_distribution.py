"""What a centre hands down: taken where it is sound, refused where it is not, and what was in force stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.authority.scope import Scope
from sensegate.decode.choice import VersionChoice
from sensegate.errors import NotFound, PermissionDenied
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.release_registry import Examination
from sensegate.tiers import config_distribution
from sensegate.tiers.config_distribution import ConfigPublisher, ConfigReceiver
from tests.support.release_office import CITY, COUNTY, NAME, PROVINCE, Office, text


class Pair:
    """A centre and a node, tied by calls."""

    def __init__(self, folder: Path) -> None:
        self.centre = Office(folder / "centre", home="44")
        self.node = Office(folder / "node")
        self.names: list[str] = []
        self.offers = ConfigPublisher(self.centre.releases, lambda: self.names, home="44", standard=("acme",))
        self.asked: list[str] = []
        self.taking = ConfigReceiver(
            self.node.releases, self.node.releases.contents, self.node.trail, self._ask, centre="44"
        )

    async def _ask(self, subject: str, payload: bytes) -> bytes:
        self.asked.append(subject)
        try:
            answer = self.offers.answer_base if subject == "base" else self.offers.answer_content
            return await answer("4401", payload)
        except NotFound as why:
            raise PermissionDenied(str(why)) from why

    async def release(self, version: int, word: str = "good", target: Scope | None = None) -> None:
        await self.centre.releases.draft(text(version), by=PROVINCE)
        await self.centre.releases.propose(NAME, version, by=PROVINCE)
        await self.centre.releases.release(NAME, version, by=PROVINCE, target=target)

    async def sync(self) -> None:
        await self.taking.apply(self.offers.digest("4401"))

    def in_force(self) -> list[tuple[int, str]]:
        return [
            (choice.number, choice.target.division)
            for choice in self.node.releases.choices()
            if isinstance(choice, VersionChoice)
        ]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


async def test_a_release_of_the_province_comes_in_force_at_the_node(pair: Pair) -> None:
    """And the next; a rollback too. Nothing is asked for while nothing has changed."""
    await pair.release(2)
    await pair.sync()
    assert pair.in_force() == [(2, "44")]
    assert pair.node.of("d1") == 2
    pair.asked.clear()
    await pair.sync()
    assert pair.asked == []
    await pair.release(3)
    await pair.sync()
    assert pair.node.of("d1") == 3
    await pair.centre.releases.rollback(NAME, by=PROVINCE)
    await pair.sync()
    assert pair.node.of("d1") == 2
    steps = [step for _, step, _ in pair.node.steps()]
    assert steps == ["profile.apply_from_centre"] * 3


async def test_what_is_decided_for_another_city_is_not_told(pair: Pair) -> None:
    """A version for 4403 never reaches 4401; one for a county of it does, and only there."""
    await pair.release(2, target=Scope("4403"))
    await pair.sync()
    assert pair.in_force() == []
    await pair.release(3, target=Scope("440103"))
    await pair.sync()
    assert pair.node.of("d1") == 0
    assert pair.node.of("d30") == 3


async def test_a_city_decides_within_what_the_province_decided(pair: Pair) -> None:
    """Its own release stays where the province says nothing new, and ends where it does."""
    await pair.release(2)
    await pair.sync()
    await pair.node.releases.draft(text(5), by=COUNTY)
    await pair.node.releases.propose(NAME, 5, by=COUNTY)
    await pair.node.releases.release(NAME, 5, by=CITY)
    pair.offers.invalidate()
    await pair.sync()
    assert pair.node.of("d1") == 5
    await pair.release(6)
    await pair.sync()
    assert pair.node.of("d1") == 6


@pytest.mark.parametrize("how", ["broken", "other content", "lost"])
async def test_what_is_not_sound_is_refused_and_the_last_good_stays(
    pair: Pair, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an alarm on the trail, once, and a trouble as long as it lasts; mended by another release."""
    await pair.release(2)
    await pair.sync()
    await pair.release(3)
    if how == "broken":
        # It is sound where it was released and not here: e.g. a table of another release.
        good = pair.node.releases.examine

        async def examine(content: Content) -> Examination:
            result = await good(content)
            return Examination(result.profile, result.number, ("example 'one': saw 21",) if result.number == 3 else ())

        monkeypatch.setattr(pair.node.releases, "examine", examine)
    elif how == "other content":
        await pair.node.releases.draft(text(3, "other"), by=COUNTY)
        await pair.node.releases.propose(NAME, 3, by=COUNTY)
        await pair.node.releases.release(NAME, 3, by=CITY, target=Scope("440103"))
    else:
        version = pair.centre.releases.history(NAME).find(3)
        assert version
        await pair.centre.kept.delete(version.digest)
    await pair.sync()
    await pair.sync()
    assert pair.node.of("d1") == 2
    assert len(pair.taking.problems()) == 1
    assert NAME in pair.taking.problems()[0]
    assert [step for _, step, _ in pair.node.steps()].count("profile.apply_from_centre.refused") == 1
    await pair.release(4)
    await pair.sync()
    assert pair.node.of("d1") == 4
    assert pair.taking.problems() == []


async def test_a_newer_folder_of_the_centre_reaches_nodes_with_an_older_one(pair: Pair) -> None:
    """Standard profiles only; a node that is as new keeps its own."""
    pair.names = [NAME]
    pair.centre.library[NAME] = (2, text(2))
    pair.node.library[NAME] = (2, text(2))
    await pair.sync()
    assert pair.in_force() == []
    pair.centre.library[NAME] = (3, text(3))
    pair.offers.invalidate()
    await pair.sync()
    assert pair.node.of("d1") == 3


def test_other_tables_are_named() -> None:
    mine = config_distribution.table_digests()
    assert set(mine) == {"properties", "codes", "divisions"}
    assert config_distribution.tables_note(mine, mine) == ""
    assert "properties" in config_distribution.tables_note(mine, {**mine, "properties": "x"})
    assert config_distribution.tables_note(mine, {}) == ""
