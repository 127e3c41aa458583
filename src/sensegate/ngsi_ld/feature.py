"""Feature: NGSI-LD (ETSI GS CIM 009)."""

from __future__ import annotations

from sensegate.authority.record_store import RecordStore
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.ngsi_ld.context_routes import CONTEXT_ROUTES
from sensegate.ngsi_ld.entity_routes import ENTITY_ROUTES, ENTITY_STORE, EntityStore
from sensegate.ngsi_ld.hosted_contexts import HOSTED, HostedContexts
from sensegate.ngsi_ld.parameters import CONTEXTS
from sensegate.ngsi_ld.rest import NGSI_LD, ROUTES
from sensegate.ngsi_ld.retrieval import EntityRetrieval
from sensegate.ngsi_ld.series import SeriesEntities
from sensegate.ngsi_ld.stored_entities import EntityRegistry
from sensegate.ngsi_ld.temporal import TemporalReader
from sensegate.ngsi_ld.temporal_rest import TEMPORAL, TEMPORAL_ROUTES
from sensegate.sensorthings.rest import SENSORTHINGS


async def _open(parts: Parts) -> Feature:
    core, share = parts.core, parts.share
    store = RecordStore(await core.bucket("ngsi_ld"), core.clock)
    stored = EntityRegistry(store)
    contexts = HostedContexts(store, parts.callers.audit, core.clock)
    await store.open()
    masks = share.sharing.server.masks
    series = SeriesEntities(share.last_values, share.latest, masks, parts.callers.divisions)
    observations = parts.find(SENSORTHINGS)
    temporal = {TEMPORAL: TemporalReader(observations)} if observations else {}
    return Feature(
        tasks=owned({"ngsi-ld records": store.run}),
        parts={
            NGSI_LD: EntityRetrieval(share.sharing, (series, stored)),
            CONTEXTS: contexts.resolver,
            HOSTED: contexts,
            ENTITY_STORE: EntityStore(stored, series),
            **temporal,
        },
    )


FEATURE = FeatureSpec(
    name="ngsi-ld",
    title="NGSI-LD: entities of readings by Smart Data Models, over all that a caller sees, and over a feed",
    buckets=("ngsi_ld",),
    routes=(*ROUTES, *ENTITY_ROUTES, *CONTEXT_ROUTES, *TEMPORAL_ROUTES),
    open=_open,
)
