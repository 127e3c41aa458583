"""How much memory a demo takes: of all its processes together, pages that they share counted once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec


class Memory(msgspec.Struct, frozen=True):
    """MiB: ``pss`` counts a page that several processes share once, ``rss`` in each of them."""

    pss_mb: float = 0.0
    rss_mb: float = 0.0
    processes: int = 0
    peak_pss_mb: float = 0.0
    """The highest `pss_mb` that was seen."""
    gateway_mb: float = 0.0
    """Mean of the gateways (pss)."""
    engine_mb: float = 0.0
    """Mean of their nats-servers (pss)."""


def of(pid: int) -> tuple[float, float]:
    """Return (pss, rss) of a process in MiB; zeros where it is gone."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {name: int(rest.split()[0]) for name, _, rest in (row.partition(":") for row in rows[1:])}
    return sizes.get("Pss", 0) / 1024, sizes.get("Rss", 0) / 1024


def measured(gateways: Iterable[int], engines: Iterable[int], others: Iterable[int], before: Memory) -> Memory:
    """Return what these processes take now, and the highest since `before` began."""
    groups = [[of(pid) for pid in pids if pid] for pids in (gateways, engines, others)]
    every = [one for group in groups for one in group]
    pss = sum(one for one, _ in every)
    means = [round(sum(one for one, _ in group) / len(group), 1) if group else 0.0 for group in groups]
    return Memory(
        round(pss, 1),
        round(sum(one for _, one in every), 1),
        sum(1 for _, one in every if one),
        round(max(before.peak_pss_mb, pss), 1),
        means[0],
        means[1],
    )
