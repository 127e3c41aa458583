"""Rows of the list of nodes: each node as this gateway sees it, and this gateway itself."""

from __future__ import annotations

import msgspec

from sensegate import __version__
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.bus.names import city_of
from sensegate.config import Config
from sensegate.tiers.config_distribution import tables_note
from sensegate.tiers.members import Member, version_note
from sensegate.tiers.node_states import Node


class NodeRow(msgspec.Struct, frozen=True):
    """A node as this gateway sees it; a node lists itself."""

    member: str
    """Its id; usually the code of its city."""
    division: str
    role: str
    state: str
    """``up``, ``silent`` or ``never``."""
    last_commit: int = 0
    """µs UTC of the newest commit here."""
    lag_entries: int = 0
    """Entries not yet forwarded, where known."""
    forwarded: int = 0
    withheld: int = 0
    refused: int = 0
    """Rows that the centre did not take; `sensegate node refused` lists them."""
    detail: str = ""
    membership: str = ""
    """``invited``, ``joined``, ``left``, ``expelled``; ``configured``: it stands in the centre's configuration."""
    generation: int = 0
    """Rises with each join: the store and the machine behind the name."""
    version: str = ""
    clock_offset_s: float | None = None
    """By how much its clock is ahead of the centre's, less the way of its report."""
    reported: int = 0
    """µs UTC of its last report."""
    load: float | None = None
    rss_mb: float | None = None
    devices: int | None = None
    counts: dict[str, int] = {}
    """Its ledger as it has come up: kind -> count."""
    troubles: list[str] = []
    """What it says is wrong."""
    copied: int = 0
    """µs UTC: what was changed in its registries before is copied here; 0: nothing came since this process began."""
    areas: list[str] = []
    """Divisions of which it may send readings, each with all below it."""
    conflicts: int = 0
    """Devices that it sent although another node owns them, or that it owns and another one sent, of late."""
    gaps: list[tuple[int, int]] = []
    """(since, until) µs UTC: what was committed there between is missing here, with a store that was lost."""


def row_of_node(node: Node, member: Member | None, tables: dict[str, str]) -> NodeRow:
    """Return a node as its centre sees it; `tables`: digests of the centre's common tables."""
    heard = node.heard
    report = heard.report if heard else None
    version = report.version if report else member.version if member else ""
    return NodeRow(
        node.member,
        city_of(node.member),
        "node",
        node.state.value,
        node.last_commit,
        node.backlog,
        node.forwarded,
        node.withheld,
        node.refused,
        "; ".join(
            note
            for note in (version_note(__version__, version), tables_note(tables, report.tables) if report else "")
            if note
        ),
        membership=member.state.value if member else "configured",
        generation=member.generation if member else 0,
        version=version,
        clock_offset_s=round(heard.clock_offset_s, 3) if heard else None,
        reported=heard.at if heard else 0,
        load=report.load if report else None,
        rss_mb=report.rss_mb if report else None,
        devices=report.devices if report else None,
        counts=node.counts,
        troubles=list(report.troubles) if report else [],
        gaps=[(gap.since, gap.until) for gap in member.gaps] if member else [],
    )


def own_row(config: Config, totals: dict[str, int], detail: str) -> NodeRow:
    """Return this gateway's own row; `totals` and `detail`: of its uplink."""
    withheld, refused = (
        sum(count for kind, count in totals.items() if kind.partition(".")[0] == family)
        for family in (WITHHELD, REFUSED_BY_CENTRE)
    )
    return NodeRow(
        config.member_id,
        config.division,
        config.role,
        "up",
        forwarded=totals.get(FORWARDED, 0),
        withheld=withheld,
        refused=refused,
        detail=detail,
        version=__version__,
    )
