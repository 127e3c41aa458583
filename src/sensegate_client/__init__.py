"""Client of a sensegate gateway: reads feeds, last values and history, and keeps its place through every failure.

transport (addresses, retries) ─▶ feed (pages) ─▶ columns (arrays, frames, records)
"""

from __future__ import annotations

from sensegate_client.client import Client
from sensegate_client.columns import Columns
from sensegate_client.cursors import CursorFile, CursorStore
from sensegate_client.errors import (
    AccessDenied,
    ClientError,
    CursorExpired,
    InvalidRequest,
    NotAuthenticated,
    NotFoundError,
    QuotaExceeded,
    TooManyRows,
    Unreachable,
)
from sensegate_client.feed import Feed
from sensegate_client.records import AggregateWindow, Record
from sensegate_client.sync import SyncClient, SyncFeed

__all__ = [
    "AccessDenied",
    "AggregateWindow",
    "Client",
    "ClientError",
    "Columns",
    "CursorExpired",
    "CursorFile",
    "CursorStore",
    "Feed",
    "InvalidRequest",
    "NotAuthenticated",
    "NotFoundError",
    "QuotaExceeded",
    "Record",
    "SyncClient",
    "SyncFeed",
    "TooManyRows",
    "Unreachable",
]
