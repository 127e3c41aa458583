"""The first start after an earlier release: what it had acknowledged to devices is moved to INTAKE, nothing twice."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from sensegate.bus import api, consumer, streams
from sensegate.bus.reader import StreamFollower
from sensegate.bus.streams import INTAKE, MQTT_MESSAGES
from sensegate.collect.intake import batch as form
from sensegate.collect.intake import upgrade
from sensegate.collect.intake.upgrade import move_stored_messages
from sensegate.errors import NotFound, Unavailable
from sensegate.model import SourcePosition
from tests.support.old_consumer import OLD

COUNT = 25


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small batches and ask soon for the end."""
    monkeypatch.setattr(upgrade, "BATCH_MESSAGES", 4)
    monkeypatch.setattr(upgrade, "IDLE_S", 0.2)


async def leave(intake: Client, count: int = COUNT, *, acknowledged: int = 3) -> str:
    """Leave messages in the broker's store as an earlier release does; return the store's epoch."""
    await consumer.ensure(intake, MQTT_MESSAGES, OLD)
    for number in range(1, count + 1):
        await intake.jetstream().publish("$MQTT.msgs.sg.d1.up", b"%d" % number, headers={"Nmqtt-Pub": "1"})
    subscription = await intake.subscribe(str(OLD["deliver_subject"]))
    for _ in range(acknowledged):
        message = await subscription.next_msg(5)
        while "Status" in (message.headers or {}):
            message = await subscription.next_msg(5)
    if acknowledged:
        await message.respond(b"")
    await subscription.unsubscribe()
    return await streams.created_at(intake, MQTT_MESSAGES)


async def batches(gateway: Client) -> list[form.IntakeBatch]:
    """Return what INTAKE holds."""
    return [
        form.decode(message.data)
        for message in await StreamFollower(gateway, INTAKE).fetch(0, limit=100, max_bytes=1 << 20)
    ]


async def payloads(gateway: Client) -> list[int]:
    """Return the numbers of the messages in INTAKE, each batch once."""
    once = {batch.header.instance: batch for batch in await batches(gateway)}
    return [int(payload) for batch in once.values() for payload in batch.payloads]


async def test_what_was_acknowledged_is_moved_in_order(gateway: Client, intake: Client) -> None:
    """Messages behind the committed position become batches; the consumer goes; a second start finds nothing."""
    epoch = await leave(intake)
    assert await move_stored_messages(intake, gateway, SourcePosition(epoch, 6)) == COUNT - 6
    assert await payloads(gateway) == list(range(7, COUNT + 1))
    first = (await batches(gateway))[0]
    assert (first.topics[0], first.qos()[0], first.redelivered()[0]) == ("sg/d1/up", 1, False)
    assert int(first.arrivals[0]) > 1_700_000_000_000_000
    with pytest.raises(NotFound):
        await consumer.status(intake, MQTT_MESSAGES, "ingest-0")
    assert await move_stored_messages(intake, gateway, None) == 0


async def test_nothing_to_move(gateway: Client, intake: Client) -> None:
    """A position of another epoch skips nothing; an empty store, or one that never was, is no trouble."""
    await leave(intake, 0, acknowledged=0)
    assert await move_stored_messages(intake, gateway, SourcePosition("another", 9)) == 0
    await intake.jetstream().delete_stream(MQTT_MESSAGES)
    assert await move_stored_messages(intake, gateway, None) == 0


@pytest.mark.parametrize("stored", [True, False])
async def test_a_crash_in_the_middle(
    gateway: Client, intake: Client, monkeypatch: pytest.MonkeyPatch, *, stored: bool
) -> None:
    """Killed before or after a batch is stored, the next start moves the rest; a batch made again is the same one."""
    epoch = await leave(intake)
    request, calls = api.request, 0

    async def failing(nc: Client, subject: str, *arguments: object, **more: object) -> bytes:
        nonlocal calls
        calls += subject == streams.INTAKE_SUBJECT
        if calls == 3 and subject == streams.INTAKE_SUBJECT:
            more.pop("headers")  # the server's own filter is not to help
            if stored:
                await request(nc, subject, *arguments, **more)  # type: ignore[arg-type]
            raise Unavailable("killed, as the test says")
        more.pop("headers", None)
        return await request(nc, subject, *arguments, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(api, "request", failing)
        with pytest.raises(Unavailable):
            await move_stored_messages(intake, gateway, SourcePosition(epoch, 6))
        await move_stored_messages(intake, gateway, SourcePosition(epoch, 6))
    assert await payloads(gateway) == list(range(7, COUNT + 1))
    numbers = [(batch.header.instance, batch.payloads) for batch in await batches(gateway)]
    assert len(numbers) == len({instance for instance, _ in numbers}) + stored


async def test_control_a_position_that_is_not_asked(gateway: Client, intake: Client) -> None:
    """Control: without the committed position messages are moved that are committed."""
    await leave(intake)
    await move_stored_messages(intake, gateway, None)
    assert await payloads(gateway) != list(range(7, COUNT + 1))
