"""Writing of stored entities: every operation of clause 5.6, the rights it needs, and what it leaves on the trail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import SystemClock
from sensegate.errors import PermissionDenied
from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.core_context import DEFAULT_VOCABULARY
from sensegate.ngsi_ld.documents import NULL, DocumentReader, EntityDocument
from sensegate.ngsi_ld.entities import Viewer
from sensegate.ngsi_ld.entity_writing import Owner, StoredEntityWriter
from sensegate.ngsi_ld.problems import ErrorType, NgsiError
from sensegate.ngsi_ld.stored_entities import EntityRegistry
from sensegate.share.feeds import ALL_FEED
from sensegate.share.grants import Admission

CORE = LdContexts().core
NAME = "urn:ngsi-ld:Building:1"
DEVICE, UNSEEN = "urn:ngsi-ld:AirQualityObserved:gz-air", "urn:ngsi-ld:AirQualityObserved:sz-air"
OPERATOR = Principal("t1", Role.CITY_OPERATOR, Scope("4401"))
ELSEWHERE = Principal("t2", Role.CITY_OPERATOR, Scope("4403"))
READER = Principal("t3", Role.SUBSCRIBER, Scope("44"))
FIRST, SECOND = 1_000_000, 2_000_000


def iri(name: str) -> str:
    return f"{DEFAULT_VOCABULARY}{name}"


def fragment(**members: Any) -> EntityDocument:
    return DocumentReader(CORE, is_fragment=True).entity(members)


def whole(**members: Any) -> EntityDocument:
    return DocumentReader(CORE).entity({"id": NAME, "type": "Building", **members})


class Kept:
    """Stored entities in memory, with writers of several callers."""

    def __init__(self) -> None:
        self.stored = EntityRegistry(RecordStore(MemoryBucket(), SystemClock()))
        self.trail = MemoryTrail()

    def writer(self, principal: Principal = OPERATOR, now: int = SECOND) -> StoredEntityWriter:
        async def is_device(name: str) -> bool:
            return name == DEVICE

        return StoredEntityWriter(
            self.stored, self.trail, principal, is_device, now, is_reserved=lambda name: name in {DEVICE, UNSEEN}
        )

    def values(self) -> dict[str, Any]:
        entity = self.stored.find(NAME)
        assert entity is not None
        return {instance.name.rpartition("/")[2]: instance.value for instance in entity.attributes}


@pytest.fixture
async def kept() -> Kept:
    """One entity with a few attributes."""
    made = Kept()
    document = whole(
        height={
            "type": "Property",
            "value": 30,
            "unitCode": "MTR",
            "observedAt": "2026-01-01T00:00:00Z",
            "by": "ruler",
        },
        owner={"type": "Property", "value": {"name": "Li", "phone": {"office": "1", "home": "2"}}},
        name={"languageMap": {"zh": "樓", "en": "house"}},
    )
    await made.writer(now=FIRST).create(document, Owner("4401", "env"))
    return made


async def refused(coroutine: Any) -> ErrorType:
    with pytest.raises(NgsiError) as caught:
        await coroutine
    return caught.value.kind


async def test_create_and_delete(kept: Kept) -> None:
    """An entity exists once, belongs to its owner, has its times; deleted, it is gone; both on the trail."""
    entity = kept.stored.find(NAME)
    assert entity is not None
    assert (entity.division, entity.department, entity.created, entity.modified) == ("4401", "env", FIRST, FIRST)
    assert all((instance.created, instance.modified) == (FIRST, FIRST) for instance in entity.attributes)
    assert await refused(kept.writer().create(whole(), Owner("4401"))) is ErrorType.ALREADY_EXISTS
    await kept.writer().delete(NAME)
    assert kept.stored.find(NAME) is None
    assert await refused(kept.writer().delete(NAME)) is ErrorType.RESOURCE_NOT_FOUND
    assert [(act, target) for _, act, target, _, _ in kept.trail.records] == [
        ("ngsi_ld.create", NAME),
        ("ngsi_ld.delete", NAME),
    ]
    await kept.writer().create(whole(), Owner("4401"))


async def test_append_and_update(kept: Kept) -> None:
    """Append adds and overwrites, or with noOverwrite keeps; update changes only what exists (207 names the rest)."""
    result = await kept.writer().append(NAME, fragment(height=31, floors=5), overwrites=False)
    assert result.updated == (iri("floors"),)
    assert [name for name, _ in result.not_updated] == [iri("height")]
    result = await kept.writer().append(NAME, fragment(height=32))
    assert not result.not_updated
    result = await kept.writer().update(NAME, fragment(height=33, rooms=9))
    assert [name for name, _ in result.not_updated] == [iri("rooms")]
    assert kept.values() | {"owner": 0, "name": 0} == {"height": 33, "floors": 5, "owner": 0, "name": 0}
    entity = kept.stored.find(NAME)
    assert entity is not None
    (height,) = [instance for instance in entity.attributes if instance.name == iri("height")]
    assert (height.created, height.modified, height.unit, height.sub) == (FIRST, SECOND, "", ())


async def test_merge(kept: Kept) -> None:
    """Merging goes into JSON values, languages and attributes of attributes; what is not named stays."""
    await kept.writer().merge(
        NAME,
        fragment(
            height={"value": 31, "note": "new"},
            owner={"value": {"phone": {"home": NULL, "mobile": "3"}}},
            name={"languageMap": {"en": NULL, "pt": "casa"}},
        ),
        observed_at=SECOND,
    )
    entity = kept.stored.find(NAME)
    assert entity is not None
    assert kept.values() == {
        "height": 31,
        "owner": {"name": "Li", "phone": {"office": "1", "mobile": "3"}},
        "name": {"zh": "樓", "pt": "casa"},
    }
    height = entity.attributes[0]
    assert (height.unit, height.observed_at) == ("MTR", SECOND)
    assert [instance.value for instance in height.sub] == ["ruler", "new"]
    await kept.writer().merge(NAME, fragment(height=NULL, type="Tower", scope="/a"))
    entity = kept.stored.find(NAME)
    assert entity is not None
    assert (entity.types, entity.scopes) == ((iri("Building"), iri("Tower")), ("/a",))
    assert set(kept.values()) == {"owner", "name"}


async def test_replace(kept: Kept) -> None:
    """A replaced entity has the attributes of the document only, its own time of creation and its owner."""
    await kept.writer().replace(NAME, whole(floors=3))
    entity = kept.stored.find(NAME)
    assert entity is not None
    assert kept.values() == {"floors": 3}
    assert (entity.created, entity.modified, entity.department) == (FIRST, SECOND, "env")
    other = DocumentReader(CORE).entity({"id": NAME, "type": "Bridge"})
    assert await refused(kept.writer().replace(NAME, other)) is ErrorType.BAD_REQUEST_DATA


async def test_one_attribute(kept: Kept) -> None:
    """Partial update keeps what it does not name, replacement does not; each data set is apart."""
    reader = DocumentReader(CORE, is_fragment=True)
    height = iri("height")
    await kept.writer().change_attribute(NAME, height, reader.attribute("height", {"value": 31}), replaces=False)
    entity = kept.stored.find(NAME)
    assert entity is not None
    assert (entity.attributes[0].value, entity.attributes[0].unit) == (31, "MTR")
    await kept.writer().change_attribute(NAME, height, reader.attribute("height", {"value": 32}), replaces=True)
    entity = kept.stored.find(NAME)
    assert entity is not None
    assert (entity.attributes[0].value, entity.attributes[0].unit) == (32, "")
    roof = reader.attribute("height", {"type": "Property", "value": 40, "datasetId": "urn:x:roof"})
    writer = kept.writer()
    assert await refused(writer.change_attribute(NAME, height, roof, replaces=True)) is ErrorType.RESOURCE_NOT_FOUND
    await writer.append(NAME, EntityDocument(attributes=tuple(roof)))
    await writer.delete_attribute(NAME, height, "urn:x:roof")
    assert kept.values()["height"] == 32
    await writer.append(NAME, EntityDocument(attributes=tuple(roof)))
    await writer.delete_attribute(NAME, height, deletes_all=True)
    assert "height" not in kept.values()
    assert await refused(writer.delete_attribute(NAME, height)) is ErrorType.RESOURCE_NOT_FOUND


async def test_entities_of_devices_are_read_only(kept: Kept) -> None:
    """A device's entity is not created (409) and not changed (OperationNotSupported), with the way out."""
    document = DocumentReader(CORE).entity({"id": DEVICE, "type": "AirQualityObserved"})
    writer = kept.writer()
    assert await refused(writer.create(document, Owner("4401"))) is ErrorType.ALREADY_EXISTS
    reserved = DocumentReader(CORE).entity({"id": "urn:ngsi-ld:Device:new", "type": "Device"})
    assert await refused(writer.create(reserved, Owner("4401"))) is ErrorType.ALREADY_EXISTS
    assert await refused(writer.merge(DEVICE, fragment(a=1))) is ErrorType.OPERATION_NOT_SUPPORTED
    with pytest.raises(NgsiError, match="/api/v1/devices"):
        await writer.delete(DEVICE)


async def test_entities_of_foreign_devices_are_not_created(kept: Kept) -> None:
    """The id of a device elsewhere is refused as every id of a device; asked for, it is unknown as any other."""
    document = DocumentReader(CORE).entity({"id": UNSEEN, "type": "AirQualityObserved"})
    assert await refused(kept.writer().create(document, Owner("4401"))) is ErrorType.ALREADY_EXISTS
    assert kept.stored.find(UNSEEN) is None
    assert await refused(kept.writer().merge(UNSEEN, fragment(a=1))) is ErrorType.RESOURCE_NOT_FOUND


async def test_rights(kept: Kept) -> None:
    """Others see nothing of it, who only reads may not write, and nobody writes outside the own scope."""
    before = len(kept.trail.records)
    writer = kept.writer(ELSEWHERE)
    assert not writer.exists(NAME)
    assert await refused(writer.merge(NAME, fragment(a=1))) is ErrorType.RESOURCE_NOT_FOUND
    assert await refused(writer.delete(NAME)) is ErrorType.RESOURCE_NOT_FOUND
    document = DocumentReader(CORE).entity({"id": "urn:ngsi-ld:Building:2", "type": "Building"})
    with pytest.raises(PermissionDenied):
        await writer.create(document, Owner("4401"))
    for act in (kept.writer(READER).delete(NAME), kept.writer(READER).create(document, Owner("44"))):
        with pytest.raises(PermissionDenied):
            await act
    assert len(kept.trail.records) == before
    assert kept.writer().exists(NAME)


async def test_a_feed_and_a_grant_show_readings_only(kept: Kept) -> None:
    """Stored entities are seen by the scope of a token, not through a feed, a grant or a token for feeds."""
    every = Admission(ALL_FEED, None)
    assert list(await kept.stored.entities(Viewer(OPERATOR, every, SECOND))) == [NAME]
    assert not await kept.stored.entities(Viewer(ELSEWHERE, every, SECOND))
    feed = msgspec.structs.replace(ALL_FEED, name="air")
    restricted = msgspec.structs.replace(OPERATOR, feeds=("all",))
    for viewer in (Viewer(OPERATOR, Admission(feed, None), SECOND), Viewer(restricted, every, SECOND)):
        assert not await kept.stored.entities(viewer)
