"""The registry: one entry a device, indices that stay, changes that every process sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.device_table import RegistrationFacts
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.authority.selection import DeviceFilter
from sensegate.authority.trail import Facts, MemoryTrail
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.model import Datum, Device, DeviceState
from tests.support.importing import import_csv

Make = Callable[..., Device]


async def test_add_shows_the_password_once(
    devices: Devices, bucket: MemoryBucket, admin: Principal, make: Make
) -> None:
    """The password opens the device; neither it nor anything like it is stored."""
    secret = await devices.add(make(), by=admin)
    assert len(secret) == 32
    principal = devices.verify("air-1", secret)
    assert principal
    assert principal[0].id == "air-1"
    assert devices.verify("air-1", secret[:-1] + "!") is None
    assert devices.verify("air-2", secret) is None
    item = await bucket.get("air-1")
    assert item
    assert item.value
    assert secret.encode() not in item.value


async def test_a_gateway_of_others_does_not_exist(devices: Devices, make: Make, admin: Principal) -> None:
    """Who may not change a gateway puts no device behind it, which would close its connection, nor learns of it."""
    await devices.add(make("theirs", division="440305"), by=admin)
    await devices.add(make("env", department="environment"), by=admin)
    await devices.add(make("mine", department="police"), by=admin)
    city = Principal("gz", Role.CITY_OPERATOR, Scope("4401", "police"))
    changes: list[str] = []
    devices.on_change.append(lambda at, *_: changes.append(devices.id(at)))
    results = set()
    for gateway in ("theirs", "env", "nobody"):
        with pytest.raises(ConfigError) as why:
            await devices.add(make("bulb", department="police", gateway=gateway), by=city)
        results.add(str(why.value).replace(gateway, "*"))
        with pytest.raises(ConfigError) as why:
            await devices.change(make("mine", department="police", gateway=gateway), revision=3, by=city)
        results.add(str(why.value).replace(gateway, "*"))
        report = await import_csv(
            devices,
            f"id,division,department,profile,gateway\nlamp,440106,police,sensegate/plain,{gateway}\n".encode(),
            by=city,
            dry_run=False,
        )
        assert not report.rows[0].password
        assert report.rows[0].reason == f"gateway: no device {gateway}"
    assert len(results) == 1
    assert not changes
    await devices.add(make("bulb", department="police", gateway="mine"), by=city)
    assert changes == ["bulb"], "negative control"


async def test_what_is_attached_stays_attached(devices: Devices, make: Make, admin: Principal) -> None:
    """A device behind a gateway of the province is still changed by its own operator, but not put behind a second."""
    await devices.add(make("bridge", division="4403"), by=admin)
    await devices.add(make("other", division="4403"), by=admin)
    await devices.add(make("bulb", gateway="bridge"), by=admin)
    county = Principal("th", Role.COUNTY_OPERATOR, Scope("440106"))
    changed = await devices.change(make("bulb", gateway="bridge", name="x"), revision=3, by=county)
    assert changed.name == "x"
    with pytest.raises(ConfigError, match="no device other"):
        await devices.change(make("bulb", gateway="bridge other"), revision=changed.revision, by=county)


async def test_an_alias_in_use_elsewhere_names_nobody(devices: Devices, make: Make, admin: Principal) -> None:
    """Names are unique in a gateway, so that one in use is refused; whose it is, is told in one's scope alone."""
    await devices.add(make("theirs", division="440305", alias="4711"), by=admin)
    county = Principal("th", Role.COUNTY_OPERATOR, Scope("440106"))
    with pytest.raises(Conflict) as why:
        await devices.add(make("mine", alias="4711"), by=county)
    assert "theirs" not in str(why.value)
    with pytest.raises(Conflict, match="theirs"):
        await devices.add(make("mine", alias="4711"), by=admin)


async def test_no_credential_is_given_to_what_is_behind_a_gateway(
    devices: Devices, admin: Principal, make: Make
) -> None:
    """A sub-device has no password; its gateway must be there, and not be behind another."""
    with pytest.raises(ConfigError, match="register the gateway first"):
        await devices.add(make("bulb", gateway="bridge"), by=admin)
    await devices.add(make("bridge"), by=admin)
    assert await devices.add(make("bulb", gateway="bridge"), by=admin) == ""
    assert devices.verify("bulb", "") is None
    assert devices.children("bridge") == [devices.find("bulb")]
    with pytest.raises(ConfigError, match="itself behind a gateway"):
        await devices.add(make("lamp", gateway="bulb"), by=admin)
    with pytest.raises(ConfigError, match="no credential of its own"):
        await devices.rotate("bulb", by=admin)


async def test_hot_path_columns(devices: Devices, admin: Principal, make: Make) -> None:
    """A device is found by id and alias; its row holds grade, region, place and whether it is accepted."""
    await devices.add(make("air-1", alias="A84041FFFF", grade=2, lon=113.3, lat=23.1), by=admin)
    await devices.add(make("town-1", division="441900003"), by=admin)
    at, town = devices.find("A84041FFFF"), devices.find("town-1")
    assert (at, town) == (devices.find("air-1"), 1)
    assert devices.find("nobody") == -1
    assert devices.grade[at] == 2
    assert [devices.index.cities.all[devices.index.city[index]] for index in (at, town)] == ["4401", "4419"]
    assert (devices.lon[at], devices.lat[at]) == (113.3, 23.1)
    assert np.isnan(devices.lon[town])
    assert devices.enabled[at]
    assert devices.record(at).alias == "A84041FFFF"


async def test_place_goes_through_the_conversion(
    bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock, admin: Principal, make: Make
) -> None:
    """A place in another datum is converted, one by one and at load alike; the entry keeps what was given."""

    def shifted(lon: np.ndarray, lat: np.ndarray, datum: Datum) -> tuple[np.ndarray, np.ndarray]:
        return (lon - 1, lat - 2) if datum is Datum.GCJ02 else (lon, lat)

    devices = Devices(bucket, trail, clock, facts=RegistrationFacts(to_wgs84=shifted))
    await devices.add(make("a", lon=113.0, lat=23.0, datum=Datum.GCJ02), by=admin)
    await devices.add(make("b", lon=113.0, lat=23.0), by=admin)
    reopened = Devices(bucket, trail, clock, facts=RegistrationFacts(to_wgs84=shifted))
    await reopened.load()
    for registry in (devices, reopened):
        assert registry.lon[:2].tolist() == [112.0, 113.0]
        assert registry.lat[:2].tolist() == [21.0, 23.0]
        assert registry.record(0).lon == 113.0


async def test_indices_never_move(devices: Devices, bucket: MemoryBucket, admin: Principal, make: Make) -> None:
    """Neither growth, change, retirement nor deletion gives an index to another device."""
    for number in range(1_500):
        await devices.add(make(f"d{number}"), by=admin)
    before = [devices.find(f"d{number}") for number in range(1_500)]
    await devices.change(make("d3", grade=3), revision=devices.get("d3").revision, by=admin)
    await devices.retire("d4", by=admin)
    revision = await bucket.delete("d5")
    watching = asyncio.create_task(devices.watch())
    await asyncio.wait_for(devices.until(lambda: not devices.enabled[5]), 30)
    watching.cancel()
    assert revision
    with pytest.raises(NotFound):
        devices.get("d5")
    await devices.add(make("d5"), by=admin)
    await devices.add(make("new"), by=admin)
    assert [devices.find(f"d{number}") for number in range(1_500)] == before == list(range(1_500))
    assert devices.find("new") == 1_500


async def test_change_needs_the_present_revision(devices: Devices, admin: Principal, make: Make) -> None:
    """A change on an old revision is refused; the entry and its credential stay."""
    secret = await devices.add(make(), by=admin)
    first = devices.get("air-1")
    second = await devices.change(msgspec.structs.replace(first, name="roof"), revision=first.revision, by=admin)
    assert second.revision > first.revision
    with pytest.raises(Conflict, match="read it again"):
        await devices.change(msgspec.structs.replace(first, name="cellar"), revision=first.revision, by=admin)
    assert devices.get("air-1").name == "roof"
    assert devices.verify("air-1", secret)


async def test_names_are_not_taken_twice(devices: Devices, admin: Principal, make: Make) -> None:
    """Ids and aliases share one space; a name given up is free again."""
    await devices.add(make("a", alias="x"), by=admin)
    for wrong in (make("a"), make("x"), make("b", alias="a"), make("b", alias="x")):
        with pytest.raises(Conflict):
            await devices.add(wrong, by=admin)
    await devices.change(make("a", alias="y"), revision=devices.get("a").revision, by=admin)
    await devices.add(make("b", alias="x"), by=admin)
    assert devices.find("x") == devices.find("b")
    assert devices.find("y") == devices.find("a")


async def test_a_change_leaves_credential_and_state_alone(devices: Devices, admin: Principal, make: Make) -> None:
    """A disabled or retired device is not brought back by a change of its entry."""
    secret = await devices.add(make(), by=admin)
    await devices.retire("air-1", by=admin)
    entry = devices.get("air-1")
    changed = msgspec.structs.replace(entry, name="x", state=DeviceState.ACTIVE)
    assert (await devices.change(changed, revision=entry.revision, by=admin)).state is DeviceState.RETIRED
    assert devices.verify("air-1", secret) is None


async def test_two_processes_at_once_agree_on_a_doubled_alias(
    bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock, admin: Principal, make: Make
) -> None:
    """Where two processes take one alias at the same moment, whoever loads the registry gives it to the earlier."""
    first, two = Devices(bucket, trail, clock), Devices(bucket, trail, clock)
    await first.add(make("a", alias="x"), by=admin)
    await two.add(make("b", alias="x"), by=admin)
    for registry in (first, two):
        fresh = Devices(bucket, trail, clock)
        await fresh.load()
        assert fresh.id(fresh.find("x")) == "a"
        assert registry.find("x") >= 0


async def test_changes_are_seen_by_the_other_process(
    bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock, admin: Principal, make: Make
) -> None:
    """Additions and states written by one reach the other by watch, with before and after for its listeners."""
    first, two = Devices(bucket, trail, clock), Devices(bucket, trail, clock)
    await first.add(make("early"), by=admin)
    await two.load()
    heard: list[tuple[int, bool]] = []
    two.on_change.append(lambda at, before, _after: heard.append((at, before is None)))
    watching = asyncio.create_task(two.watch())
    secret = await first.add(make("late"), by=admin)
    await asyncio.wait_for(two.until(lambda: two.find("late") == 1), 30)
    assert two.verify("late", secret)
    await first.disable("late", by=admin)
    await asyncio.wait_for(two.until(lambda: not two.enabled[1]), 30)
    assert two.verify("late", secret) is None
    assert heard == [(1, True), (1, False)]
    watching.cancel()


async def test_states(devices: Devices, clock: FakeClock, admin: Principal, make: Make) -> None:
    """Registered until heard, active while heard, silent after three intervals; disabled and retired by decision."""
    await devices.add(make(interval_s=60.0), by=admin)
    assert devices.get("air-1").state is DeviceState.REGISTERED
    devices.observe(np.array([0, 0], np.int32), np.array([clock.now(), clock.now() - 5], np.int64))
    assert devices.get("air-1").state is DeviceState.ACTIVE
    await clock.advance(181)
    assert [device.id for device in devices.list(None, DeviceFilter(frozenset({DeviceState.SILENT})))] == ["air-1"]
    assert (await devices.disable("air-1", by=admin)).state is DeviceState.DISABLED
    assert not devices.enabled[0]
    assert (await devices.enable("air-1", by=admin)).state is DeviceState.SILENT
    assert (await devices.retire("air-1", by=admin)).state is DeviceState.RETIRED
    with pytest.raises(Conflict, match="another id"):
        await devices.enable("air-1", by=admin)


async def test_rotation_has_a_grace(devices: Devices, clock: FakeClock, admin: Principal, make: Make) -> None:
    """Both passwords are good during the grace, the old one known to end; then only the new one."""
    old = await devices.add(make(), by=admin)
    new = await devices.rotate("air-1", by=admin, grace_s=60)
    assert old != new
    current, previous = devices.verify("air-1", new), devices.verify("air-1", old)
    assert current
    assert previous
    assert current[1].until == 0
    assert previous[1].until == clock.now() + 60_000_000
    await clock.advance(60)
    assert devices.verify("air-1", old) is None
    assert devices.verify("air-1", new)
    last = await devices.rotate("air-1", by=admin, grace_s=0)
    assert devices.verify("air-1", new) is None
    assert devices.verify("air-1", last)


async def test_a_device_may_not_change_itself(devices: Devices, admin: Principal, make: Make) -> None:
    """A device's credential permits ingest for its division and nothing else; a disabled device's permits nothing."""
    secret = await devices.add(make(), by=admin)
    assert devices.verify("air-1", secret)
    with pytest.raises(NotFound):
        await devices.disable("air-1", by=Principal("air-1", Role.DEVICE, Scope("440106")))
    await devices.disable("air-1", by=admin)
    assert devices.verify("air-1", secret) is None


async def test_scope_cuts_everything(devices: Devices, admin: Principal, operator: Principal, make: Make) -> None:
    """A county's operator sees and changes its own devices only, and moves none out of it."""
    await devices.add(make("mine"), by=operator)
    await devices.add(make("theirs", division="440103"), by=admin)
    assert [device.id for device in devices.list(operator.scope)] == ["mine"]
    assert devices.get("mine", operator).id == "mine"
    with pytest.raises(NotFound, match="in your scope"):
        devices.get("theirs", operator)
    with pytest.raises(NotFound):
        await devices.disable("theirs", by=operator)
    with pytest.raises(PermissionDenied):
        await devices.add(make("other", division="440103"), by=operator)
    with pytest.raises(PermissionDenied):
        await devices.change(make("mine", division="440103"), revision=devices.get("mine").revision, by=operator)
    with pytest.raises(PermissionDenied, match="may not change devices"):
        await devices.disable("mine", by=Principal("a", Role.AUDITOR, scope("44")))
    assert devices.enabled[:2].all()


async def test_list_filters_sorts_and_pages(devices: Devices, admin: Principal, make: Make) -> None:
    """Pages in order of id, without gap or repeat, cut by scope, department, profile, domain and text."""
    for number in (3, 1, 2, 0):
        department = "police" if number % 2 else "environment"
        await devices.add(make(f"n{number}", department=department, domain="air", name=f"roof {number}"), by=admin)
    await devices.add(make("z", division="4403", profile="acme/x"), by=admin)
    first = devices.list(Scope("4401"), limit=3)
    assert [device.id for device in first] == ["n0", "n1", "n2"]
    assert [device.id for device in devices.list(Scope("4401"), after="n2")] == ["n3"]
    assert [device.id for device in devices.list(Scope("44", "police"))] == ["n1", "n3"]
    assert [device.id for device in devices.list(None, DeviceFilter(department="environment"))] == ["n0", "n2"]
    assert [device.id for device in devices.list(None, DeviceFilter(profile="acme/x"))] == ["z"]
    assert [device.id for device in devices.list(None, DeviceFilter(domain="water"))] == []
    assert [device.id for device in devices.list(None, DeviceFilter(text="ROOF 2"))] == ["n2"]


async def test_every_change_is_recorded_before_it_is_made(
    devices: Devices, trail: MemoryTrail, admin: Principal, make: Make
) -> None:
    """One record a change, by whom and what, and never a secret."""
    first = await devices.add(make(), by=admin)
    second = await devices.rotate("air-1", by=admin)
    await devices.disable("air-1", by=admin)
    await devices.change(make(grade=2), revision=devices.get("air-1").revision, by=admin)
    await devices.retire("air-1", by=admin)
    actions = ["device.add", "device.rotate", "device.disable", "device.change", "device.retire"]
    assert [record[1] for record in trail.records] == actions
    assert {record[0] for record in trail.records} == {"admin"}
    assert first not in str(trail.records)
    assert second not in str(trail.records)


async def test_nothing_changes_without_a_record(
    bucket: MemoryBucket, clock: FakeClock, admin: Principal, make: Make
) -> None:
    """If the trail refuses, the registry stays as it was."""

    class Full(MemoryTrail):
        async def record(self, *_parts: object, **_facts: object) -> None:
            raise Conflict("full")

    devices = Devices(bucket, Full(), clock)
    with pytest.raises(Conflict, match="full"):
        await devices.add(make(), by=admin)
    assert await bucket.get("air-1") is None
    assert devices.find("air-1") == -1


@pytest.mark.slow
async def test_devices_take_little_memory(trail: MemoryTrail, clock: FakeClock) -> None:
    """20,000 devices take less than 20 MB, so that 100,000 take less than 100. Times are in `bench memory`."""
    import tracemalloc

    from sensegate.authority import credentials
    from sensegate.authority.device_table import StoredDevice, encode_stored

    bucket = MemoryBucket()
    kept = credentials.issue()[1]
    for number in range(20_000):
        device = Device(
            f"gz-air-{number:06}", "440106", "acme/th10", alias=f"A84041FFFF{number:06x}", lon=113.3, lat=23.1
        )
        await bucket.put(device.id, encode_stored(StoredDevice(device, kept)))
    devices = Devices(bucket, trail, clock)
    await devices.load()
    tracemalloc.start()
    reopened = Devices(bucket, trail, clock)
    await reopened.load()
    used = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    stored = sum(len(value or b"") + 33 for value in reopened._values) / 1e6
    assert devices.find("gz-air-019999") == devices.find("A84041FFFF004e1f") == 19_999
    assert used + stored < 20


async def test_the_last_message_is_known_while_the_registry_grows(
    devices: Devices, clock: FakeClock, admin: Principal, make: Make
) -> None:
    """Columns are replaced when there is no room; what they held stays, of every column."""
    await devices.add(make("first", owner="o", asset="a", name="n", interval_s=7.0), by=admin)
    devices.observe(np.array([0], np.int32), np.array([clock.now()], np.int64))
    columns = ("last_seen", "present", "enabled", "has_name", "has_owner", "has_asset", "interval_s", "grade")
    before = {name: getattr(devices.index, name)[0].item() for name in columns}
    capacity = len(devices.index.grade)
    devices.index.reserve(capacity + 1)
    assert len(devices.index.grade) > capacity
    assert {name: getattr(devices.index, name)[0].item() for name in columns} == before
    assert all(before.values())
    assert devices.get("first").state is DeviceState.ACTIVE


FIELDS = st.sampled_from(["", "a", "b", "c"])
SORTED_BY = st.sampled_from(["id", "name", "department", "owner", "last_seen"])


@given(
    entries=st.lists(st.tuples(FIELDS, FIELDS, FIELDS, st.integers(0, 3)), max_size=12),
    sort=st.lists(
        st.tuples(st.sampled_from(["id", "name", "department", "owner", "last_seen"]), st.booleans()), max_size=3
    ),
    text=FIELDS,
)
async def test_order_and_search_are_those_of_the_rows(
    entries: list[tuple[str, str, str, int]], sort: list[tuple[str, bool]], text: str
) -> None:
    """Columns select and sort as a sort of the decoded rows would: ties by id, also where an order descends."""
    clock = FakeClock(1_800_000_000_000_000)
    devices = Devices(MemoryBucket(), MemoryTrail(), clock)
    by = Principal("admin", Role.ADMIN, Scope("44"))
    for number, (name, department, owner, entry) in enumerate(entries):
        # The order of registration is not that of the ids.
        device = Device(f"d{(number * 7) % 13:02d}", "440106", "p/p", name=name, department=department, owner=owner)
        await devices.add(device, by=by)
        devices.observe(np.array([number], np.int32), np.array([entry and clock.now() + entry], np.int64))
    rows = [device for device in devices.list() if text in f"{device.id}\n{device.name}\n{device.owner}"]
    for name, descends in reversed(sort):
        keys = {
            device.id: devices.seen(devices.find(device.id)) if name == "last_seen" else getattr(device, name)
            for device in rows
        }
        rows.sort(key=lambda device, keys=keys: keys[device.id], reverse=descends)  # type: ignore[misc]
    chosen = devices.ordered(devices.select(wanted=DeviceFilter(text=text)), sort)
    assert [devices.id(at) for at in chosen.tolist()] == [device.id for device in rows]


async def test_a_search_sees_changes(devices: Devices, admin: Principal, make: Make) -> None:
    """Texts are made once; a changed entry is found by its new text and no longer by the old one."""
    await devices.add(make("air-1", name="Old Roof", asset="pole 7"), by=admin)
    assert (
        len(devices.list(None, DeviceFilter(text="old roof")))
        == len(devices.list(None, DeviceFilter(text="POLE")))
        == 1
    )
    present = devices.get("air-1")
    await devices.change(msgspec.structs.replace(present, name="New Roof"), revision=present.revision, by=admin)
    assert devices.list(None, DeviceFilter(text="old roof")) == []
    assert [device.name for device in devices.list(None, DeviceFilter(text="new roof"))] == ["New Roof"]
    by_name = devices.ordered(devices.select(), [("name", False)])
    await devices.add(make("air-2", name="A"), by=admin)
    assert devices.ordered(devices.select(), [("name", False)]).tolist() == [1, *by_name.tolist()]


async def test_places_of_many_devices(devices: Devices, admin: Principal, make: Make) -> None:
    """Places by columns are those of the devices one by one; unknown devices have none."""
    assert devices.places(["a", "b"])[0].tolist() == [-1, -1]
    for name, division, department in (("a", "440106", "x"), ("b", "440103", ""), ("c", "440106", "x")):
        await devices.add(make(name, division=division, department=department, alias=f"alias-{name}"), by=admin)
    names = ["c", "nobody", "b", "a", "alias-b", ""]
    numbers, places = devices.places(names)
    placed = [places[number] if number >= 0 else None for number in numbers.tolist()]
    assert placed == [("440106", "x"), None, ("440103", ""), ("440106", "x"), ("440103", ""), None]
    assert placed == [devices.place(at) if (at := devices.find(name)) >= 0 else None for name in names]
    assert devices.places(["a"])[0].tolist() == [0]
    assert devices.places([])[1] == []


async def test_states_are_counted_once_a_second(
    devices: Devices, clock: FakeClock, admin: Principal, make: Make
) -> None:
    """A change of an entry is counted at once, what time brings within a second."""
    await devices.add(make("a", interval_s=60.0), by=admin)
    assert devices.count_states()[DeviceState.REGISTERED] == 1
    devices.observe(np.array([0], np.int32), np.array([clock.now()], np.int64))
    await clock.advance(1)
    assert devices.count_states()[DeviceState.ACTIVE] == 1
    await devices.add(make("b"), by=admin)
    assert devices.count_states()[DeviceState.REGISTERED] == 1
    await clock.advance(200)
    counts = {state: count for state, count in devices.count_states().items() if count}
    assert counts == {DeviceState.SILENT: 1, DeviceState.REGISTERED: 1}


class _HeldTrail(MemoryTrail):
    """A trail whose records wait until all changes of a test have decided."""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()
        self.held.set()

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        await self.held.wait()
        await super().record(by, action, target, before=before, after=after)


@pytest.mark.parametrize("first", ["disable", "retire", "move out"])
async def test_a_change_does_not_undo_one_that_was_written_meanwhile(
    bucket: MemoryBucket, clock: FakeClock, make: Make, admin: Principal, first: str
) -> None:
    """Of two changes that were decided on the same entry the later write is refused: a disabled device stays so."""
    trail = _HeldTrail()
    devices = Devices(bucket, trail, clock, home="44")
    await devices.add(make(), by=admin)
    trail.held.clear()
    changes: dict[str, Coroutine[object, object, object]] = {
        "disable": devices.disable("air-1", by=admin),
        "retire": devices.retire("air-1", by=admin),
        "move out": devices.move_out("air-1", by=admin, to="4403", move="m"),
        "shut out": devices.shut_out("air-1", by=admin, move="m"),
        "rotate": devices.rotate("air-1", by=admin),
    }
    tasks = [asyncio.create_task(changes.pop(first)), *map(asyncio.create_task, changes.values())]
    await asyncio.sleep(0)
    trail.held.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[1:]] == [Conflict] * len(changes)
    assert devices.get("air-1", admin).state is (DeviceState.DISABLED if first == "disable" else DeviceState.RETIRED)


async def test_an_id_is_registered_once_at_a_time(
    bucket: MemoryBucket, clock: FakeClock, make: Make, admin: Principal
) -> None:
    """Of two registrations of one id at the same time one is refused: no password is shown that never opens."""
    trail = _HeldTrail()
    devices = Devices(bucket, trail, clock, home="44")
    trail.held.clear()
    tasks = [asyncio.create_task(devices.add(make(), by=admin)) for _ in range(2)]
    await asyncio.sleep(0)
    trail.held.set()
    secret, refused = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(refused, Conflict)
    assert devices.verify("air-1", str(secret)) is not None
