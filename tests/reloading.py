"""Traffic whose every message shows by which version it was read, and what a log says became of it.

Each message has two values, the same number sent twice. Version *n* multiplies both by ``2**-n``: which versions read a
message is seen in its values, not only in the name that its readings bear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from sensegate.bus import columns
from sensegate.bus.record import decode_commit
from sensegate.model import Entry

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


def verdict(entries: Sequence[Entry], sent: dict[tuple[str, int], int]) -> Verdict:
    """Return what the entries of a log say of messages: (device, time in ms) -> value as sent."""
    found: dict[tuple[str, int], list[tuple[str, int, int]]] = {}
    torn, here = 0, set[int]()
    for entry in entries:
        kind = entry.subject.partition(".")[0]
        if kind in {"raw", "quarantine"}:
            # The first member of a commit: the records between them are replaced by the next.
            torn, here = torn + (len(here) > 1), set()
        elif kind == "commit":
            decode_commit(entry.payload)
        if kind != "readings":
            continue
        batch = columns.decode(entry.payload, sequence=entry.sequence)
        for row in range(len(batch)):
            origin = int(batch.origin[row])
            key = batch.origins.device[origin], int(batch.time[row]) // 1_000
            bears = int(batch.origins.profile[origin].partition("@")[2])
            value, raw = float(batch.value[row]), sent.get(key, 0)
            read = next((version for version in range(1, 60) if raw * 2.0**-version == value), 0)
            found.setdefault(key, []).append((batch.properties[int(batch.property[row])], bears, read))
            here.add(bears)
    torn += len(here) > 1
    lost = doubled = mixed = 0
    versions: Counter[int] = Counter()
    for key in sent:
        rows = found.get(key, [])
        counts = Counter(name for name, _, _ in rows)
        lost += any(not counts[name] for name in PROPERTIES)
        doubled += any(counts[name] > 1 for name in PROPERTIES)
        said = {version for _, bears, read in rows for version in (bears, read)}
        mixed += len(said) > 1
        versions.update(said if len(said) == 1 else ())
    made_up = len(found.keys() - sent.keys())
    return Verdict(len(sent), lost, doubled + made_up, mixed, torn, dict(sorted(versions.items())))
