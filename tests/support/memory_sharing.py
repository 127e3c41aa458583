"""The sharing stage on memory."""

from __future__ import annotations

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore
from sensegate.bus.memory import MemoryLog
from sensegate.clock import Clock
from sensegate.share.feeds import Feeds
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.reader import LogReader
from sensegate.share.sharing import Sharing, SharingContext, SharingStores
from tests.support.memory_audit import MemoryAudit


def sharing_in_memory(reader: LogReader, clock: Clock, records: RecordStore | None = None) -> Sharing:
    """Return a stage over a reader, not yet opened; every subscriber has the scope of its caller."""
    books = HourlyLedgers(MemoryLog(clock, epoch="h"), clock)
    store = records or RecordStore(MemoryBucket(), clock)
    stores = SharingStores(reader, books, Feeds(MemoryBucket(), clock), MemoryBucket(), store)
    return Sharing(stores, MemoryAudit(clock, gateway="44"), clock, SharingContext(lambda _name, by: by.scope))
