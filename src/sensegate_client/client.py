"""The client: addresses, a token, and the feeds behind them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from sensegate_client.errors import ClientError
from sensegate_client.feed import Feed, Selection, Time
from sensegate_client.records import FeedDescription
from sensegate_client.transport import Transport

PATIENCE_S = 600.0


class _FeedPage(msgspec.Struct, frozen=True):
    rows: tuple[FeedDescription, ...]
    next: str = ""


class Client:
    """Asynchronous client; use it as ``async with Client(url, token) as client``."""

    def __init__(
        self,
        url: str | Sequence[str],
        token: str = "",
        *,
        patience_s: float = PATIENCE_S,
        timeout_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare the client; nothing is connected yet.

        Args:
            url: address of the gateway, or those of two centres: the one that answers is used.
            token: token of the subscriber.
            patience_s: longest time without an answer before `Unreachable` or `QuotaExceeded`; ``math.inf``: no limit.
            timeout_s: longest time of one request, beside what the gateway is asked to wait.
            tls: trust of the gateway's certificate; None: that of the system.
        """
        addresses = [url] if isinstance(url, str) else list(url)
        self._transport = Transport(addresses, token, patience_s=patience_s, timeout_s=timeout_s, tls=tls)

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    @property
    def address(self) -> str:
        """Address that answered last, or that is tried next."""
        return self._transport.address

    def feed(  # noqa: PLR0913 - the filters of a feed, as the API names them
        self,
        name: str,
        *,
        devices: Sequence[str] = (),
        properties: Sequence[str] = (),
        divisions: Sequence[str] = (),
        bbox: tuple[float, float, float, float] | None = None,
        near: tuple[float, float, float] | None = None,
        begin: Time = "",
        end: Time = "",
    ) -> Feed:
        """Return a reader of a feed, or of a selection of it; see `Selection`."""
        selection = Selection(
            devices=tuple(devices),
            properties=tuple(properties),
            divisions=tuple(divisions),
            bbox=bbox,
            near=near,
            begin=begin,
            end=end,
        )
        return Feed(self._transport, name, selection)

    async def feeds(self) -> list[FeedDescription]:
        """Return the feeds of which the token may read a part."""
        feeds: list[FeedDescription] = []
        after = ""
        while True:
            query = [("limit", "1000"), *([("after", after)] if after else [])]
            answer = await self._transport.get("/api/v1/feeds", query, accept="application/json")
            try:
                page = msgspec.json.decode(answer.body, type=_FeedPage)
            except msgspec.DecodeError as error:
                raise ClientError(f"the list of feeds has another form: {error}") from error
            feeds += page.rows
            after = page.next
            if not after:
                return feeds
