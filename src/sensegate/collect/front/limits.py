"""Limits of a front process."""

from __future__ import annotations

import msgspec


class FrontLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of connections, packets and queues; each has a counter."""

    packet_bytes_max: int = 1024**2 - 16 * 1024
    """Largest packet; below the largest message of the engine."""
    topic_bytes_max: int = 1024
    client_id_bytes_max: int = 1024
    subscriptions_max: int = 64
    """Most topic filters of a client; each is a consumer at the broker behind."""
    connections_max: int = 20_000
    connections_per_address_max: int = 20_000
    connect_timeout_s: float = 10.0
    inflight_max: int = 1_000
    """Most messages of a connection that wait for their acknowledgement; it is not read meanwhile."""
    queue_bytes_max: int = 64 * 1024**2
    """Most bytes of messages not yet stored; then no connection is read."""
    write_bytes_max: int = 1024**2
    """Most bytes that wait for a slow client, which is disconnected beyond it."""
    session_expiry_max_s: int = 7 * 86_400
    topic_aliases_max: int = 64
    topics_max: int = 1_000
    """Most topics of a connection whose rights are cached."""
    topics_bytes_max: int = 64 * 1024
    """Most bytes of them."""
    close_timeout_s: float = 1.0
