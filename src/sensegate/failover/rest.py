"""REST: the state of the two sites, as this gateway knows it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sensegate.authority.scope import Action
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route


class SitesState(msgspec.Struct, frozen=True, kw_only=True):
    """Active centre, as a centre or a node knows it."""

    role: str
    state: str
    """``active`` at a centre; at a node ``up`` while it follows an active centre, else ``never``."""
    other: str
    """Address of the other centre; of a node those of all further centres."""
    term: int
    unreplicated: bool = False
    """True if the active centre delivers what the other one does not have."""
    voters: list[str] = []
    """Nodes that vote in the automatic fail-over (centre)."""
    history: list[tuple[int, int]] = []
    """(term, sequence of the log at which it began), newest first (centre)."""
    followed: str = ""
    """Address of the active centre (node)."""
    granted: int = 0
    """The highest term that the node has granted."""


SITES = PartKey[Callable[[], SitesState]]("sites", absent="this gateway has no second site")


async def _sites(call: Call) -> SitesState:
    """Get the state of the two sites: which centre is active, by which term, who votes."""
    return call.part(SITES)()


ROUTES = tagged("nodes", Route("GET", f"{API}/sites", _sites, action=Action.READ_REGISTRY, errors=(404,)))
