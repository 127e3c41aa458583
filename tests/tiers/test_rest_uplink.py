"""Routes of the uplink and of the return flow: what cannot be recorded is not done."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest

from sensegate.authority.scope import Principal
from sensegate.authority.trail import MemoryTrail
from sensegate.errors import StoreFull
from sensegate.tiers import rest_returns, rest_uplink
from sensegate.tiers.protocol import Lane
from sensegate.tiers.uplink import RefusedSpan

SPAN = RefusedSpan(Lane.LIVE, "too large", 0, 4, 10, 20)


class FullTrail(MemoryTrail):
    """A trail without room."""

    async def record(self, *_: Any, **__: Any) -> None:
        raise StoreFull("no room")


class Actions:
    """Parts of a node that note what is done."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def refused_span(self, _lane: Lane) -> RefusedSpan:
        return SPAN

    def skip(self, span: RefusedSpan) -> None:
        self.done.append(span)

    async def take(self, file: bytes) -> tuple[int, str]:
        self.done.append(file)
        return 3, "e:7"


def call_of(trail: MemoryTrail, admin: Principal, part: object, body: object) -> Any:
    """Return a call of a route with a body."""

    async def read(*_: object) -> object:
        return body

    deps = SimpleNamespace(audit=trail, division="44")
    return SimpleNamespace(principal=admin, deps=deps, part=lambda _key: part, body=read, raw_body=read)


async def test_a_skip_is_recorded_first(trail: MemoryTrail, admin: Principal) -> None:
    """Without room on the trail the span is not skipped."""
    actions, request = Actions(), rest_uplink.SkipRequest("live")
    with pytest.raises(StoreFull):
        await rest_uplink._skip(call_of(FullTrail(), admin, lambda: actions, request))
    assert actions.done == []
    row = await rest_uplink._skip(call_of(trail, admin, lambda: actions, request))
    assert (row.after, row.until, actions.done) == (10, 20, [SPAN])
    assert [(action, (after or {})["until"]) for _, action, _, _, after in trail.records] == [("uplink.skip", 20)]


async def test_an_import_is_recorded_first(trail: MemoryTrail, admin: Principal) -> None:
    """Without room on the trail nothing is imported; the record names the file by its size and digest."""
    actions, file = Actions(), b"signed"
    with pytest.raises(StoreFull):
        await rest_returns._import(call_of(FullTrail(), admin, actions, file))
    assert actions.done == []
    assert (await rest_returns._import(call_of(trail, admin, actions, file))).rows == 3
    assert (trail.records[0][1], trail.records[0][4]) == (
        "return.import",
        {"size": 6, "sha256": hashlib.sha256(file).hexdigest()},
    )
