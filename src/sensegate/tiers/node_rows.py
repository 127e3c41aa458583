"""Rows of the list of nodes: each node as this gateway sees it, and this gateway itself."""

from __future__ import annotations

import msgspec

from sensegate import __version__
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.bus.names import city_of
from sensegate.config import Config
from sensegate.tiers.config_distribution import tables_note
from sensegate.tiers.members import NodeMember, release_note
from sensegate.tiers.node_states import NodeStatus


class NodeRow(msgspec.Struct, frozen=True):
    """Node as known to this gateway; a node lists itself."""

    member: str
    """Id of the node; usually the code of its city."""
    division: str
    role: str
    state: str
    """``up``, ``silent`` or ``never``."""
    last_commit: int = 0
    """Time of its newest commit here, µs UTC."""
    lag_entries: int = 0
    """Entries not yet forwarded, if known."""
    forwarded: int = 0
    withheld: int = 0
    refused: int = 0
    """Rows that the centre rejected; `sensegate node refused` lists them."""
    detail: str = ""
    membership: str = ""
    """``invited``, ``joined``, ``left``, ``expelled``; ``configured``: part of the centre's configuration."""
    generation: int = 0
    """Number of joins: it identifies the machine and store behind the id."""
    version: str = ""
    clock_offset_s: float | None = None
    """Seconds by which its clock is ahead of the centre's, without the transit time of its report."""
    reported: int = 0
    """Time of its last report, µs UTC."""
    load: float | None = None
    rss_mb: float | None = None
    devices: int | None = None
    counts: dict[str, int] = {}
    """Forwarded ledger: kind -> count."""
    problems: list[str] = []
    """Problems that it reports."""
    copied: int = 0
    """Changes of its registries before this time are copied here, µs UTC; 0: none since this process started."""
    areas: list[str] = []
    """Divisions whose readings it may send, each with all below it."""
    conflicts: int = 0
    """Recent ownership conflicts: devices that it and another node both send."""
    gaps: list[tuple[int, int]] = []
    """(since, until) µs UTC: commits of this time are missing here, because its store was lost."""


def row_of_node(node: NodeStatus, member: NodeMember | None, tables: dict[str, str]) -> NodeRow:
    """Return a node as its centre sees it; `tables`: digests of the centre's common tables."""
    last = node.last_report
    report = last.report if last else None
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
            for note in (release_note(__version__, version), tables_note(tables, report.tables) if report else "")
            if note
        ),
        membership=member.state.value if member else "configured",
        generation=member.generation if member else 0,
        version=version,
        clock_offset_s=round(last.clock_offset_s, 3) if last else None,
        reported=last.received_at if last else 0,
        load=report.load if report else None,
        rss_mb=report.rss_mb if report else None,
        devices=report.devices if report else None,
        counts=node.counts,
        problems=[*filter(None, [node.silence]), *(report.problems if report else ())],
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
