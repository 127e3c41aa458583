"""Feature: NGSI-LD (ETSI GS CIM 009)."""

from __future__ import annotations

from sensegate.feature import Feature, FeatureSpec, Parts
from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.parameters import CONTEXTS
from sensegate.ngsi_ld.rest import NGSI_LD, ROUTES
from sensegate.ngsi_ld.retrieval import EntityRetrieval
from sensegate.ngsi_ld.series import SeriesEntities
from sensegate.ngsi_ld.temporal import TemporalReader
from sensegate.ngsi_ld.temporal_rest import TEMPORAL, TEMPORAL_ROUTES
from sensegate.sensorthings.rest import SENSORTHINGS


async def _open(parts: Parts) -> Feature:
    share = parts.share
    masks = share.sharing.server.masks
    series = SeriesEntities(share.last_values, share.latest, masks, parts.callers.divisions)
    observations = parts.find(SENSORTHINGS)
    temporal = {TEMPORAL: TemporalReader(observations)} if observations else {}
    return Feature(parts={NGSI_LD: EntityRetrieval(share.sharing, (series,)), CONTEXTS: LdContexts(), **temporal})


FEATURE = FeatureSpec(
    name="ngsi-ld",
    title="NGSI-LD: entities of readings by Smart Data Models, over all that a caller sees, and over a feed",
    routes=(*ROUTES, *TEMPORAL_ROUTES),
    open=_open,
)
