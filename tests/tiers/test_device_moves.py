"""A gateway's part in a move that cannot be made: the device stays where it is, and may connect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.device_table import StoredDevice, encode_stored
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.memory import MemoryLog
from sensegate.clock import Clock
from sensegate.errors import Conflict, PermissionDenied
from sensegate.model import Device
from sensegate.tiers.device_moves import DeviceMover, LogIdentity, MoveOperations
from sensegate.tiers.move_records import MoveOrder
from tests.share.made import NOW
from tests.support.clocks import InstantClock

ADMIN = Principal("admin", Role.ADMIN, scope("44"))


def mover_of(
    gateway: str,
    devices: Devices,
    clock: Clock,
    ask: Callable[[str, bytes], Awaitable[bytes]],
    drained: Callable[[], Awaitable[None]],
) -> DeviceMover:
    """Return the mover of a gateway with an empty log; `ask` answers in place of the centre."""
    operations = MoveOperations(ask, lambda _device: None, drained, lambda _batches: None)
    identity = LogIdentity(gateway, 0, 3_600_000_000, 24)
    return DeviceMover(devices, MemoryLog(clock, epoch="e"), clock, identity, operations=operations, by=ADMIN)


@pytest.mark.parametrize("fails", [True, False])
async def test_one_that_cannot_leave_may_connect(*, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody changed it just then: the centre hears why. Where nothing is wrong it is held, until it has gone."""
    clock = InstantClock(NOW)
    devices = Devices(MemoryBucket(), MemoryTrail(), clock)
    await devices.load()
    await devices.add(Device("d1", division="440106", profile="acme/meter"), by=ADMIN)
    assert devices.digests("d1") is not None, "negative control"
    result: list[dict[str, object]] = []

    async def ask(subject: str, payload: bytes) -> bytes:
        if subject == "orders":
            return msgspec.msgpack.encode([MoveOrder("m1", "give", "d1", "4403", "440305")])
        if subject == "told":
            result.append(msgspec.msgpack.decode(payload))
        return b""

    async def drained() -> None:
        assert devices.moving_out == {"d1"}
        assert devices.digests("d1") is None, "nor by HTTP Digest"

    async def changed(*_: object, **__: object) -> bytes:
        raise Conflict("changed meanwhile")

    if fails:
        monkeypatch.setattr(devices, "shut_out", changed)
    await mover_of("4401", devices, clock, ask, drained).run_orders()
    assert [bool(item["refused"]) for item in result] == [fails]
    assert devices.moving_out == (set() if fails else {"d1"})


async def test_an_entry_of_another_device_is_not_imported() -> None:
    """The order is for one device and the entry for another: the centre hears of it, and nothing is registered."""
    clock = InstantClock(NOW)
    devices = Devices(MemoryBucket(), MemoryTrail(), clock)
    await devices.load()
    result: list[str] = []
    stored = encode_stored(StoredDevice(Device("pump", division="440106", profile="acme/meter")))

    async def ask(subject: str, payload: bytes) -> bytes:
        if subject == "orders":
            return msgspec.msgpack.encode([MoveOrder("m1", "take", "d1", "4401", "440305", stored=stored)])
        result.append(msgspec.msgpack.decode(payload)["refused"])
        return b""

    async def drained() -> None:
        pass

    await mover_of("4403", devices, clock, ask, drained).run_orders()
    assert result == ["the entry of pump came instead of that of d1"]
    assert devices.stored("pump") is None


@pytest.mark.parametrize("action", ["give", "future"])
async def test_an_order_that_is_denied_does_not_stop_those_behind_it(action: str) -> None:
    """An order of a later release, or a report that the centre refuses: the next order is run all the same."""
    clock = InstantClock(NOW)
    devices = Devices(MemoryBucket(), MemoryTrail(), clock)
    await devices.load()
    for name in ("d1", "d2"):
        await devices.add(Device(name, division="440106", profile="acme/meter"), by=ADMIN)
    result: list[tuple[str, str]] = []

    async def ask(subject: str, payload: bytes) -> bytes:
        if subject == "orders":
            return msgspec.msgpack.encode(
                [MoveOrder(name, word, name, "4403", "440305") for name, word in (("d1", action), ("d2", "give"))]
            )
        report = msgspec.msgpack.decode(payload)
        result.append((report["id"], report["refused"]))
        if report["id"] == "d1":
            raise PermissionDenied("the exported entry cannot be read")
        return b""

    async def drained() -> None:
        pass

    await mover_of("4401", devices, clock, ask, drained).run_orders()
    refused = "" if action == "give" else "the order 'future' is not known to this release; update this gateway"
    assert result == [("d1", refused), ("d2", "")]
