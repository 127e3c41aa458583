"""Feature: NGSI-LD (ETSI GS CIM 009)."""

from __future__ import annotations

import asyncio
from functools import partial

from sensegate.authority.record_store import RecordStore
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.ngsi_ld.context_routes import CONTEXT_ROUTES
from sensegate.ngsi_ld.context_sources import SOURCE_ROUTES, SOURCES
from sensegate.ngsi_ld.entity_routes import ENTITY_ROUTES, ENTITY_STORE, EntityStore
from sensegate.ngsi_ld.hosted_contexts import HOSTED, HostedContexts
from sensegate.ngsi_ld.parameters import CONTEXTS
from sensegate.ngsi_ld.rest import NGSI_LD, ROUTES
from sensegate.ngsi_ld.retrieval import EntityRetrieval
from sensegate.ngsi_ld.series import SeriesEntities, scope_of
from sensegate.ngsi_ld.source_registry import SourceRegistry
from sensegate.ngsi_ld.state_notifications import StateParts
from sensegate.ngsi_ld.stored_entities import EntityRegistry
from sensegate.ngsi_ld.subscription_registry import SubscriptionRegistry
from sensegate.ngsi_ld.subscription_routes import SUBSCRIPTION_ROUTES, SUBSCRIPTIONS
from sensegate.ngsi_ld.subscriptions import PREFIX
from sensegate.ngsi_ld.temporal import TemporalReader
from sensegate.ngsi_ld.temporal_rest import TEMPORAL, TEMPORAL_ROUTES
from sensegate.ngsi_ld.temporal_write_rest import TEMPORAL_WRITE_ROUTES
from sensegate.sensorthings.rest import SENSORTHINGS
from sensegate.share.pushing import may_see_token
from sensegate.share.subscriptions import RetryPolicy


async def _open(parts: Parts) -> Feature:
    core, share = parts.core, parts.share
    store = RecordStore(await core.bucket("ngsi_ld"), core.clock)
    stored = EntityRegistry(store)
    contexts = HostedContexts(store, parts.callers.audit, core.clock)
    sources = SourceRegistry(store, parts.callers.audit, core.clock, share.push.poster.check)
    divisions, tokens = parts.callers.divisions, parts.callers.tokens
    series = SeriesEntities(share.last_values, share.latest, share.sharing.server.masks, divisions)
    retrieval = EntityRetrieval(share.sharing, (series, stored))
    egress = core.config.egress
    state = StateParts(
        retrieval=retrieval,
        stored=stored,
        sharing=share.sharing,
        principal_of=tokens.principal,
        consumers=share.push.consumers,
        offsets=share.push.offsets,
        clock=core.clock,
        retry=RetryPolicy(egress.retry_initial_s, egress.retry_max_s, egress.failures_max),
        turn=asyncio.Lock(),
    )
    subscriptions = SubscriptionRegistry(
        store,
        share.push,
        parts.callers.audit,
        contexts,
        partial(scope_of, divisions=divisions),
        partial(may_see_token, tokens),
        state,
    )
    await store.open()
    await subscriptions.remove_orphans()
    observations = parts.find(SENSORTHINGS)
    temporal = {TEMPORAL: TemporalReader(observations)} if observations else {}
    return Feature(
        tasks=owned(
            {
                "ngsi-ld records": store.run,
                "ngsi-ld subscriptions": subscriptions.run,
                "ngsi-ld notifications": subscriptions.run_state,
            }
        ),
        parts={
            NGSI_LD: retrieval,
            CONTEXTS: contexts.resolver,
            HOSTED: contexts,
            ENTITY_STORE: EntityStore(stored, series),
            SOURCES: sources,
            SUBSCRIPTIONS: subscriptions,
            **temporal,
        },
    )


FEATURE = FeatureSpec(
    name="ngsi-ld",
    title="NGSI-LD: entities of readings by Smart Data Models, over all that a caller sees, and over a feed",
    buckets=("ngsi_ld",),
    subscription_prefixes=(PREFIX,),
    routes=(
        *ROUTES,
        *ENTITY_ROUTES,
        *CONTEXT_ROUTES,
        *SUBSCRIPTION_ROUTES,
        *TEMPORAL_ROUTES,
        *TEMPORAL_WRITE_ROUTES,
        *SOURCE_ROUTES,
    ),
    open=_open,
)
