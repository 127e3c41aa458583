"""The registries of sharing, which change together."""

from __future__ import annotations

import msgspec

from sensegate.authority.record_store import RecordStore
from sensegate.share.catalogue import DatasetCatalogue
from sensegate.share.feeds import Feeds
from sensegate.share.grants import Grants


class SharingRegistries(msgspec.Struct, frozen=True, eq=False):
    """Feeds, catalogue and grants, and the store of all other records of sharing."""

    store: RecordStore
    feeds: Feeds
    catalogue: DatasetCatalogue
    grants: Grants
