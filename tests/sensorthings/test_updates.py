"""Updates by MQTT in memory: what one topic or one round cannot have does not end the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sensegate.clock import FakeClock
from sensegate.collect.front.services import ServiceUser
from sensegate.errors import NotFound, Overloaded, SensegateError, StoreFull
from sensegate.sensorthings import updates
from sensegate.sensorthings.kinds import KINDS, Entity
from sensegate.sensorthings.pages import EntityRange
from sensegate.sensorthings.service import ResourceTarget
from sensegate.sensorthings.topics import parse_topic
from sensegate.sensorthings.updates import TokenUpdates, UpdateParts

SET, NAME = "v1.1/Things", "v1.1/Things(1)/name"


class Kept:
    """A service with a set of Things, and the name of one; it is its own view, and publishes to itself."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ids: list[int] = []
        self.name = "a"
        self.failures: list[SensegateError] = []
        self.published: list[tuple[str, Any]] = []
        nothing = SimpleNamespace(entries=(), end=1)
        self.reader = SimpleNamespace(
            log=SimpleNamespace(bounds=self._later((1, 1))),
            catch_up=self._later(None),
            wait=self._later(None),
            read=self._later(nothing),
            end=1,
        )
        self.sharing = SimpleNamespace(reader=self.reader, reserve=self._reserve, count=lambda *_, **__: None)
        self.admission = SimpleNamespace(quota=None, grant_id="")
        self.principal = None
        self.sessions = SimpleNamespace(waiting=self._later(0))
        parts: Any = {"service": self, "tokens": SimpleNamespace(principal=lambda _token: None), "publisher": self}
        self.updates = TokenUpdates(UpdateParts(**parts, clock=self.clock, base=""), ServiceUser("t1", "sta"))

    @staticmethod
    def _later(answer: Any) -> Any:
        async def call(*_: object) -> Any:
            return answer

        return call

    @asynccontextmanager
    async def _reserve(self, *_: object) -> AsyncIterator[None]:
        if self.failures:
            raise self.failures.pop()
        yield

    async def view(self, *_: object) -> Any:
        return self

    async def resolve(self, _view: object, steps: tuple[Any, ...]) -> ResourceTarget:
        if len(steps) == 1:
            return ResourceTarget(EntityRange(KINDS["Thing"], self.ids))
        return ResourceTarget(entity=Entity(KINDS["Thing"], 1, {"name": self.name}), names=("name",))

    def entities(self, _kind: str, _ids: object) -> list[Entity]:
        return []

    async def publish(self, topic: str, body: bytes) -> None:
        self.published.append((topic, json.loads(body)))

    async def follow(self, *topics: str) -> asyncio.Task[None]:
        """Follow topics, to each of which a client subscribes, and run their updates."""
        for text in topics:
            await self.updates.follow(parse_topic(text))
            self.updates.topics[text].connections = 1
        task = asyncio.create_task(self.updates.run())
        await asyncio.sleep(0)
        return task

    async def rename(self, name: str) -> None:
        """Change the name, and let some rounds pass."""
        self.name = name
        await self.clock.advance(30)


async def test_a_set_that_grows_too_large_is_dropped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set with too many entities is no longer followed; the other topics of the token go on."""
    kept = Kept()
    monkeypatch.setattr(updates, "ENTITIES_MAX", 0)
    task = await kept.follow(SET, NAME)
    assert kept.updates.topics.keys() == {SET, NAME}
    kept.ids.append(1)
    await kept.rename("b")
    assert not task.done()
    assert kept.updates.topics.keys() == {NAME}
    assert kept.published == [(f"sg/sta/t1/{NAME}", {"name": "b"})]
    await kept.rename("c")
    assert kept.published[1:] == [(f"sg/sta/t1/{NAME}", {"name": "c"})]
    task.cancel()


@pytest.mark.parametrize("why", [NotFound("no feed"), Overloaded("too many requests"), StoreFull("no room")])
async def test_a_round_that_fails_is_not_the_last(why: SensegateError) -> None:
    """Updates that may not be published now are published later, and end nothing."""
    kept = Kept()
    task = await kept.follow(NAME)
    kept.failures.append(why)
    await kept.rename("b")
    assert not task.done()
    assert kept.published == [(f"sg/sta/t1/{NAME}", {"name": "b"})]
    task.cancel()
