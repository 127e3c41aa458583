"""Nodes that join a centre by a code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sensegate.config import Config
from tests.live.site import Site


async def invite(centre: Site, division: str = "4401", **more: Any) -> str:
    answer = await centre.ask("POST", "/api/v1/nodes", json={"division": division, **more})
    assert answer.status == 201, answer.body
    code: str = answer.body["code"]
    return code


async def row(centre: Site, division: str = "4401") -> dict[str, Any]:
    answer = await centre.ask("GET", f"/api/v1/nodes/{division}")
    return dict(answer.body) if answer.status == 200 else {}


def with_code(config: Config, centre: Site, code: str, folder: Path) -> Config:
    """Return a node's configuration that joins with a code at its start."""
    file = folder / "join.code"
    file.write_text(code)
    uplink = msgspec.structs.replace(config.uplink, centre_url=centre.addresses.http, join_code_file=str(file))
    return msgspec.structs.replace(config, uplink=uplink)


async def copied_since(centre: Site, changed: int) -> bool:
    """Return whether the centre copied the node's registries after this change."""
    return bool((await row(centre)).get("copied", 0) > changed)


async def ids_and_values(centre: Site) -> list[tuple[str, float]]:
    """Return (id, value) of all records at the centre."""
    return [(record["id"], record["value"]) for record in await centre.records()]


async def readiness_says(site: Site, words: str) -> bool:
    """Return whether `/readyz` says it."""
    return words in " ".join((await site.ready())[1])
