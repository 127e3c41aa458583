"""Features: a gateway's parts beside its core. Each registers itself in its own folder; `flow.FEATURES` lists them.

    FeatureSpec   known without a running gateway: settings, buckets, routes, commands
      .open(Parts) ─▶ Feature   what runs: tasks, sources, answers to nodes, parts of its routes, state of health

To add one, write its folder with a `FeatureSpec` and one line in `flow.FEATURES`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from sensegate.authority.callout import Callout, GuestOf, TopicsOf
from sensegate.authority.opening import Callers
from sensegate.bus.opening import Core
from sensegate.collect.contract import Source
from sensegate.ingest.opening import Stages
from sensegate.ingest.pipeline import Observer
from sensegate.ingest.sources import Sources
from sensegate.lifecycle.opening import ProfileLifecycle
from sensegate.share.stage import Share
from sensegate.web.parts import PartKey
from sensegate.web.routing import Route

T = TypeVar("T")

Run = Callable[[], Awaitable[None]]
"""Runs until cancelled."""
Answer = Callable[[str, bytes], Awaitable[bytes]]
"""(id of the member that asks, payload) -> the answer. Raises `SensegateError` to refuse."""
Check = Callable[[], Sequence[str]]
"""Returns a sentence for each fault."""


class Place(StrEnum):
    """Process in which a task may run once a gateway has several; today one process runs all."""

    FRONT = "front"
    """In each process that serves devices or clients."""
    HELPER = "helper"
    """In one process beside them."""
    OWNER = "owner"
    """In the process that writes the log."""


class Task(msgspec.Struct, frozen=True, eq=False):
    """A task that runs as long as the gateway; it is restarted when its connection is lost."""

    run: Run
    place: Place = Place.OWNER


def owned(tasks: Mapping[str, Run]) -> dict[str, Task]:
    """Return tasks that run in the process that writes the log."""
    return {name: Task(run) for name, run in tasks.items()}


async def nothing() -> None:
    """Do nothing."""


class Feature(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A feature that is open."""

    tasks: Mapping[str, Task] = {}
    sources: Sequence[Source] = ()
    observers: Sequence[Observer] = ()
    """Called with each batch of live messages."""
    parts: Mapping[PartKey[Any], Any] = {}
    """Parts for its routes and for the features that are opened after it."""
    guests: Sequence[GuestOf] = ()
    """Admit connections of clients that are no devices."""
    answers: Mapping[str, Answer] = {}
    """Name of a request of a node, or of the other centre -> its answer."""
    addresses: Mapping[str, str] = {}
    """Name of a listener -> its URL."""
    not_ready: Check = tuple
    """Returns why readings are not taken or given."""
    warnings: Check = tuple
    """Returns faults that do not stop readings."""
    begin: Run = nothing
    """Called once, when every part of the gateway is open and before the tasks start."""


class Features(msgspec.Struct, frozen=True, eq=False):
    """The open features of a gateway."""

    by_name: Mapping[str, Feature]

    @property
    def sources(self) -> list[Source]:
        """Sources for the ingest pipeline."""
        return [source for feature in self.by_name.values() for source in feature.sources]

    @property
    def observers(self) -> list[Observer]:
        """Observers of batches of live messages."""
        return [observer for feature in self.by_name.values() for observer in feature.observers]

    @property
    def guests(self) -> list[GuestOf]:
        """Functions that admit connections of clients that are no devices."""
        return [guest for feature in self.by_name.values() for guest in feature.guests]

    @property
    def parts(self) -> dict[PartKey[Any], Any]:
        """Parts for routes."""
        return {key: part for feature in self.by_name.values() for key, part in feature.parts.items()}

    @property
    def tasks(self) -> dict[str, Task]:
        """Name -> task."""
        return {name: task for feature in self.by_name.values() for name, task in feature.tasks.items()}

    def address(self, name: str) -> str:
        """Return the URL of a listener; empty: there is none of that name."""
        addresses = (feature.addresses.get(name, "") for feature in self.by_name.values())
        return next(filter(None, addresses), "")

    async def begin(self) -> None:
        """Tell every feature that all parts of the gateway are open."""
        for feature in self.by_name.values():
            await feature.begin()


class Health:
    """State of the gateway, as the checks of its parts say it."""

    def __init__(self) -> None:
        self._not_ready: list[Check] = []
        self._warnings: list[Check] = []

    def watch(self, *, not_ready: Check = tuple, warnings: Check = tuple) -> None:
        """Include the checks of a part."""
        self._not_ready.append(not_ready)
        self._warnings.append(warnings)

    def not_ready(self) -> list[str]:
        """Return why readings are not taken or given; empty when the gateway is ready."""
        return [problem for check in self._not_ready for problem in check()]

    def warnings(self) -> list[str]:
        """Return faults that do not stop readings."""
        return [problem for check in self._warnings for problem in check()]


class Parts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Finished core parts of a gateway, on which features are built."""

    core: Core
    callers: Callers
    lifecycle: ProfileLifecycle
    topics_of: TopicsOf
    """Topics that a device may use now."""
    callout: Callout
    sources: Sources
    stages: Stages
    share: Share
    health: Health
    stack: contextlib.AsyncExitStack
    """Closes what a feature opens."""
    provided: Mapping[PartKey[Any], Any]
    """Parts that were opened before all features."""
    earlier: Sequence[Feature] = ()
    """The features opened before this one."""

    def find(self, key: PartKey[T]) -> T | None:
        """Return a part of the core or of an earlier feature; None where this gateway lacks it."""
        for parts in (self.provided, *(feature.parts for feature in self.earlier)):
            part: T | None = parts.get(key)
            if part is not None:
                return part
        return None


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A feature as it is known without a running gateway."""

    name: str
    title: str
    """Purpose in one line."""
    config: tuple[str, ...] = ()
    """Sections of the configuration."""
    buckets: tuple[str, ...] = ()
    """Buckets that it opens, beside those of the core."""
    routes: tuple[Route, ...] = ()
    commands: tuple[str, ...] = ()
    """Groups of the command line."""
    subscription_prefixes: tuple[str, ...] = ()
    """Of the ids of its push subscriptions, whose committed offsets it deletes itself."""
    open: Callable[[Parts], Awaitable[Feature | None]]
    """Opens it; returns None where the configuration does not ask for it."""
