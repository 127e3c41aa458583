"""Streams are made once, changed where nothing is lost, and never emptied."""

from __future__ import annotations

import json

import msgspec
import pytest
from nats.aio.client import Client

from sensegate.bus import streams
from sensegate.bus.log import JetStreamLog
from sensegate.config import StoreConfig
from sensegate.errors import EngineError
from sensegate.model import LogMessage


async def stream_config(client: Client, name: str) -> dict[str, object]:
    """The settings of a stream."""
    config: dict[str, object] = json.loads((await client.request(f"$JS.API.STREAM.INFO.{name}", timeout=30)).data)[
        "config"
    ]
    return config


async def test_making_again_changes_and_empties_nothing(
    gateway: Client, log: JetStreamLog, store_config: StoreConfig
) -> None:
    """Every start asks for the streams; the life stays, and so does what is in them."""
    await log.write([LogMessage("raw.a", b"1")])
    before = await stream_config(gateway, "LOG")
    await streams.ensure_streams(gateway, store_config)
    assert await stream_config(gateway, "LOG") == before
    assert await log.bounds() == (1, 1)


async def test_a_cap_follows_the_configuration(gateway: Client, log: JetStreamLog, store_config: StoreConfig) -> None:
    """Larger or smaller; nothing stored is dropped by it."""
    await log.write([LogMessage("raw.a", b"x" * 100_000) for _ in range(10)])
    for most in (2 * store_config.log_bytes, 500_000):
        await streams.ensure_streams(gateway, msgspec.structs.replace(store_config, log_bytes=most))
        assert (await stream_config(gateway, "LOG"))["max_bytes"] == most
        assert await log.bounds() == (1, 10)


async def test_a_release_may_add_a_subject_but_not_take_one_away(gateway: Client, store_config: StoreConfig) -> None:
    """The next release stores one more kind of member in the same stream; the one before must not drop it."""
    wanted = streams.log_stream(store_config)
    more = {**wanted, "subjects": [*wanted["subjects"], "more.>"]}
    await streams.ensure(gateway, more)
    assert (await stream_config(gateway, "LOG"))["subjects"] == more["subjects"]
    with pytest.raises(EngineError, match="subjects"):
        await streams.ensure(gateway, wanted)


async def test_other_settings_need_a_migration(gateway: Client, store_config: StoreConfig) -> None:
    """A stream that was made otherwise is left as it is, and the difference is said."""
    wanted = {**streams.log_stream(store_config), "max_age": 3_600_000_000_000}
    with pytest.raises(EngineError, match="max_age"):
        await streams.ensure(gateway, wanted)
    assert (await stream_config(gateway, "LOG"))["max_age"] == 0


async def test_the_life_of_audit_records_follows_the_configuration(gateway: Client, store_config: StoreConfig) -> None:
    """There and back; no other stream ever has one."""
    for hours in (4_416, 0):
        await streams.ensure_streams(gateway, store_config, audit_ttl_h=hours)
        assert (await stream_config(gateway, "AUDIT"))["max_age"] == hours * 3_600_000_000_000
        assert [(await stream_config(gateway, name))["max_age"] for name in ("LOG", "LEDGER")] == [0, 0]


async def test_the_log_cannot_lose_single_messages(gateway: Client, log: JetStreamLog) -> None:
    """Deleting is denied by the stream itself, to everyone."""
    await log.write([LogMessage("raw.a", b"1")])
    answer = await gateway.request("$JS.API.STREAM.MSG.DELETE.LOG", b'{"seq":1}', timeout=30)
    assert b'"error"' in answer.data
    assert await log.bounds() == (1, 1)


async def test_audit_can_neither_be_deleted_nor_purged(gateway: Client) -> None:
    """What was done stays to be seen."""
    await gateway.request("audit.a", b"1", timeout=30)
    for subject, body in (("$JS.API.STREAM.MSG.DELETE.AUDIT", b'{"seq":1}'), ("$JS.API.STREAM.PURGE.AUDIT", b"")):
        assert b'"error"' in (await gateway.request(subject, body, timeout=30)).data


async def test_intake_refuses_when_full_and_drops_what_is_acknowledged(
    gateway: Client, store_config: StoreConfig
) -> None:
    """INTAKE is a work queue with a cap: batches wait for their commit, and a full stream refuses the next."""
    config = await stream_config(gateway, "INTAKE")
    assert (config["retention"], config["discard"], config["storage"]) == ("workqueue", "new", "file")
    assert (config["subjects"], config["max_bytes"]) == (["intake"], store_config.intake_bytes)


async def test_the_broker_takes_the_streams_as_they_are_made(intake: Client, store_config: StoreConfig) -> None:
    """The intake has its cap, interest retention and refuses when full; retained messages and sessions have caps."""
    config = await stream_config(intake, "$MQTT_msgs")
    assert config["max_bytes"] == store_config.intake_bytes
    assert (config["retention"], config["discard"]) == ("interest", "new")
    for name in ("$MQTT_sess", "$MQTT_rmsgs"):
        config = await stream_config(intake, name)
        assert config["max_bytes"] == 128 * 1024**2
        assert config["max_msgs_per_subject"] == 1


def test_a_log_in_place_of_one_that_is_gone_repeats_no_sequence() -> None:
    """A minute later it begins behind all that could be given in that minute; ids and cursors have room until 2080."""
    now, minute = 1_795_824_000_000_000, 60_000_000
    first, next_ = streams.first_unused_sequence(now), streams.first_unused_sequence(now + minute)
    assert next_ - first >= 60 * 2_000
    assert first > 40 * 10_000_000_000, "that of a node which joined in place of lost ones, forty times"
    assert streams.first_unused_sequence(3_471_292_800_000_000) < min(10**14, 2**48)
