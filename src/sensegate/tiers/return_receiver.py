"""Return flow (数据回流), the node's side: asks its centre for its part and commits it with the place it has come to.

What came back stands under ``<kind>.<city>.back.<grade>``: subscribers of the node read it, the uplink leaves it alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.bus import columns
from sensegate.bus.decoding import decoder
from sensegate.bus.ledger import HOUR_US, RETURNED, Ledger
from sensegate.bus.names import LOGGED
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.config import StoreConfig
from sensegate.errors import ConfigError, Conflict, Fenced, PermissionDenied, StoreFull, Unavailable
from sensegate.model import Member
from sensegate.ports import Log
from sensegate.tiers.return_flow import ReturnPart, ReturnRequest

LEDGER_SOURCE = "return"
"""The source under which it stands in the ledger."""
POLL_S = 1.0
REFUSED_S = 60.0
_log = structlog.get_logger("tiers")

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""(what, payload) -> the centre's answer. Raises `Unavailable`, `PermissionDenied`."""


class ReturnPosition(msgspec.Struct, frozen=True):
    """How far a node has come in its centre's log; JSON on its own log (``commit.<division>-return``)."""

    batch_id: str
    number: int
    log_epoch: str
    position: int
    rows: int
    """Since it began."""
    format: int = 1


_encode = msgspec.msgpack.Encoder().encode
_part = decoder(ReturnPart, "part of the return flow")
_place = decoder(ReturnPosition, "place of the return flow", json=True)


class ReturnReceiver:
    """Takes what comes back; `run` asks for it until cancelled."""

    def __init__(self, division: str, log: Log, clock: Clock, store: StoreConfig) -> None:
        self._division = division
        self._own = log
        self._clock = clock
        self._store = store
        self._held: tuple[ReturnPosition, int] | None = None
        self._ahead = 0
        """Place up to which there was nothing for us; not written down."""

    async def run(self, ask: Ask) -> None:
        """Take part after part; while the centre or the log is away, wait."""
        while True:
            try:
                more = await self.take_next(ask)
            except PermissionDenied as why:
                _log.info("the centre gives nothing back", reason=str(why))
                await self._clock.sleep(REFUSED_S)
            except (Unavailable, Fenced, StoreFull, Conflict, ValueError) as why:
                _log.warning("what comes back is taken later", reason=str(why))
                await self._clock.sleep(POLL_S)
            else:
                if not more:
                    await self._clock.sleep(POLL_S)

    async def take_next(self, ask: Ask) -> bool:
        """Take the next part; return whether there is more at once. Raises as `take`, and `PermissionDenied`."""
        place, _ = await self._read()
        part = _part(await ask("returned", _encode(ReturnRequest(place.log_epoch, max(place.position, self._ahead)))))
        await self.take(part)
        return part.more

    async def take(self, part: ReturnPart, *, by_file: bool = False) -> int:
        """Commit a part that follows the place we have come to; return its rows.

        Raises:
            ConfigError: it is of another node. Conflict: it does not follow. Fenced, StoreFull, Unavailable: not
                committed.
            ValueError: it holds what is no batch of rows.
        """
        place, sequence = await self._read()
        if part.division != self._division:
            raise ConfigError(
                f"of {part.division}, this node is {self._division}", key="division", remedy="export this node's own"
            )
        if by_file and part.log_epoch == place.log_epoch and part.until <= place.position:
            return 0  # a file that was taken before
        begins = max(place.position, self._ahead) if place.log_epoch == part.log_epoch else 0
        if part.after > begins and not part.starts_at_oldest:
            raise Conflict(f"begins after {part.after}; we have come to {begins}: take what lies between first")
        if part.after < place.position and part.log_epoch == place.log_epoch:
            raise Conflict(f"begins after {part.after}, before our place {place.position}; ask from there")
        if 0 < begins < part.after:
            _log.warning("what came back before has expired at the centre", after=begins, oldest=part.after)
            metrics.LIMIT_HITS.labels("return_expired").inc()
        if not part.entries:
            if by_file or part.log_epoch != place.log_epoch:
                await self._write([], place, sequence, part, 0)
            self._ahead = part.until
            return 0
        members: list[Member] = []
        ledger, rows = Ledger(), 0
        for entry in part.entries:
            if entry.kind not in LOGGED or not 0 <= entry.grade <= 9:
                raise ValueError(f"part of the return flow: rows of kind {entry.kind[:20]!r}, grade {entry.grade}")
            batch = columns.decode(entry.payload)
            rows += len(batch)
            _count(ledger, batch)
            ttl_h = self._store.readings_ttl_h if entry.kind == "readings" else self._store.observations_ttl_h
            members.append(Member(f"{entry.kind}.{self._division}.back.{entry.grade}", entry.payload, ttl_h))
        members.append(Member(f"ledger.{self._division}-return", ledger.encode(), self._store.readings_ttl_h))
        await self._write(members, place, sequence, part, rows)
        return rows

    async def position(self) -> ReturnPosition:
        """Return how far we have come. Raises `Unavailable`."""
        return (await self._read())[0]

    async def _write(
        self, members: list[Member], place: ReturnPosition, sequence: int, part: ReturnPart, rows: int
    ) -> None:
        after = ReturnPosition(secrets.token_hex(8), place.number + 1, part.log_epoch, part.until, place.rows + rows)
        subject = f"commit.{self._division}-return"
        self._held = None  # until it is known to be written
        last = await self._own.write(
            [*members, Member(subject, msgspec.json.encode(after), rollup=True, expect=sequence)]
        )
        self._held = after, last

    async def _read(self) -> tuple[ReturnPosition, int]:
        if self._held is None:
            last = await self._own.last(f"commit.{self._division}-return")
            place = read(last, "return flow", _place) if last else None
            # Where the place cannot be read, all that is kept comes back once more, and the loss is counted.
            self._held = place or ReturnPosition("", 0, "", 0, 0), last.sequence if last else 0
            self._ahead = 0
        return self._held


def _count(ledger: Ledger, batch: columns.Batch) -> None:
    """Count the rows by device and hour of arrival at the centre."""
    hours = batch.received // HOUR_US
    places = ledger.places(batch.origins.device)
    for hour in np.unique(hours).tolist():
        ledger.add_counts(
            hour, LEDGER_SOURCE, RETURNED, places, np.bincount(batch.origin[hours == hour], minlength=len(places))
        )
