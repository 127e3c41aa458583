"""Memory use of all processes of a demo; pages that they share are counted once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec


class MemoryUsage(msgspec.Struct, frozen=True):
    """MiB: ``pss`` counts a page shared by several processes once, ``rss`` in each of them."""

    pss_mb: float = 0.0
    rss_mb: float = 0.0
    processes: int = 0
    peak_pss_mb: float = 0.0
    """Highest `pss_mb` measured."""
    gateway_mb: float = 0.0
    """Mean of the gateways (pss)."""
    engine_mb: float = 0.0
    """Mean of their nats-servers (pss)."""


def process_memory(pid: int) -> tuple[float, float]:
    """Return (pss, rss) of a process in MiB; zeros if it has ended."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {name: int(size.split()[0]) for name, _, size in (row.partition(":") for row in rows[1:])}
    return sizes.get("Pss", 0) / 1024, sizes.get("Rss", 0) / 1024


def measure(gateways: Iterable[int], engines: Iterable[int], others: Iterable[int], before: MemoryUsage) -> MemoryUsage:
    """Measure these processes; the peak continues from `before`."""
    groups = [[process_memory(pid) for pid in pids if pid] for pids in (gateways, engines, others)]
    every = [process_ for group in groups for process_ in group]
    pss = sum(pss_ for pss_, _ in every)
    means = [round(sum(pss_ for pss_, _ in group) / len(group), 1) if group else 0.0 for group in groups]
    return MemoryUsage(
        round(pss, 1),
        round(sum(rss_ for _, rss_ in every), 1),
        sum(1 for _, rss_ in every if rss_),
        round(max(before.peak_pss_mb, pss), 1),
        means[0],
        means[1],
    )
