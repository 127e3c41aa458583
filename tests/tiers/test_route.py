"""A node that knows two centres: in a new store it gets its registries of whichever has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.config import Config, parse
from sensegate.config.sites import CentreConfig
from sensegate.errors import PermissionDenied, SensegateError, Unavailable
from sensegate.tiers import route
from sensegate.tiers.membership import StoredLink
from tests.live.site import config_of
from tests.share.made import NOW
from tests.support.clocks import InstantClock

STORED = StoredLink("4401", "4401", "4401", "nats://one:1", "secret", "http://one")


class Connection:
    """To a centre."""

    async def close(self) -> None:
        """Do nothing."""


async def contacted(
    config: Config, why: SensegateError, monkeypatch: pytest.MonkeyPatch, *, recovers: int = 99
) -> list[str]:
    """Restore where the first centre fails (until it has been asked often enough); return who was asked."""
    urls: list[str] = []

    async def connected(route: route.CentreRoute, *_: Any) -> Connection:
        urls.append(route.url)
        if route.url == STORED.url and len(urls) < recovers:
            raise why
        return Connection()

    async def restored(*_: Any) -> int:
        return 3

    monkeypatch.setattr(route, "connect_to_centre", connected)
    monkeypatch.setattr("sensegate.tiers.registry_copies.restore", restored)
    await route.restore(config, InstantClock(NOW), STORED, {})
    return urls


@pytest.mark.parametrize("why", [Unavailable("away"), PermissionDenied("this centre knows no 'restore'")])
async def test_the_other_centre_gives_what_the_first_cannot(
    why: SensegateError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away, or stands by."""
    config = config_of(tmp_path / "n", "4401")
    uplink = msgspec.structs.replace(config.uplink, other_centres=(CentreConfig(url="nats://two:1"),))
    both = msgspec.structs.replace(config, uplink=uplink)
    assert await contacted(both, why, monkeypatch) == ["nats://one:1", "nats://two:1"]


async def test_the_only_centre_is_asked_again_but_its_no_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ever."""
    config = config_of(tmp_path / "n", "4401")
    assert await contacted(config, Unavailable("away"), monkeypatch, recovers=3) == [STORED.url] * 3
    with pytest.raises(PermissionDenied):
        await contacted(config, PermissionDenied("expelled"), monkeypatch)


def test_nodes_need_not_be_named_to_be_asked() -> None:
    """Those that join by code vote, too: `peer.automatic` stands without `nodes`."""
    text = "role: centre\ndirectory: /x\ndivision: '44'\npeer: {url: 'nats://b:1', secret_file: x, automatic: true}\n"
    assert parse(text).peer.automatic
    assert parse(f"{text}nodes: [{{division: '4401', secret_file: y}}]\n").nodes
