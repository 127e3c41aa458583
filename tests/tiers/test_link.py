"""Requests of members in the accounts of their slots: answered there, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sensegate.bus.connect import connect
from sensegate.bus.engine import Engine
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import SystemClock
from sensegate.config import EngineConfig
from sensegate.errors import Lost, Refused
from sensegate.tiers.link import CentreLink, Channel, NodeLinks
from tests.conftest import SMALL, eventually

SECRETS = {"4401": "secret-of-4401", "4403": "secret-of-4403"}


@pytest.fixture
async def centre(tmp_path: Path) -> AsyncIterator[Engine]:
    """A centre's server with two configured nodes."""
    async with Engine(EngineConfig(), SMALL, tmp_path, name="44", nodes=SECRETS, slots=("s01",)) as engine:
        yield engine


@contextlib.asynccontextmanager
async def running(links: NodeLinks, slots: dict[str, str]) -> AsyncIterator[None]:
    """Have the centre connected in some slots."""
    links.assign(slots)
    task = asyncio.create_task(links.run())
    try:
        await eventually(lambda: links.connected == slots)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def linked(engine: Engine, member: str) -> AsyncIterator[CentreLink]:
    """Connect as a configured node."""
    connection = await connect(
        engine.info.urls[0], node_user(member), SECRETS[member], inbox_prefix=inbox_prefix(member)
    )
    try:
        yield CentreLink(connection, SystemClock(), slot=member, member=member)
    finally:
        await connection.close()


async def echo(member: str, payload: bytes) -> bytes:
    """Answer with what came, and from whom."""
    return member.encode() + b":" + payload


async def test_a_request_is_answered_in_the_account_of_its_slot(centre: Engine) -> None:
    """Spans and questions of a member reach the handler with the member's id, and the answer comes back."""
    links = NodeLinks(centre.connect_slot, SystemClock())
    links.serve(Channel.LIVE, echo)
    links.answers["report"] = echo
    async with running(links, {"4401": "4401", "4403": "4403"}), linked(centre, "4401") as link:
        welcome = await eventually(lambda: greeted(link))
        assert (welcome.form, welcome.active) == (1, True)
        assert await link.send_span("live", b"x" * 60_000) == b"4401:" + b"x" * 60_000
        answers = await asyncio.gather(*(link.ask("report", b"%d" % number) for number in range(20)))
        assert answers == [b"4401:%d" % number for number in range(20)]
        with pytest.raises(Refused, match="knows no question 'nothing'"):
            await link.ask("nothing")
        with pytest.raises(Lost, match="no responders"):
            await link.send_span("backlog", b"")  # nobody serves it here


async def greeted(link: CentreLink) -> object:
    """Return the welcome; None while the centre is not there yet."""
    try:
        return await link.hello()
    except Lost:
        return None
