"""The consumer by which earlier releases read the store of the server's own MQTT broker."""

from __future__ import annotations

OLD = {
    "durable_name": "ingest-0",
    "ack_policy": "all",
    "deliver_policy": "all",
    "deliver_subject": "_SG.deliver.ingest-0",
    "filter_subject": "$MQTT.msgs.>",
    "ack_wait": 600_000_000_000,
    "max_ack_pending": 60_000,
    "flow_control": True,
    "idle_heartbeat": 1_000_000_000,
}
"""The consumer of an earlier release."""
