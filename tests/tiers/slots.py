"""A centre's server with slots, its links, and members that connect to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from sensegate.bus.connect import BusClient, Login, connect
from sensegate.bus.engine import Engine
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.errors import Unavailable
from sensegate.tiers.link import CentreLink, NodeLinks
from tests.conftest import eventually

SECRETS = {"4401": "secret-of-4401", "4403": "secret-of-4403", "44": "secret-of-both"}


@contextlib.asynccontextmanager
async def running(links: NodeLinks, slots: dict[str, str]) -> AsyncIterator[asyncio.Task[None]]:
    """Have the centre connected in some slots."""
    links.assign(slots)
    task = asyncio.create_task(links.run())
    try:
        await eventually(lambda: links.connected == slots)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def member_connection(engine: Engine, member: str) -> BusClient:
    """Return a connection of a configured member."""
    return await connect(engine.info.urls[0], Login(node_user(member), SECRETS[member], inbox_prefix(member)))


@contextlib.asynccontextmanager
async def linked(engine: Engine, member: str, term: Callable[[], int] = lambda: 0) -> AsyncIterator[CentreLink]:
    """Connect as a configured member and greet the centre."""
    link = CentreLink(await member_connection(engine, member), slot=member, member=member, term=term)
    try:
        # The centre's process has connected; its subscriptions may be a moment behind.
        await eventually(lambda: is_heard(link))
        yield link
    finally:
        await link.close()


async def is_heard(link: CentreLink) -> bool:
    """Return whether the centre answers a greeting."""
    try:
        await link.hello()
    except Unavailable:
        return False
    return True


async def echo(member: str, payload: bytes) -> bytes:
    """Answer with what came, and from whom."""
    return member.encode() + b":" + payload
