"""The registry of context sources over HTTP: registered, changed, discovered by scope, and nothing connected to."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.errors import Overloaded
from sensegate.ngsi_ld import source_registry
from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.entities import Viewer
from sensegate.ngsi_ld.entity_writing import Owner
from sensegate.ngsi_ld.problems import NgsiError
from sensegate.ngsi_ld.registrations import read_registration
from sensegate.ngsi_ld.retrieval import EntityQuery
from sensegate.ngsi_ld.source_registry import SourceQuery, SourceRegistry
from sensegate.share.feeds import ALL_FEED
from sensegate.share.grants import Admission
from tests.ngsi_ld.serving import Entities, entities_serving

PATH = "csourceRegistrations"
ERRORS = "https://uri.etsi.org/ngsi-ld/errors/"
PARK = {
    "type": "ContextSourceRegistration",
    "registrationName": "parks",
    "information": [{"entities": [{"type": "Park"}], "propertyNames": ["area"], "relationshipNames": ["keeper"]}],
    "endpoint": "https://parks.example.org/ngsi-ld",
}
_NUMBERS = itertools.count(1)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city() -> AsyncIterator[Entities]:
    """The API, asked by an operator of the city 4401."""
    async with entities_serving(rows=()) as running:
        yield running.under(await running.gateway.token(Role.CITY_OPERATOR, "4401"))


async def registered(city: Entities, *, at: str = "", **members: Any) -> str:
    """Register a source, with other members than the park's; return its id."""
    name = f"urn:x:source:{next(_NUMBERS)}"
    place = {"division": at} if at else {}
    await city.ask(PATH, method="POST", json={**PARK, "id": name, **members}, expect=201, **place)
    return name


async def matching_ids(city: Entities, **query: Any) -> list[str]:
    """Return the ids of the registrations that match."""
    return [document["id"] for document in await city.ask(PATH, limit=1_000, **query)]


async def test_register_retrieve_and_delete(city: Entities) -> None:
    """A registration is returned as it was given, exists once, is audited, and is gone once deleted."""
    _, created = await city.reply(PATH, method="POST", json=PARK, expect=201)
    path = created.headers["Location"]
    name = path.rpartition("/")[2]
    assert await city.ask(path) == {"id": name, **PARK}
    times = await city.ask(path, options="sysAttrs")
    assert times["createdAt"] == times["modifiedAt"]
    problem = await city.ask(PATH, method="POST", json={**PARK, "id": name}, expect=409)
    assert problem["type"] == f"{ERRORS}AlreadyExists"
    await city.ask(path, method="DELETE", expect=204)
    for method in ("GET", "DELETE"):
        assert (await city.ask(path, method=method, expect=404))["type"] == f"{ERRORS}ResourceNotFound"
    acts = [act for _, act, target, _, _ in city.gateway.trail.records if target == name]
    assert acts == ["ngsi_ld.source.create", "ngsi_ld.source.delete"]


async def test_update(city: Entities) -> None:
    """A change replaces the members that it names, removes those that are null, and is judged as the whole."""
    name = await registered(city, description="green", information=[{"entities": [{"type": "Lake"}]}])
    path = f"{PATH}/{name}"
    change = {"description": None, "endpoint": "https://lakes.example.org", "information": [{"propertyNames": ["ph"]}]}
    await city.ask(path, method="PATCH", json=change, expect=204)
    assert await city.ask(path) == {
        "id": name,
        "type": PARK["type"],
        "registrationName": "parks",
        "endpoint": "https://lakes.example.org",
        "information": [{"propertyNames": ["ph"]}],
    }
    refused: tuple[dict[str, Any], ...] = (
        {"id": "urn:x:other"},
        {"endpoint": None},
        {"information": []},
        {"endpoint": "https://127.0.0.1/"},
    )
    for wrong in refused:
        await city.ask(path, method="PATCH", json=wrong, expect=400)
    assert (await city.ask(path))["endpoint"] == "https://lakes.example.org"
    await city.ask(f"{PATH}/urn:x:none", method="PATCH", json={"description": "x"}, expect=404)


async def test_the_context_of_names(city: Entities) -> None:
    """Types and attributes are kept as IRIs: another @context shows and finds them by other names."""
    body = {**PARK, "id": "urn:x:ld", "@context": {"Park": "https://example.org/Park", "area": "https://example.org/a"}}
    media = {"Content-Type": "application/ld+json"}
    await city.ask(PATH, method="POST", json=body, headers=media, expect=201)
    plain = await city.ask(f"{PATH}/urn:x:ld")
    assert plain["information"][0]["entities"] == [{"type": "https://example.org/Park"}]
    assert plain["information"][0]["propertyNames"] == ["https://example.org/a"]
    linked, answer = await city.reply(f"{PATH}/urn:x:ld", headers={"Accept": "application/ld+json"})
    assert (answer.content_type, bool(linked["@context"])) == ("application/ld+json", True)
    assert "urn:x:ld" in await matching_ids(city, type="https://example.org/Park")
    assert "urn:x:ld" not in await matching_ids(city, type="Park")
    await city.ask(f"{PATH}/urn:x:ld", headers={"Accept": "application/geo+json"}, expect=406)


async def test_discovery(city: Entities) -> None:
    """A source is found if it may have what is asked for, and shows of its information what matches."""
    tree = {"entities": [{"type": ["Tree", "Bush"], "id": "urn:x:tree:1"}], "propertyNames": ["height"]}
    any_tree = {"entities": [{"type": "Tree", "idPattern": "^urn:x:tree:[2-9]$"}]}
    area = {"type": "Polygon", "coordinates": [[[113, 23], [114, 23], [114, 24], [113, 24], [113, 23]]]}
    exact = await registered(city, information=[tree, {"entities": [{"type": "Well"}]}], location=area)
    pattern = await registered(city, information=[any_tree])
    flower = await registered(city, information=[{"propertyNames": ["bloom"]}])
    both = {exact, pattern}

    async def matches(**query: Any) -> set[str]:
        return set(await matching_ids(city, **query)) & {*both, flower}

    assert await matches(type="Tree") == {*both, flower}  # a source without entities may have any
    assert await matches(type="Bush", attrs="height") == {exact}
    assert await matches(type="Tree", attrs="height") == both
    assert await matches(type="Tree", attrs="bloom") == {pattern, flower}
    assert await matches(type="Tree", attrs="height", id="urn:x:tree:1") == {exact}
    assert await matches(type="Tree", attrs="height", id="urn:x:tree:3,urn:x:tree:9") == {pattern}
    assert await matches(type="Tree", attrs="height", id="urn:x:tree:12") == set()
    assert await matches(type="Tree", attrs="height", idPattern="1$") == both
    assert await matches(type="Tree", attrs="height", idPattern="^urn:y") == {pattern}
    near = {"geometry": "Point", "coordinates": "[113.5,23.5]"}
    assert await matches(type="Well", georel="near;maxDistance==10", **near) == {exact}
    small = "[[[113.4,23.4],[113.6,23.4],[113.6,23.6],[113.4,23.4]]]"
    assert await matches(type="Well", georel="within", geometry="Polygon", coordinates=small) == {exact}
    assert await matches(type="Tree", georel="near;maxDistance==10", **near) == set()  # its trees have no location
    far = {"geometry": "Point", "coordinates": "[100,10]"}
    assert await matches(type="Well", georel="near;maxDistance==10", **far) == set()
    (shown,) = [document for document in await city.ask(PATH, type="Bush", attrs="height") if document["id"] == exact]
    assert shown["information"] == [tree]
    page, answer = await city.reply(PATH, type="*", limit=1, offset=1, count="true")
    assert [document["id"] for document in page] == (await matching_ids(city, type="*"))[1:2]
    assert int(answer.headers["NGSILD-Results-Count"]) == len(await matching_ids(city, type="*"))
    assert 'rel="next"' in answer.headers["Link"]
    for wrong in ({}, {"id": "urn:x:tree:1"}, {"type": "Tree", "csf": "a==1"}, {"type": "Tree", "q": "a>1"}):
        await city.ask(PATH, **wrong, expect=400)


async def test_intervals(city: Entities) -> None:
    """Sources of a period are found by a temporal query that overlaps only; those of the latest data without one."""
    past = {"startAt": "2020-01-01T00:00:00Z", "endAt": "2021-01-01T00:00:00Z"}
    kept = await registered(city, information=[{"entities": [{"type": "Tide"}]}], observationInterval=past)
    begun = {"startAt": "2022-01-01T00:00:00Z"}
    managed = await registered(city, information=[{"entities": [{"type": "Tide"}]}], managementInterval=begun)
    latest = await registered(city, information=[{"entities": [{"type": "Tide"}]}])

    async def tide(**query: Any) -> list[str]:
        return [name for name in await matching_ids(city, type="Tide", **query) if name in {kept, managed, latest}]

    assert await tide() == [latest]
    assert await tide(timerel="after", timeAt="2020-06-01T00:00:00Z") == [kept]
    assert await tide(timerel="after", timeAt="2021-06-01T00:00:00Z") == []
    assert await tide(timerel="before", timeAt="2019-01-01T00:00:00Z") == []
    between = {"timerel": "between", "timeAt": "2019-01-01T00:00:00Z", "endTimeAt": "2020-02-01T00:00:00Z"}
    assert await tide(**between) == [kept]
    assert await tide(timerel="after", timeAt="2030-01-01T00:00:00Z", timeproperty="createdAt") == [managed]


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"type": "Park"}, 400),
        ({"type": None}, 400),
        ({"id": "park"}, 400),
        ({"information": []}, 400),
        ({"information": [{}]}, 400),
        ({"information": [{"entities": [{"id": "urn:x:1"}]}]}, 400),
        ({"information": [{"entities": [{"type": []}]}]}, 400),
        ({"information": [{"entities": [{"type": "Park", "idPattern": "("}]}]}, 400),
        ({"information": [{"propertyNames": [f"name{number}" for number in range(101)]}]}, 400),
        ({"information": [{"propertyNames": ["x" * 1_000] * 100}]}, 400),
        ({"endpoint": None}, 400),
        ({"endpoint": "file:///etc/passwd"}, 400),
        ({"endpoint": "https://10.1.2.3/ngsi-ld"}, 400),
        ({"endpoint": "https://user:secret@example.org/"}, 400),
        ({"location": {"type": "Point", "coordinates": [200, 0]}}, 400),
        ({"observationInterval": {"startAt": "yesterday"}}, 400),
        ({"managementInterval": {"startAt": "2026-01-01T00:00:00Z", "endAt": "2025-01-01T00:00:00Z"}}, 400),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, 400),
        ({"unknown": 1}, 400),
        ({"mode": "exclusive"}, 422),
        ({"contextSourceInfo": [{"key": "Authorization", "value": "x"}]}, 422),
    ],
)
async def test_what_is_refused(city: Entities, members: dict[str, Any], status: int) -> None:
    """A registration that is wrong or too large, whose endpoint is not allowed, or that asks for forwarding."""
    body = {name: value for name, value in {**PARK, **members}.items() if value is not None}
    problem = await city.ask(PATH, method="POST", json=body, expect=status)
    kind = "BadRequestData" if status == 400 else "OperationNotSupported"
    assert problem["type"] == f"{ERRORS}{kind}", problem


async def test_rights(city: Entities) -> None:
    """A registration is seen and written within the scope of its owner only; a subscriber writes none."""
    name = await registered(city, at="440106")
    path = f"{PATH}/{name}"
    gateway = city.gateway
    shenzhen = city.under(await gateway.token(Role.CITY_OPERATOR, "4403"))
    subscriber = city.under(await gateway.token(Role.SUBSCRIBER, "440106"))
    assert name in await matching_ids(subscriber, type="Park")
    assert (await subscriber.ask(path))["id"] == name
    assert name not in await matching_ids(shenzhen, type="Park")
    for method in ("GET", "PATCH", "DELETE"):
        more = {"json": {"description": "mine"}} if method == "PATCH" else {}
        await shenzhen.ask(path, method=method, expect=404, **more)
    await shenzhen.ask(PATH, method="POST", json=PARK, division="440106", expect=403)
    await subscriber.ask(PATH, method="POST", json=PARK, expect=403)
    await subscriber.ask(path, method="PATCH", json={"description": "mine"}, expect=403)
    await subscriber.ask(path, method="DELETE", expect=403)
    assert await city.ask(path) == {"id": name, **PARK}


OPERATOR = Principal("t1", Role.CITY_OPERATOR, Scope("4401"))


async def test_ends_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expired registration is not returned and makes room; beyond the limit a further one is refused."""
    monkeypatch.setattr(source_registry, "REGISTRATIONS_MAX", 2)
    clock = FakeClock()
    store = RecordStore(MemoryBucket(), clock)
    registry = SourceRegistry(store, MemoryTrail(), clock, lambda _endpoint: None)
    context = LdContexts().core
    viewer = Viewer(OPERATOR, Admission(ALL_FEED, None), clock.now())

    async def create(**members: Any) -> str:
        document = read_registration({**PARK, **members}, context, clock.now())
        return (await registry.create(OPERATOR, document, Owner("4401"))).id

    async def names() -> list[str]:
        registrations = await registry.discover(viewer, SourceQuery(entities=EntityQuery()))
        return [registration.id for registration in registrations]

    await create(id="urn:x:1", expiresAt="2099-01-01T00:00:00Z")
    await create(id="urn:x:2")
    assert await names() == ["urn:x:1", "urn:x:2"]
    with pytest.raises(Overloaded):
        await create(id="urn:x:3")
    await clock.advance(100 * 366 * 86_400)
    assert await names() == ["urn:x:2"]
    with pytest.raises(NgsiError, match="no registration"):
        registry.get(viewer, "urn:x:1")
    await create(id="urn:x:3")
    assert await names() == ["urn:x:2", "urn:x:3"]
    reopened_store = RecordStore(store.bucket, clock)
    reopened = SourceRegistry(reopened_store, MemoryTrail(), clock, lambda _endpoint: None)
    await reopened_store.open()
    assert msgspec.to_builtins(reopened.get(viewer, "urn:x:3")) == msgspec.to_builtins(registry.get(viewer, "urn:x:3"))
