"""Applications, grants and decisions over stores in memory."""

from __future__ import annotations

from typing import Any

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.errors import NotFound
from sensegate.share.access_requests import AccessRequests, AccessTerms
from sensegate.share.catalogue import (
    CatalogueEntry,
    DatasetCatalogue,
    SharingClass,
)
from sensegate.share.federation import AskCentre
from sensegate.share.federation_node import CentreRecords
from sensegate.share.feeds import Feed, FeedFilter, Feeds
from sensegate.share.grants import Admission, Grant, Grants
from sensegate.share.registries import SharingRegistries
from tests.share.made import NOW, access_request, decision_of

OWNER = Principal("owner", Role.CITY_OPERATOR, scope("4401"))
COUNTY = Principal("county", Role.COUNTY_OPERATOR, scope("440106"))
READER = Principal("reader", Role.SUBSCRIBER, scope("4403"))
TOKENS = {"reader": scope("4403"), "second": scope("4403"), "foreign": scope("4406")}
WISH: dict[str, Any] = {"feeds": ["air"], "purpose": "p", "legal_basis": "l", "days": 30}


class AccessBench:
    """A desk with one conditional, one unconditional and one core feed of 4401."""

    def __init__(self, ask: AskCentre | None = None) -> None:
        """`ask`: of a node, asks its centre."""
        self.clock = FakeClock(NOW)
        self.trail = MemoryTrail()
        self.bucket = MemoryBucket()
        self.store = RecordStore(self.bucket, self.clock)
        self.feeds = Feeds(MemoryBucket(), self.clock)
        self.catalogue = DatasetCatalogue(self.store)
        self.grants = Grants(
            self.store, self.feeds, self.clock, demands_grant=self.catalogue.demands_grant, core=self.catalogue.is_core
        )
        self.centre_records = CentreRecords(self.store, self.feeds, self.trail, ask, division="4401") if ask else None
        self.access = AccessRequests(
            SharingRegistries(self.store, self.feeds, self.catalogue, self.grants),
            self.trail,
            self.clock,
            subscriber=self._subscriber,
            centre=self.centre_records,
            terms=AccessTerms(answer_days=10, retention_days=100),
        )

    @staticmethod
    def _subscriber(name: str, by: Principal) -> Scope:
        record = TOKENS.get(name)
        if record is None or not by.scope.covers(record.division):
            raise NotFound(f"no token {name}")
        return record

    async def open(self) -> None:
        await self.feeds.open()
        await self.store.open()
        kinds = {"air": SharingClass.CONDITIONAL, "free": SharingClass.UNCONDITIONAL, "core": SharingClass.CONDITIONAL}
        for name, sharing in kinds.items():
            await self.feeds.create(Feed(name, divisions=("4401",)))
            grade = 4 if name == "core" else 2
            entry = CatalogueEntry(name, title="空氣", sharing=sharing, grade=grade, level="4401", published=1)
            await self.catalogue.records.put(name, entry, expected=0)

    async def granted(self, **decision: Any) -> Grant:
        """Return the grant of an application that the owner approves."""
        application = await self.access.apply(READER, access_request(WISH))
        done = await self.access.decide(OWNER, application.id, decision_of({"approve": True, **decision}), None)
        grant = self.grants.find(done.grants[0])
        assert grant is not None
        return grant

    def admission(self) -> Admission:
        return self.grants.admit(READER, "air", FeedFilter())

    @property
    def actions(self) -> list[str]:
        return [action for _, action, _, _, _ in self.trail.records]
