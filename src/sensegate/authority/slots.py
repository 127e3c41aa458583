"""Slots of nodes at the server of a centre: one for each prefecture of its province, and spare ones."""

from __future__ import annotations

from sensegate.authority.divisions import DivisionLevel, Divisions
from sensegate.bus.slots import slots_of
from sensegate.config import Config


def node_slots(config: Config) -> tuple[str, ...]:
    """Return the slots of nodes at this gateway's server; none at a node."""
    if config.role != "centre":
        return ()
    rows = Divisions.load().within(config.division)
    prefectures = (row.code for row in rows if row.level is DivisionLevel.PREFECTURE)
    return slots_of(prefectures, (node.division for node in config.nodes))
