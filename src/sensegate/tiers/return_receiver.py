"""Return flow (数据回流), the node's side: asks the centre for its rows and commits them with its position.

Returned rows are stored under ``<kind>.<city>.back.<grade>``: subscribers of the node read them, the uplink does not
forward them.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.bus import columns
from sensegate.bus.contract import Log
from sensegate.bus.decoding import decoder
from sensegate.bus.ledger import RETURNED, Ledger
from sensegate.bus.names import ROW_KINDS
from sensegate.bus.unreadable import read
from sensegate.clock import HOUR_US, Clock
from sensegate.config import StoreConfig
from sensegate.errors import ConfigError, Conflict, Fenced, PermissionDenied, StoreFull, Unavailable
from sensegate.model import LogMessage
from sensegate.tiers.return_flow import ReturnPart, ReturnRequest

LEDGER_SOURCE = "return"
"""Ledger source of returned rows."""
POLL_S = 1.0
REFUSED_S = 60.0
"""Pause after a refusal of the centre."""
_log = structlog.get_logger("tiers")

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""(question, payload) -> the centre's answer. Raises `Unavailable`, `PermissionDenied`."""


class ReturnPosition(msgspec.Struct, frozen=True):
    """Position of a node in its centre's log; JSON on the node's own log (``commit.<division>-return``)."""

    batch_id: str
    number: int
    log_epoch: str
    position: int
    rows: int
    """Number of returned rows since the node's log began."""
    format: int = 1


_encode = msgspec.msgpack.Encoder().encode
_part = decoder(ReturnPart, "part of the return flow")
_position = decoder(ReturnPosition, "position of the return flow", json=True)


class ReturnReceiver:
    """Commits returned rows; `run` asks for them until cancelled."""

    def __init__(self, division: str, log: Log, clock: Clock, store: StoreConfig) -> None:
        self._division = division
        self._log = log
        self._clock = clock
        self._store = store
        self._known: tuple[ReturnPosition, int] | None = None
        self._ahead = 0
        """Sequence up to which the centre had nothing for this node; not stored."""

    async def run(self, ask: Ask) -> None:
        """Commit part after part until cancelled; wait while the centre or the log is away."""
        while True:
            try:
                more = await self.take_next(ask)
            except (PermissionDenied, ConfigError) as why:
                _log.info("return flow refused, by the centre or as one for another node", reason=str(why))
                await self._clock.sleep(REFUSED_S)
            except (Unavailable, Fenced, StoreFull, Conflict, ValueError) as why:
                _log.warning("returned rows not committed; retrying", reason=str(why))
                await self._clock.sleep(POLL_S)
            else:
                if not more:
                    await self._clock.sleep(POLL_S)

    async def take_next(self, ask: Ask) -> bool:
        """Commit the next part; return whether more follow at once. Raises as `take`, and `PermissionDenied`."""
        reached, _ = await self._read()
        request = ReturnRequest(reached.log_epoch, max(reached.position, self._ahead))
        part = _part(await ask("returned", _encode(request)))
        await self.take(part)
        return part.more

    async def take(self, part: ReturnPart, *, by_file: bool = False) -> int:
        """Commit a part that follows our position; return the number of its rows.

        Raises:
            ConfigError: it is for another node.
            Conflict: it does not follow our position.
            Fenced, StoreFull, Unavailable: it was not committed.
            ValueError: an entry is not a batch of rows.
        """
        reached, sequence = await self._read()
        if part.division != self._division:
            raise ConfigError(
                f"the part is for {part.division}, this node is {self._division}",
                key="division",
                remedy="export for this node",
            )
        if by_file and part.log_epoch == reached.log_epoch and part.until <= reached.position:
            return 0  # the file was taken before
        start = max(reached.position, self._ahead) if reached.log_epoch == part.log_epoch else 0
        if part.after > start and not part.starts_at_oldest:
            raise Conflict(f"the part starts after {part.after}, our position is {start}; take what lies between first")
        if part.after < reached.position and part.log_epoch == reached.log_epoch:
            raise Conflict(
                f"the part starts after {part.after}, before our position {reached.position}; ask from there"
            )
        if 0 < start < part.after:
            _log.warning("rows to be returned have expired at the centre", after=start, oldest=part.after)
            metrics.LIMIT_HITS.labels("return_expired").inc()
        if not part.entries:
            if by_file or part.log_epoch != reached.log_epoch:
                await self._write([], reached, sequence, part, 0)
            self._ahead = part.until
            return 0
        members: list[LogMessage] = []
        ledger, rows = Ledger(), 0
        for entry in part.entries:
            if entry.kind not in ROW_KINDS or not 0 <= entry.grade <= 9:
                raise ValueError(f"part of the return flow: rows of kind {entry.kind[:20]!r}, grade {entry.grade}")
            batch = columns.decode(entry.payload)
            rows += len(batch)
            _count(ledger, batch)
            ttl_h = self._store.readings_ttl_h if entry.kind == "readings" else self._store.observations_ttl_h
            members.append(LogMessage(f"{entry.kind}.{self._division}.back.{entry.grade}", entry.payload, ttl_h))
        members.append(LogMessage(f"ledger.{self._division}-return", ledger.encode(), self._store.readings_ttl_h))
        await self._write(members, reached, sequence, part, rows)
        return rows

    async def position(self) -> ReturnPosition:
        """Return our position in the centre's log. Raises `Unavailable`."""
        return (await self._read())[0]

    async def _write(
        self, members: list[LogMessage], reached: ReturnPosition, sequence: int, part: ReturnPart, rows: int
    ) -> None:
        after = ReturnPosition(
            secrets.token_hex(8), reached.number + 1, part.log_epoch, part.until, reached.rows + rows
        )
        subject = f"commit.{self._division}-return"
        self._known = None  # unknown until the write is confirmed
        last = await self._log.write(
            [*members, LogMessage(subject, msgspec.json.encode(after), rollup=True, expect=sequence)]
        )
        self._known = after, last

    async def _read(self) -> tuple[ReturnPosition, int]:
        """Return our position, and the sequence of its record on our log."""
        if self._known is None:
            last = await self._log.last(f"commit.{self._division}-return")
            position = read(last, "return flow", _position) if last else None
            # Where the position cannot be read, all rows of the centre's log come back again.
            self._known = position or ReturnPosition("", 0, "", 0, 0), last.sequence if last else 0
            self._ahead = 0
        return self._known


def _count(ledger: Ledger, batch: columns.Batch) -> None:
    """Count the rows by device and hour of arrival at the centre."""
    hours = batch.received // HOUR_US
    places = ledger.device_numbers(batch.origins.device)
    for hour in np.unique(hours).tolist():
        ledger.add_counts(
            hour, LEDGER_SOURCE, RETURNED, places, np.bincount(batch.origin[hours == hour], minlength=len(places))
        )
