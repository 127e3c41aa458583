"""What devices may not do, whole: from the socket of a real client to the ledger, the audit trail and the feed."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest

from sensegate.decode.decode import Decoder
from sensegate.model import Fields, Message
from tests.conftest import eventually
from tests.live.phone import NOT_AUTHORISED
from tests.live.site import Site, reading
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


async def refused(site: Site, device: str) -> int:
    """Return how often the broker refused a device, as the ledger says."""
    rows = (await site.ask("GET", "/api/v1/ledger", params={"by": "device"})).body["rows"]
    return sum(row.get("refused", 0) for row in rows if row["device"] == device)


async def test_a_wrong_password(node: Site) -> None:
    """CONNACK 5, counted; the right one gets in."""
    device = await node.device("wrong-password")
    before = await node.metric('sensegate_permission_denied_total{operation="connect"}')
    async with node.phone() as thief, node.phone() as owner:
        assert await thief.connect(device.id, "x" + device.password[1:]) == NOT_AUTHORISED
        assert await node.metric('sensegate_permission_denied_total{operation="connect"}') == before + 1
        assert await refused(node, device.id) == 1
        assert await owner.connect(device.id, device.password) == 0


async def test_publishing_to_the_topic_of_another(node: Site) -> None:
    """Dropped, counted as refused for that device, alarmed on the audit trail; its own topic gets through."""
    device, victim = await node.device("forger"), await node.device("victim")
    before = await node.metric('sensegate_permission_denied_total{operation="publish"}')
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        await phone.publish(f"sg/{victim.id}/up", reading(66))
        await phone.publish(f"sg/{device.id}/up", reading(22))

        async def own() -> object:
            return await node.records(device=device.id)

        assert [row["value"] for row in await eventually(own)] == [22]
    assert await node.records(device=victim.id) == []

    async def counted() -> bool:
        return await node.metric('sensegate_permission_denied_total{operation="publish"}') == before + 1

    await eventually(counted)
    assert (await refused(node, device.id), await refused(node, victim.id)) == (1, 0)

    async def alarm() -> object:
        return [row for row in await node.audit() if row["action"] == "refused.publish"]

    row = (await eventually(alarm))[0]
    assert (row["actor"], row["after"]["detail"], row["after"]["count"]) == (device.id, f"sg.{victim.id}.up", 1)


async def test_a_disabled_device_is_cut(node: Site) -> None:
    """Within 2 s its connection is closed and its HTTP ingest refused; its neighbour stays; enabled, it is back."""
    device, neighbour = await node.device("disabled"), await node.device("neighbour")
    async with node.phone() as phone, node.phone() as other, node.phone() as reconnected:
        assert await phone.connect(device.id, device.password) == 0
        assert await other.connect(neighbour.id, neighbour.password) == 0
        assert (await node.push(device, reading(20))).status == 202
        began = time.monotonic()
        assert (await node.ask("POST", f"/api/v1/devices/{device.id}/disable")).status == 200
        await phone.next("closed", 60)
        assert (await node.push(device, reading(21, "2026-01-01T00:01:00Z"))).status == 401
        assert time.monotonic() - began < WITHIN_TWO_SECONDS
        assert await reconnected.connect(device.id, device.password) == NOT_AUTHORISED
        await other.publish("sg/neighbour/up", reading(20))
        assert other.connected
        assert (await node.ask("POST", f"/api/v1/devices/{device.id}/enable")).status == 200
        assert await reconnected.connect(device.id, device.password) == 0
        assert (await node.push(device, reading(22, "2026-01-01T00:02:00Z"))).status == 202
    assert [row["value"] for row in await node.records(device=device.id)] == [20, 22]


async def test_ten_megabytes(node: Site) -> None:
    """By MQTT the device is disconnected, by HTTP it gets 413, with a length or without; others do not notice."""
    device, neighbour = await node.device("huge"), await node.device("modest")
    huge = b'"' + b"x" * 10_000_000 + b'"'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(huge), 65_536):
            yield huge[start : start + 65_536]

    async with node.phone() as phone, node.phone() as other, node.phone() as reconnected:
        assert await phone.connect(device.id, device.password) == 0
        assert await other.connect(neighbour.id, neighbour.password) == 0
        phone.send(f"sg/{device.id}/up", huge)
        await phone.next("closed")
        assert (await node.push(device, io.BytesIO(huge))).status == 413
        with contextlib.suppress(aiohttp.ClientConnectionError):  # the answer may come before all was sent
            assert (await node.push(device, pieces())).status == 413
        assert await reconnected.connect(device.id, device.password) == 0
        await reconnected.publish(f"sg/{device.id}/up", reading(23))
        await other.publish("sg/modest/up", reading(24))
    assert other.acknowledged
    await eventually(lambda: node.records(device=device.id))
    await eventually(lambda: node.records(device=neighbour.id))
    assert await node.quarantine(device=device.id) == []


DEEP = 100_000
STRANGE: list[tuple[str, bytes]] = [
    ("too_deep", b"[" * DEEP + b"]" * DEEP),
    ("too_deep", b'{"a":' * 33 + b"1" + b"}" * 33),
    ("too_deep", b'{"values":' + b"[" * DEEP),
    ("not_utf8", b'{"values": {"air_temperature": "\xff\xfe"}}'),
    ("not_utf8", b"\xc0\xaf" + reading(1).encode()),
    ("malformed", b'{"values": {"air_temperature": 2'),
    ("malformed", b""),
    ("malformed", b"\x00\x01\x02"),
    ("malformed", b"\xef\xbb\xbf" + reading(1).encode()),
    ("malformed", b'{"values": {"air_temperature": 1, "air_temperature": 2}}'),
    ("malformed", b'{"values": {"state": "\\ud800"}}'),
    ("malformed", b'{"values": {"air_temperature": ' + b"9" * 10_000 + b"}}"),
    ("malformed", b"{'values': {'air_temperature': 1}}"),
    ("malformed", reading(1).encode() + b" and more"),
    ("no_values", b"5"),
    ("no_values", b"null"),
    ("too_large", b'{"values": {"state": "' + b"x" * 300_000 + b'"}}'),
]


async def test_messages_that_cannot_be_read(node: Site) -> None:
    """Each is in quarantine, whole, with its reason; the good ones between them are readings; the books balance."""
    device = await node.device("strange")
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        for number, (_, payload) in enumerate(STRANGE):
            phone.send(f"sg/{device.id}/up", payload)
            phone.send(f"sg/{device.id}/up", reading(number, f"2026-01-01T00:00:{number:02}Z"))
        await eventually(lambda: len(phone.acknowledged) == 2 * len(STRANGE))

    async def all_good() -> bool:
        return len(await node.records(device=device.id)) == len(STRANGE)

    await eventually(all_good)
    kept = await node.quarantine(device=device.id)
    assert [(row["reason"], row["bytes"]) for row in kept] == [(reason, len(payload)) for reason, payload in STRANGE]
    totals = await node.totals()
    for reason in {reason for reason, _ in STRANGE}:
        assert totals[f"quarantined.{reason}"] >= [reasons for reasons, _ in STRANGE].count(reason)


async def test_the_same_by_http(node: Site) -> None:
    """What is quarantined is committed (202): it will not be better the next time; larger than a message is refused."""
    device = await node.device("strange-http")
    for reason, payload in STRANGE:
        answer = await node.push(device, payload)
        assert answer.status == (422 if reason == "too_large" else 202), (reason, answer.body)
    kept = await node.quarantine(device=device.id)
    assert [row["reason"] for row in kept] == [reason for reason, _ in STRANGE if reason != "too_large"]


@pytest.mark.parametrize("transport", ["mqtt", "http"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
async def test_a_value_that_is_no_number(node: Site, number: str, transport: str) -> None:
    """It is rejected alone, as `not_finite`, and counted; the other value of its message is a reading."""
    device = await node.device(f"odd-{transport}-{number.replace('-', 'minus')}")
    payload = '{"time": 1767225600, "values": {"air_temperature": %s, "relative_humidity": 60}}' % number  # noqa: UP031
    before = (await node.totals()).get("rejected.not_finite", 0)
    if transport == "mqtt":
        async with node.phone() as phone:
            assert await phone.connect(device.id, device.password) == 0
            await phone.publish(f"sg/{device.id}/up", payload)
    else:
        assert (await node.push(device, payload)).status == 202
    rows = await eventually(lambda: node.records(device=device.id))
    assert [(row["property"], row["value"]) for row in rows] == [("relative_humidity", 60)]
    assert await node.quarantine(device=device.id) == []
    await eventually(lambda: _counted(node, "rejected.not_finite", before + 1))


async def _counted(site: Site, kind: str, count: int) -> bool:
    return (await site.totals()).get(kind, 0) == count


async def test_a_decoder_that_crashes(node: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs the one message that met the bug: it is in quarantine as `crashed`, its neighbours are readings."""
    device = await node.device("boom")
    real = Decoder.decode

    def decode(self: Decoder, messages: Sequence[Message]) -> Fields:
        if any(b"boom" in message.payload for message in messages):
            raise ZeroDivisionError("a bug")
        return real(self, messages)

    monkeypatch.setattr(Decoder, "decode", decode)
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        for number in range(20):
            payload = '{"boom": 1}' if number == 7 else reading(number, f"2026-01-01T00:00:{number:02}Z")
            phone.send(f"sg/{device.id}/up", payload)
        await eventually(lambda: len(phone.acknowledged) == 20)

    async def all_good() -> bool:
        return len(await node.records(device=device.id)) == 19

    await eventually(all_good)
    kept = [row for row in await node.quarantine() if row["reason"] == "crashed"]
    assert [row["payload"] for row in kept] == ['{"boom": 1}']
    assert "ZeroDivisionError" in kept[0]["detail"]
    await node.totals()
