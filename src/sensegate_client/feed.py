"""A feed, or a part of it: pages of columns and records from a cursor on, last values, history, aggregates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

import msgspec

from sensegate_client.columns import Columns
from sensegate_client.cursors import CursorStore
from sensegate_client.errors import ClientError
from sensegate_client.records import AggregatePage, AggregateWindow, Record, RecordPage, windows_of
from sensegate_client.transport import Answer, Transport

_COLUMNS = "application/vnd.msgpack"
_JSON = "application/json"
PAGE_ROWS = 10_000
"""Rows of a page unless the caller or the gateway wants fewer."""
WAIT_S = 25.0
"""Time for which the gateway is asked to wait for the first row of a page."""
_NO_ANSWER = "the answer is not JSON of the expected form"
T = TypeVar("T")
Time = datetime | str
"""Time with a zone, ISO 8601 text, or how far back: ``"90s"``, ``"24h"``, ``"30d"``."""
Query = list[tuple[str, str]]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a feed; empty: all that the token may read."""

    devices: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    divisions: tuple[str, ...] = ()
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in WGS-84 degrees."""
    near: tuple[float, float, float] | None = None
    """Longitude, latitude, metres."""
    begin: Time = ""
    """Earliest phenomenon time."""
    end: Time = ""
    """Phenomenon time before which readings are wanted."""

    def query(self) -> Query:
        """Return the query parameters of the selection."""
        parameters: Query = []
        for name, values in (("device", self.devices), ("property", self.properties), ("division", self.divisions)):
            parameters += [(name, value) for value in values]
        for name, numbers in (("bbox", self.bbox), ("near", self.near)):
            if numbers is not None:
                parameters.append((name, ",".join(map(repr, map(float, numbers)))))
        return [*parameters, *_times(("from", self.begin), ("to", self.end))]


class Feed:
    """Reader of one feed, or of a selection of it."""

    def __init__(self, transport: Transport, name: str, selection: Selection) -> None:
        self.name = name
        self._transport = transport
        self._selection = selection
        self._path = f"/api/v1/feeds/{quote(name, safe='')}"

    # ── the log, from a cursor on ─────────────────────────────────────────────────────────────────────

    async def columns(
        self,
        *,
        after: str = "",
        since: Time = "",
        follow: bool = True,
        store: CursorStore | None = None,
        rows: int = PAGE_ROWS,
        wait_s: float = WAIT_S,
    ) -> AsyncIterator[Columns]:
        """Yield pages of readings in the order of arrival, each reading once, through every failure of the gateway.

        Args:
            after: cursor to continue after; without it, and without one in `store`, from `since` or the first reading.
            since: time of arrival from which to start.
            follow: go on with what arrives; otherwise end at what is there.
            store: holds the cursor; it is saved when the next page is asked for, so that a page whose processing
                was interrupted comes once more. To get each reading once even so, keep `next` with your results
                in one transaction, and give it as `after`.
            rows: most rows of a page.
            wait_s: how long the gateway may wait for the first row of a page.

        Raises:
            CursorExpired: what followed the cursor is gone; `error.first` is where to go on.
            Unreachable, NotAuthenticated, AccessDenied, NotFoundError, QuotaExceeded, InvalidRequest.
        """
        position = after or (store.load() if store is not None else "")
        while True:
            query = self._log_query(position, since, rows=rows, wait_s=wait_s, follow=follow)
            answer = await self._get("records", query, accept=_COLUMNS, wait_s=wait_s)
            page = Columns(answer.body)
            if len(page):
                yield page
            # A page may be empty and yet lead on: the gateway has searched for as long as one request may take.
            advances = bool(page.next) and page.next != position
            if advances:
                position = page.next
                if store is not None:
                    store.save(position)
            if not page.next or not (follow or advances):
                return

    async def records(
        self,
        *,
        after: str = "",
        since: Time = "",
        follow: bool = True,
        store: CursorStore | None = None,
        rows: int = 1_000,
        wait_s: float = WAIT_S,
    ) -> AsyncIterator[Record]:
        """Yield readings in the order of arrival, each with its own cursor; arguments and errors as `columns`.

        A cursor in `store` is saved after each page.
        """
        position = after or (store.load() if store is not None else "")
        while True:
            query = self._log_query(position, since, rows=rows, wait_s=wait_s, follow=follow)
            page = _json(await self._get("records", query, accept=_JSON, wait_s=wait_s), RecordPage)
            for record in page.records:
                yield record
            advances = bool(page.next) and page.next != position
            if advances:
                position = page.next
                if store is not None:
                    store.save(position)
            if not page.next or not (follow or advances):
                return

    def _log_query(self, after: str, since: Time, *, rows: int, wait_s: float, follow: bool) -> Query:
        query: Query = [("limit", str(rows))]
        if after:
            query.append(("after", after))
        else:
            query += _times(("since", since))
        query.append(("wait", f"{wait_s:g}") if follow else ("until", "0s"))
        return query

    # ── last values and history ───────────────────────────────────────────────────────────────────────

    async def latest(self, *, rows: int = PAGE_ROWS) -> AsyncIterator[Record]:
        """Yield the last value of every series."""
        async for page in self._pages("latest", [("limit", str(rows))]):
            for record in page.records:
                yield record

    async def history(
        self, *, descending: bool = False, all_revisions: bool = False, rows: int = PAGE_ROWS
    ) -> AsyncIterator[Columns]:
        """Yield pages of readings of the selection's period in the order of phenomenon time.

        Raises:
            NotFoundError: the gateway keeps no history.
            TooManyRows: as the gateway says; narrow the period.
        """
        query = [("limit", str(rows)), ("order", "desc" if descending else "asc")]
        if all_revisions:
            query.append(("revisions", "all"))
        after = ""
        while True:
            answer = await self._get("history", [*query, *([("after", after)] if after else [])], accept=_COLUMNS)
            page = Columns(answer.body)
            if len(page):
                yield page
            after = page.next
            if not after:
                return

    async def samples(self, points: int, *, method: str = "minmax") -> list[Record]:
        """Return at most `points` readings of each series, for a plot; `method`: ``minmax`` or ``lttb``."""
        query = [("max_points", str(points)), ("method", method)]
        return [*_json(await self._get("history", query, accept=_JSON), RecordPage).records]

    async def aggregate(
        self,
        window: str,
        *,
        functions: Sequence[str] = ("count", "min", "mean", "max"),
        by: Sequence[str] = (),
        zone: str = "",
        gaps: bool = True,
    ) -> list[AggregateWindow]:
        """Return aggregates by window: ``15m``, ``1h``, ``1d``; `by`: ``device``, ``division``."""
        query = [("window", window), ("functions", ",".join(functions)), ("gaps", "show" if gaps else "omit")]
        query += [("by", name) for name in by]
        if zone:
            query.append(("zone", zone))
        return windows_of(_json(await self._get("aggregate", query, accept=_JSON), AggregatePage))

    async def _pages(self, path: str, query: Query) -> AsyncIterator[RecordPage]:
        after = ""
        while True:
            page = _json(
                await self._get(path, [*query, *([("after", after)] if after else [])], accept=_JSON), RecordPage
            )
            yield page
            after = page.next
            if not after:
                return

    async def _get(self, path: str, query: Query, *, accept: str, wait_s: float = 0.0) -> Answer:
        parameters = [*self._selection.query(), *query]
        return await self._transport.get(f"{self._path}/{path}", parameters, accept=accept, wait_s=wait_s)


def _times(*parameters: tuple[str, Time]) -> Query:
    """Return the parameters that are given, as texts with a zone. Raises `ClientError`."""
    query: Query = []
    for name, time in parameters:
        if isinstance(time, datetime):
            if time.tzinfo is None:
                raise ClientError(f"{name}: {time} has no zone; give one, such as datetime.now(UTC)")
            query.append((name, time.isoformat()))
        elif time:
            query.append((name, time))
    return query


def _json(answer: Answer, kind: type[T]) -> T:
    """Return the body as a record. Raises `ClientError`."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError as error:
        raise ClientError(f"{_NO_ANSWER}: {error}") from error
