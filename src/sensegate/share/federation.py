"""Sharing across the tiers: what a node offers stands in the centre's catalogue, and what is asked of it comes down.

    node:    published entries ─▶ offers, offer ─▶ centre: a feed ``<node>-<name>`` and its entry, with a code
    centre:  codes, applications, grants for the node's data ─▶ node: seen and decided there, too
    node:    decide, revoke ─▶ centre, which does it in the name of the node's level

The centre serves the data that it has; grants live there. Questions and answers go over the node's link
(`bus.ask`). Here stands what is said; `joint_up.py` is the node's side, `joint_down.py` the centre's.
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
"""A node speaks so often, and a centre looks who has left."""


class NodeOffers(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node offers, in short."""

    offers: dict[str, str] = {}
    """Name -> digest."""
    measured: dict[str, QualityIndicators] = {}
    known: str = ""
    """Digest of what it was told last."""


class CentreUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What concerns a node."""

    wanted: tuple[str, ...] = ()
    """Offers that the centre does not have as they are."""
    rejected: dict[str, str] = {}
    """Offers that it does not take, and why."""
    catalogue: str = ""
    """Digest of what others share; another than the node has: it asks for it."""
    unchanged: bool = False
    """All below is as it was told last."""
    codes: dict[str, str] = {}
    applications: tuple[Application, ...] = ()
    grants: tuple[Grant, ...] = ()


class CatalogueRequest(msgspec.Struct, frozen=True):
    """Which part of the catalogue is wanted."""

    after: str = ""


class CatalogueSlice(msgspec.Struct, frozen=True):
    """A part of what others share, in order of feed; as long as there is one, another may follow."""

    entries: tuple[CatalogueEntry, ...] = ()


class CatalogueOffer(msgspec.Struct, frozen=True):
    """One feed with its entry."""

    feed: Feed
    entry: CatalogueEntry


class NodeDecision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody at a node decides."""

    target: str
    """Application or grant."""
    by: str
    decision: Decision | None = None
    """None: the grant is taken back."""
    reason: str = ""


class DecisionOutcome(msgspec.Struct, frozen=True):
    """What came of it."""

    application: Application | None = None
    grant: Grant | None = None


encode = msgspec.msgpack.Encoder().encode
AskCentre = Callable[[str, bytes], Awaitable[bytes]]
"""(what, payload) -> the centre's answer. Raises `Unavailable`, `PermissionDenied`."""


def mirrored_name(division: str, name: str) -> str:
    """Return the name that a node's feed has at the centre."""
    return f"{division}-{name}"


def digest(record: object) -> str:
    """Return what tells two records apart."""
    return hashlib.blake2b(msgspec.json.encode(record, order="deterministic"), digest_size=16).hexdigest()


def canonical(offer: CatalogueOffer) -> CatalogueOffer:
    """Return an offer without what each gateway keeps for itself."""
    entry = msgspec.structs.replace(offer.entry, code="", origin="", revision=0, measured=QualityIndicators())
    return CatalogueOffer(msgspec.structs.replace(offer.feed, revision=0), entry)
