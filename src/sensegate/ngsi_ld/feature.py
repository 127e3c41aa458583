"""Feature: NGSI-LD (ETSI GS CIM 009)."""

from __future__ import annotations

from sensegate.feature import Feature, FeatureSpec, Parts
from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.parameters import CONTEXTS
from sensegate.ngsi_ld.rest import NGSI_LD, ROUTES
from sensegate.ngsi_ld.retrieval import EntityRetrieval
from sensegate.ngsi_ld.series import SeriesEntities


async def _open(parts: Parts) -> Feature:
    share = parts.share
    masks = share.sharing.server.masks
    series = SeriesEntities(share.last_values, share.latest, masks, parts.callers.divisions)
    return Feature(parts={NGSI_LD: EntityRetrieval(share.sharing, (series,)), CONTEXTS: LdContexts()})


FEATURE = FeatureSpec(
    name="ngsi-ld",
    title="NGSI-LD: entities of readings by Smart Data Models, over all that a caller sees, and over a feed",
    routes=ROUTES,
    open=_open,
)
