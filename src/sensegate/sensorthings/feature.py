"""Feature: the OGC SensorThings API 1.1."""

from __future__ import annotations

from sensegate.authority.record_store import RecordStore
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.history.feature import QUERIES
from sensegate.sensorthings.batch_rest import BATCH_ROUTES
from sensegate.sensorthings.clients import ClientParts, MqttClients
from sensegate.sensorthings.observations import ObservationReader
from sensegate.sensorthings.rest import ROOT, ROUTES, SENSORTHINGS, WRITE_ROUTES
from sensegate.sensorthings.service import SensorThings
from sensegate.sensorthings.stored import StoredEntities
from sensegate.sensorthings.structure import Structures
from sensegate.sensorthings.updates import UpdateParts
from sensegate.sensorthings.view import ViewParts


async def _open(parts: Parts) -> Feature:
    core, share = parts.core, parts.share
    sharing, masks = share.sharing, share.sharing.server.masks
    stored = StoredEntities(RecordStore(await core.bucket("sensorthings"), core.clock))
    await stored.open()
    reader = ObservationReader(share.last_values, sharing.reader, masks, parts.find(QUERIES))
    views = ViewParts(
        values=share.last_values,
        devices=parts.lifecycle.devices,
        divisions=parts.callers.divisions,
        structures=Structures(share.last_values, share.latest, masks),
        stored=stored,
    )
    service = SensorThings(sharing, views, reader, top_max=core.config.web.page_max)
    updates = UpdateParts(
        service=service,
        tokens=parts.callers.tokens,
        publisher=share.push.topics,
        clock=core.clock,
        base=ROOT,
    )
    clients = MqttClients(
        ClientParts(
            engine=core.engine,
            bus=core.bus,
            updates=updates,
            devices=parts.lifecycle.devices,
            trail=parts.callers.audit,
            ingest=parts.sources.push,
            clock=core.clock,
        )
    )
    return Feature(
        tasks=owned({"sensorthings": stored.run, "sensorthings clients": clients.run}),
        parts={SENSORTHINGS: service},
        guests=(clients.authorize,),
        begin=clients.listen,
    )


FEATURE = FeatureSpec(
    name="sensorthings",
    title="OGC SensorThings API 1.1 over all that a caller sees, and over a feed",
    buckets=("sensorthings",),
    routes=(*BATCH_ROUTES, *ROUTES, *WRITE_ROUTES),
    open=_open,
)
