"""@contexts that stood inside requests: the same one has one address, the oldest give way, those in use stay."""

from __future__ import annotations

from typing import Any

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.ngsi_ld import hosted_contexts
from sensegate.ngsi_ld.hosted_contexts import HostedContexts
from sensegate.ngsi_ld.problems import NgsiError


@pytest.fixture
def contexts() -> HostedContexts:
    """The documents of a gateway that stores none."""
    clock = FakeClock()
    return HostedContexts(RecordStore(MemoryBucket(), clock), MemoryTrail(), clock)


def source(number: int) -> dict[str, Any]:
    """Return an @context."""
    return {"a": f"urn:x:{number}"}


def test_the_oldest_give_way(contexts: HostedContexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the number, and beyond the size, that one goes which was used longest ago."""
    monkeypatch.setattr(hosted_contexts, "IMPLICIT_MAX", 2)
    first, second = contexts.implicit(source(1)), contexts.implicit(source(2))
    assert contexts.implicit(source(1)).id == first.id
    contexts.implicit(source(3))
    assert contexts.get(first.id).document == source(1)
    with pytest.raises(NgsiError):
        contexts.get(second.id)
    monkeypatch.setattr(hosted_contexts, "IMPLICIT_BYTES_MAX", 170)
    large = contexts.implicit({"a": "urn:x:" + "a" * 150})
    assert [context.id for context in contexts.all()] == [large.id]


def test_what_is_in_use_stays(contexts: HostedContexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """An @context of two subscriptions stays until both are gone, however many others come."""
    monkeypatch.setattr(hosted_contexts, "IMPLICIT_MAX", 1)
    kept = contexts.implicit(source(1))
    contexts.pin(source(1))
    contexts.pin(source(1))
    contexts.implicit(source(2))
    contexts.unpin(source(1))
    assert contexts.get(kept.id).document == source(1)
    assert contexts.resolver.resolve(f"https://x/ngsi-ld/v1/jsonldContexts/{kept.id}").expand("a") == "urn:x:1"
    contexts.unpin(source(1))
    with pytest.raises(NgsiError):
        contexts.get(kept.id)
