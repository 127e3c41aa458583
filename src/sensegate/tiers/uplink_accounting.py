"""Uplink accounting: the counts that the centre confirmed, in the node's own ledger.

They make the node's balance: committed = forwarded + withheld + refused by the centre + pending.

The counts are those of the lane records at the centre. The difference to what is recorded here is written as a ledger
(``carried.<node>``), under the hour in which it is written, in one atomic write with the totals recorded so far
(``commit.<node>-carried``), so that a crash repeats nothing. The totals are compared in a form that only rises, because
they may be too low for a while: ever withheld or refused, and apart from that what was forwarded after all
(``released.<reason>``, ``readmitted.<reason>``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.contract import Log
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD, Ledger
from sensegate.bus.unreadable import read
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Fenced, StoreFull, Unavailable
from sensegate.model import LogMessage
from sensegate.tiers.lanes import READMITTED, RELEASED

REVERSED = {RELEASED: WITHHELD, READMITTED: REFUSED_BY_CENTRE}
"""Kind of reversals in the lane records -> ledger kind that they reduce."""
POLL_S = 0.5
RECORD_INTERVAL_S = 3.0
"""Least time between writes while counts keep rising: each atomic write costs the server files and a sync."""

_log = structlog.get_logger("tiers")


class _RecordedTotals(msgspec.Struct, frozen=True):
    totals: dict[str, int]
    format: int = 1


_decode = msgspec.json.Decoder(_RecordedTotals).decode


class UplinkAccounting:
    """Records the counts of the uplink while `run`."""

    def __init__(
        self, node: str, log: Log, totals: Callable[[], Mapping[str, int]], clock: Clock, *, ttl_h: int
    ) -> None:
        """`totals` returns the confirmed counts (`Uplink.totals`); they may be too low for a while, never too high."""
        self._node = node
        self._log = log
        self._totals = totals
        self._clock = clock
        self._ttl_h = ttl_h
        self._recorded: dict[str, int] | None = None
        self._sequence = 0

    async def run(self) -> None:
        """Record new counts until cancelled: when they have settled, and at intervals while they rise."""
        recorded_at = float("-inf")
        previous: dict[str, int] = {}
        while True:
            totals = dict(self._totals())
            if totals == previous or self._clock.monotonic() - recorded_at >= RECORD_INTERVAL_S:
                try:
                    await self.record()
                    recorded_at = self._clock.monotonic()
                except (Unavailable, Fenced, StoreFull) as why:
                    _log.debug("uplink counts not recorded; retrying", reason=str(why))
                    metrics.RESTARTS.labels("uplink accounting").inc()
            previous = totals
            await self._clock.sleep(POLL_S)

    async def record(self) -> None:
        """Write the difference to the recorded totals, if there is one. Raises `Unavailable`, `Fenced`, `StoreFull`."""
        if self._recorded is None:
            last = await self._log.last(f"commit.{self._node}-carried")
            stored = read(last, "uplink accounting", _decode) if last else _RecordedTotals({})
            # Where they cannot be read, it is not known what was recorded: nothing is recorded twice.
            totals = stored.totals if stored is not None else _rising(self._totals())
            if not totals and stored is None:
                return
            self._recorded, self._sequence = dict(totals), last.sequence if last else 0
        now = _rising(self._totals())
        news = {
            kind: count - self._recorded.get(kind, 0)
            for kind, count in now.items()
            if count > self._recorded.get(kind, 0)
        }
        if not news:
            return
        ledger = Ledger()
        for kind, count in news.items():
            word, _, reason = kind.partition(".")
            family = REVERSED.get(word)
            ledger_kind = f"{family}.{reason}" if family else kind
            ledger.add(self._clock.now() // HOUR_US, "", "uplink", ledger_kind, -count if family else count)
        recorded = {**self._recorded, **{kind: now[kind] for kind in news}}
        self._recorded = None  # unknown until the write is confirmed
        self._sequence = await self._log.write(
            [
                LogMessage(f"carried.{self._node}", ledger.encode(), self._ttl_h),
                LogMessage(
                    f"commit.{self._node}-carried",
                    msgspec.json.encode(_RecordedTotals(recorded)),
                    rollup=True,
                    expect=self._sequence,
                ),
            ]
        )
        self._recorded = recorded


def _rising(totals: Mapping[str, int]) -> dict[str, int]:
    """Return the counts in a form that only rises: forwarded, ever withheld or refused, and reversals apart."""
    rising: dict[str, int] = {}
    for kind, count in totals.items():
        word, _, reason = kind.partition(".")
        if word in {FORWARDED, WITHHELD, REFUSED_BY_CENTRE, *REVERSED}:
            rising[kind] = rising.get(kind, 0) + count
        if word in REVERSED:
            ever = f"{REVERSED[word]}.{reason}"
            rising[ever] = rising.get(ever, 0) + count
    return rising
