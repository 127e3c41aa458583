"""Sharing across the tiers: nodes offer feeds in the catalogue of the centre, applications for them come back.

    node:    published entries ─▶ offers, offer ─▶ centre: a feed ``<node>-<name>`` and its entry, with a code
    centre:  codes, applications, grants for the node's data ─▶ node: visible and decided there too
    node:    decisions, revocations ─▶ centre, which applies them on behalf of the node's level

The centre serves the data that it has, and stores the grants for it. Requests and replies use the node's link
(`tiers.link`). This module defines them; `federation_node.py` is the node's side, `federation_centre.py` the centre's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from sensegate.share.applications import Application, Decision
from sensegate.share.catalogue import CatalogueEntry, QualityIndicators
from sensegate.share.feeds import Feed
from sensegate.share.grants import Grant

SYNC_INTERVAL_S = 2.0
"""Interval of a node's synchronisation, and of a centre's check for nodes that have left."""


class NodeOffers(msgspec.Struct, frozen=True, omit_defaults=True):
    """Request ``offers``: digests of what a node offers and already knows."""

    offers: dict[str, str] = {}
    """Feed -> digest of its offer."""
    measured: dict[str, QualityIndicators] = {}
    known: str = ""
    """Digest of the last `CentreUpdate` that the node applied; empty: none."""


class CentreUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Reply to ``offers``: the centre's offers for a node."""

    wanted: tuple[str, ...] = ()
    """Feeds whose offer the centre lacks or has in another version."""
    rejected: dict[str, str] = {}
    """Feed -> why the centre rejects its offer."""
    catalogue: str = ""
    """Digest of the catalogue of other gateways' entries; if it changed, the node requests the catalogue."""
    unchanged: bool = False
    """Codes, applications and grants are unchanged since `NodeOffers.known`, and omitted."""
    codes: dict[str, str] = {}
    applications: tuple[Application, ...] = ()
    grants: tuple[Grant, ...] = ()


class CatalogueRequest(msgspec.Struct, frozen=True):
    """Request ``catalogue``: the entries after a feed."""

    after: str = ""


class CatalogueSlice(msgspec.Struct, frozen=True):
    """Reply to ``catalogue``: entries of other gateways, in order of feed; empty: there are no more."""

    entries: tuple[CatalogueEntry, ...] = ()


class CatalogueOffer(msgspec.Struct, frozen=True):
    """Request ``offer``: a feed with its catalogue entry."""

    feed: Feed
    entry: CatalogueEntry


class NodeDecision(msgspec.Struct, frozen=True):
    """Request ``decision``: a decision made at a node; the reply is the application afterwards."""

    application: str
    by: str
    decision: Decision


class NodeRevocation(msgspec.Struct, frozen=True):
    """Request ``revocation``: a revocation made at a node; the reply is the grant afterwards."""

    grant: str
    by: str
    reason: str = ""


encode = msgspec.msgpack.Encoder().encode
AskCentre = Callable[[str, bytes], Awaitable[bytes]]
"""(request, payload) -> reply of the centre. Raises `Unavailable`, `PermissionDenied`."""


def mirrored_name(division: str, name: str) -> str:
    """Return the name of a node's feed at the centre."""
    return f"{division}-{name}"


def digest(record: object) -> str:
    """Return the digest of a record."""
    return hashlib.blake2b(msgspec.json.encode(record, order="deterministic"), digest_size=16).hexdigest()


def canonical(offer: CatalogueOffer) -> CatalogueOffer:
    """Return an offer without the fields that each gateway sets for itself, so that digests can be compared."""
    entry = msgspec.structs.replace(offer.entry, code="", origin="", revision=0, measured=QualityIndicators())
    return CatalogueOffer(msgspec.structs.replace(offer.feed, revision=0), entry)
