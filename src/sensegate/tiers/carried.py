"""What the centre has confirmed, told in the node's own log: committed = forwarded + withheld + refused + pending.

The counts are those of the lanes' records at the centre; what was not yet told here is added as the difference
(``carried.<node>``), under the hour in which it is told, in one atomic write with the counts told so far
(``commit.<node>-carried``), so that a crash repeats nothing. They are compared in a form that only rises, because they
may be short for a while: what was ever withheld or refused by the centre, and what of that came up after all
(``released.<reason>``, ``readmitted.<reason>``), apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, WITHHELD, Ledger
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Fenced, StoreFull, Unavailable
from sensegate.model import LogMessage
from sensegate.ports import Log
from sensegate.tiers.lanes import READMITTED, RELEASED

TAKEN_BACK = {RELEASED: WITHHELD, READMITTED: REFUSED_BY_CENTRE}
"""Word of the lanes' records -> that of which it is taken back in the ledger."""
EVERY_S = 0.5
LEAST_S = 3.0
"""While more and more is carried it is told so often: each atomic write costs the server files and a sync."""

_log = structlog.get_logger("uplink")


class _Told(msgspec.Struct, frozen=True):
    totals: dict[str, int]
    format: int = 1


_decode = msgspec.json.Decoder(_Told).decode


class Carried:
    """Tells it while `run`."""

    def __init__(
        self, node: str, log: Log, totals: Callable[[], Mapping[str, int]], clock: Clock, *, ttl_h: int
    ) -> None:
        """`totals` gives what both lanes have confirmed (`Uplink.totals`); it may be short for a while, never long."""
        self._node = node
        self._log = log
        self._totals = totals
        self._clock = clock
        self._ttl_h = ttl_h
        self._told: dict[str, int] | None = None
        self._sequence = 0

    async def run(self) -> None:
        """Tell what is new until cancelled: once nothing more comes, and now and then while more comes."""
        told_at = float("-inf")
        seen: dict[str, int] = {}
        while True:
            totals = dict(self._totals())
            if totals == seen or self._clock.monotonic() - told_at >= LEAST_S:
                try:
                    await self.tell()
                    told_at = self._clock.monotonic()
                except (Unavailable, Fenced, StoreFull) as why:
                    _log.debug("what was carried is told later", reason=str(why))
                    metrics.RESTARTS.labels("carried").inc()
            seen = totals
            await self._clock.sleep(EVERY_S)

    async def tell(self) -> None:
        """Write the difference to what was told last, if there is one. Raises `Unavailable`, `Fenced`, `StoreFull`."""
        if self._told is None:
            last = await self._log.last(f"commit.{self._node}-carried")
            self._told = dict(_decode(last.payload).totals) if last else {}
            self._sequence = last.sequence if last else 0
        now = _rising(self._totals())
        news = {kind: count - self._told.get(kind, 0) for kind, count in now.items() if count > self._told.get(kind, 0)}
        if not news:
            return
        ledger = Ledger()
        for kind, count in news.items():
            word, _, reason = kind.partition(".")
            back = TAKEN_BACK.get(word)
            told_as = f"{back}.{reason}" if back else kind
            ledger.add(self._clock.now() // HOUR_US, "", "uplink", told_as, -count if back else count)
        told = {**self._told, **{kind: now[kind] for kind in news}}
        self._told = None  # until it is known to be written
        self._sequence = await self._log.write(
            [
                LogMessage(f"carried.{self._node}", ledger.encode(), self._ttl_h),
                LogMessage(
                    f"commit.{self._node}-carried",
                    msgspec.json.encode(_Told(told)),
                    rollup=True,
                    expect=self._sequence,
                ),
            ]
        )
        self._told = told


def _rising(totals: Mapping[str, int]) -> dict[str, int]:
    """Return what of the counts only rises: forwarded, ever withheld or refused, and what of these was taken back."""
    rising: dict[str, int] = {}
    for kind, count in totals.items():
        word, _, reason = kind.partition(".")
        if word in {FORWARDED, WITHHELD, REFUSED_BY_CENTRE, *TAKEN_BACK}:
            rising[kind] = rising.get(kind, 0) + count
        if word in TAKEN_BACK:
            ever = f"{TAKEN_BACK[word]}.{reason}"
            rising[ever] = rising.get(ever, 0) + count
    return rising
