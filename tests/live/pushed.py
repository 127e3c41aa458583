"""Subscribers of pushed feeds, by MQTT and by NATS."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from tests.live.granting import Granted
from tests.live.phone import Phone
from tests.live.site import Site


class Mqtt:
    """A subscriber by MQTT."""

    def __init__(self, phone: Phone, grant: Granted) -> None:
        self.phone = phone
        self.grant = grant

    async def records(self, count: int) -> list[dict[str, Any]]:
        """Return the next records, exactly so many."""
        records: list[dict[str, Any]] = []
        while len(records) < count:
            topic, payload = await self.phone.next("message")
            assert topic.startswith(f"sg/grants/{self.grant.id}/")
            records += json.loads(payload)["records"]
        assert len(records) == count
        return records


@contextlib.asynccontextmanager
async def by_mqtt(
    site: Site, grant: Granted, control: str, *, clean: bool = True, tag: str = "#"
) -> AsyncIterator[Mqtt]:
    """Connect, subscribe (no tag: the session has done so), and say where to begin."""
    async with site.phone() as phone:
        code = await phone.connect(grant.token_id, grant.token, client_id=f"{grant.token_id}-c", clean=clean)
        assert code == 0, code
        if tag:
            assert await phone.subscribe(f"sg/grants/{grant.id}/{tag}", 1) == 1
        phone.send(f"sg/control/{grant.id}/mqtt", control)
        yield Mqtt(phone, grant)


class Nats:
    """A subscriber by NATS."""

    def __init__(self, client: Client, subscription: Subscription) -> None:
        self.client = client
        self.subscription = subscription
        self.closed = asyncio.Event()

    async def message(self) -> Msg:
        return await self.subscription.next_msg(timeout=30)

    async def records(self, count: int) -> list[dict[str, Any]]:
        """Return the next records, exactly so many; each message is answered."""
        records: list[dict[str, Any]] = []
        while len(records) < count:
            message = await self.message()
            records += json.loads(message.data)["records"]
            await message.respond(b"")
        assert len(records) == count
        return records


@contextlib.asynccontextmanager
async def by_nats(site: Site, grant: Granted, control: str | None) -> AsyncIterator[Nats]:
    """Connect and subscribe, saying where to begin first."""
    gone = asyncio.Event()

    async def closed() -> None:
        gone.set()

    client = await nats.connect(
        site.addresses.nats,
        user=grant.token_id,
        password=grant.token,
        inbox_prefix=f"_INBOX_{grant.token_id}".encode(),
        disconnected_cb=closed,
        allow_reconnect=False,
    )
    try:
        if control is not None:
            answer = await client.request(f"sg.control.{grant.id}.nats", control.encode(), timeout=30)
            assert "problem" not in json.loads(answer.data), answer.data
        result = Nats(client, await client.subscribe(f"sg.feeds.{grant.id}.>"))
        result.closed = gone
        await client.flush()
        yield result
    finally:
        await client.close()
