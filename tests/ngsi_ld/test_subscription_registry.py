"""The registry of subscriptions: what it refuses, and what one that cannot be read does to the others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.hosted_contexts import HostedContexts
from sensegate.ngsi_ld.problems import ErrorType, NgsiError
from sensegate.ngsi_ld.stored_entities import EntityRegistry
from sensegate.ngsi_ld.subscription_registry import SubscriptionContext, SubscriptionRegistry
from sensegate.ngsi_ld.subscriptions import EntitySubscription, key_of, read_document
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.subscriptions import CommittedOffset
from tests.conftest import eventually
from tests.ngsi_ld.receiving import BODY, ENDPOINT, Receiver

CONTEXT = SubscriptionContext(LdContexts().core)
SUBSCRIBER = Principal("t1", Role.SUBSCRIBER, Scope("44"))
UNREADABLE: list[dict[str, Any]] = [
    {"lang": "zh;q=5"},
    {"notification": {"endpoint": ENDPOINT, "attributes": ["@foo"]}},
    {"notification": {"endpoint": ENDPOINT, "pick": ["@foo"]}},
    {"notification": {"endpoint": ENDPOINT, "omit": ["@foo"]}},
]


class Kept:
    """A registry in memory, and those of its subscriptions whose tasks run."""

    def __init__(self) -> None:
        clock = FakeClock()
        store = RecordStore(MemoryBucket(), clock)
        offsets: RecordTable[CommittedOffset] = RecordTable(store, "offset", CommittedOffset)
        self.consumers = ActiveConsumers(clock, lambda: 0)
        stored = EntityRegistry(store)
        trail = MemoryTrail()
        self.registry = SubscriptionRegistry(
            store,
            cast("Any", SimpleNamespace(poster=Receiver(), offsets=offsets)),
            trail,
            HostedContexts(store, trail, clock),
            lambda code: f"/44/{code}",
            lambda _token, _principal: False,
            cast("Any", SimpleNamespace(stored=stored, clock=clock, consumers=self.consumers)),
        )

    async def store(self, name: str, **members: Any) -> None:
        """Store a subscription to changes as it stands, unchecked."""
        document = read_document({**BODY, "id": name, "notificationTrigger": ["entityDeleted"], **members})
        subscription = EntitySubscription(id=name, feed="all", subscriber="t1", document=document, secret="")
        await self.registry.records.put(key_of(name), subscription, expected=0)


@pytest.mark.parametrize("members", UNREADABLE)
async def test_what_its_task_could_not_read_is_refused(members: dict[str, Any]) -> None:
    """A subscription whose notifications could not be written is BadRequestData, and is not kept."""
    registry = Kept().registry
    with pytest.raises(NgsiError) as caught:
        await registry.create(SUBSCRIBER, "all", read_document({**BODY, **members}), CONTEXT, after="")
    assert caught.value.kind is ErrorType.BAD_REQUEST_DATA
    assert len(registry.records) == 0


@pytest.mark.parametrize("members", UNREADABLE)
async def test_one_that_cannot_be_read_holds_up_itself_alone(members: dict[str, Any]) -> None:
    """An invalid subscription of an earlier version waits; the other subscriptions run, later ones too."""
    kept = Kept()
    await kept.store("urn:x:bad", **members)
    await kept.store("urn:x:good")
    task = asyncio.create_task(kept.registry.run_state())
    await eventually(lambda: task.done() or len(kept.consumers) == 1)
    await kept.store("urn:x:later")
    await eventually(lambda: task.done() or len(kept.consumers) == 2)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
