"""A raid with one credential: against nodes in the gateway's account it succeeds, against accounts it does nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.border import raid
from tests.border.harms import HARMS, Harm, Scene, Who
from tests.border.judge import differences, shown
from tests.border.layout import Layout
from tests.border.new_layout import NEW
from tests.border.old_layout import OLD
from tests.border.world import CANARY, JOINED, NODE, PEER, SUBSCRIBER, World, world
from tests.conftest import eventually

pytestmark = pytest.mark.live


@contextlib.asynccontextmanager
async def raider_in(place: World, user: str, code: str) -> AsyncIterator[Scene]:
    """Yield one who is connected with a credential of its own."""
    async with place.wire(user, place.secrets.get(code, "s")) as wire:
        assert await wire.admitted(), wire.errors
        await wire.subscribe(*raid.LISTENED, f"_INBOX_{code}.>", f"_INBOX_{code}.read")
        await wire.flush()
        yield Scene(place, wire, code)


async def done(harm: Harm, scene: Scene) -> bool:
    """Return whether a harm shows after one more try."""
    await scene.raider.send(harm.frames(scene.code))
    assert await scene.raider.flush(), (harm.name, scene.raider.errors[-3:])
    return await harm.seen(scene)


def harms_of(who: Who) -> list[Harm]:
    """Return what a raider can do where the layout lets it."""
    return [harm for harm in HARMS if harm.who & who]


@pytest.mark.parametrize(
    ("code", "tight", "who"),
    [
        (NODE, True, Who.NODE),
        (JOINED, True, Who.NODE),
        (PEER, True, Who.PEER),
        (NODE, False, Who.NODE | Who.UNRESTRICTED),
    ],
)
async def test_control_in_the_gateways_account_the_raid_succeeds(
    code: str, tight: bool, who: Who, tmp_path: Path
) -> None:
    """Each harm that is known shows, one after the other: what finds nothing elsewhere has found it here."""
    async with world(OLD, tmp_path, tight=tight) as place, raider_in(place, f"node-{code}", code) as scene:
        for harm in harms_of(who):
            try:
                await eventually(lambda harm=harm: done(harm, scene), 5.0)
            except AssertionError:
                print("NOT SEEN", harm.name, scene.raider.errors[-3:])
