"""Traffic whose every message shows by which version it was read, and what a log says became of it.

Each message has two values, the same number sent twice. Version *n* multiplies both by ``2**-n``: which versions read a
message is seen in its values, not only in the name that its readings bear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from sensegate.bus import columns
from sensegate.model import LogEntry

PROFILE = "bench/reload"
HEAD = """\
profile: bench/reload
version: {version}
label: {{zh: 重载, en: reload}}
source: made for the measurement
messages:
  - label: telemetry
    topics: ["reload/{{device}}/up"]
    time: {{field: at, format: epoch_ms}}
    readings:
      - {{field: a, property: voltage, unit: V, scale: {scale}}}
      - {{field: b, property: current, unit: A, scale: {scale}}}
examples:
  - label: one
    topic: reload/d1/up
    received: "2026-01-01T00:00:00Z"
    payload: {{"a": 64, "b": 64, "at": 1767225600000}}
    expect:
      - {{property: voltage, value: {value}}}
      - {{property: current, value: {value}}}
  - label: no JSON
    topic: reload/d1/up
    payload: "no"
    refuse: malformed
"""
WHOLE = 64
"""Sent values are multiples of this, so that every version's value is exact."""
PROPERTIES = ("voltage", "current")


def text(version: int) -> str:
    """Return a version."""
    scale = 2.0**-version
    return HEAD.format(version=version, scale=scale, value=WHOLE * scale)


def payload(number: int, at_ms: int) -> bytes:
    """Return message `number`; its time is its identity."""
    value = WHOLE * (1 + number % 3)
    return b'{"a": %d, "b": %d, "at": %d}' % (value, value, at_ms)


class Verdict(msgspec.Struct, frozen=True):
    """What became of messages that were sent once each."""

    messages: int
    lost: int
    """Messages of which a value is missing."""
    doubled: int
    """Messages of which a value stands more than once."""
    mixed: int
    """Messages read partly by one version, partly by another; or by another than their readings bear."""
    torn: int
    """Commits in which messages were read by more than one version."""
    versions: dict[int, int]
    """Version -> messages that it read."""

    @property
    def good(self) -> bool:
        """True if each message was read once, whole, by the version of its commit."""
        return not (self.lost or self.doubled or self.mixed or self.torn)


class Row(msgspec.Struct, frozen=True, gc=False):
    """A reading as it came out."""

    device: str
    at_ms: int
    property: str
    value: float
    bears: int
    """Version that it names."""
    commit: int


def rows_of(entries: Sequence[LogEntry]) -> list[Row]:
    """Return the readings of a log; commits are counted."""
    rows: list[Row] = []
    commit = 0
    for entry in entries:
        kind = entry.subject.partition(".")[0]
        # The first member of a commit; of the records between them only the last is there.
        commit += kind in {"raw", "quarantine"}
        if kind != "readings":
            continue
        batch = columns.decode(entry.payload, sequence=entry.sequence)
        for row in range(len(batch)):
            origin = int(batch.origin[row])
            rows.append(
                Row(
                    batch.origins.device[origin],
                    int(batch.time[row]) // 1_000,
                    batch.properties[int(batch.property[row])],
                    float(batch.value[row]),
                    int(batch.origins.profile[origin].partition("@")[2]),
                    commit,
                )
            )
    return rows


def verdict(rows: Sequence[Row], sent: dict[tuple[str, int], int]) -> Verdict:
    """Return what became of messages: (device, time in ms) -> value as sent."""
    result: dict[tuple[str, int], list[Row]] = {}
    commits: dict[int, set[int]] = {}
    for row in rows:
        result.setdefault((row.device, row.at_ms), []).append(row)
        commits.setdefault(row.commit, set()).add(row.bears)
    lost = doubled = mixed = 0
    versions: Counter[int] = Counter()
    for key, raw in sent.items():
        mine = result.get(key, [])
        counts = Counter(row.property for row in mine)
        lost += any(not counts[name] for name in PROPERTIES)
        doubled += any(counts[name] > 1 for name in PROPERTIES)
        results = {version for row in mine for version in (row.bears, _read(row.value, raw))}
        mixed += len(results) > 1
        versions.update(results if len(results) == 1 else ())
    made_up = len(result.keys() - sent.keys())
    torn = sum(len(commit) > 1 for commit in commits.values())
    return Verdict(len(sent), lost, doubled + made_up, mixed, torn, dict(sorted(versions.items())))


def _read(value: float, raw: int) -> int:
    """Return the version that makes this value of what was sent; 0: none does."""
    return next((version for version in range(1, 60) if raw * 2.0**-version == value), 0)
