"""Every metric with its help text; the table in `config/README.md` is generated from this module."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

REGISTRY = CollectorRegistry()
_counter = partial(Counter, registry=REGISTRY)
_gauge = partial(Gauge, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)
NAMING_LABELS = frozenset(("device", "feed", "node"))
"""Labels whose values name things that lie in the scope of some callers only."""

MESSAGES = _counter("sensegate_messages", "Committed messages, by source and outcome.", ["source", "outcome"])
READINGS = _counter("sensegate_readings", "Judged values, by ledger kind.", ["kind"])
COMMITS = _counter("sensegate_commits", "Atomic commits written.")
COMMIT_SECONDS = _histogram(
    "sensegate_commit_seconds",
    "Time from the first message of a commit to its acknowledgement by the log.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
DEPTH = _gauge("sensegate_intake_depth_messages", "Messages received and not yet committed.")
INTAKE_REPEATED = _counter(
    "sensegate_intake_repeated_batches", "Batches that a front stored twice; the second is skipped."
)
INTAKE_MISSING = _counter(
    "sensegate_intake_missing_batches", "Numbers of batches that never came although later ones did."
)
RESTARTS = _counter("sensegate_restarts", "Restarts of a component after a failure, by component.", ["component"])
LIMIT_HITS = _counter("sensegate_limit_hits", "Times that a limit was reached, by limit.", ["limit"])
NODE_LIMIT_HITS = _counter(
    "sensegate_node_limit_hits", "Requests of a node beyond its quota, by node and quota.", ["node", "quota"]
)
NODE_DROPPED = _counter(
    "sensegate_node_dropped",
    "Requests of a node without an answer, by node and reason (reply: the reply subject is outside its inbox).",
    ["node", "reason"],
)
NODE_REFUSED = _counter(
    "sensegate_node_refused",
    "What the centre refused of a node, by node and reason: parts of spans; frame: a whole span; writer: a claim.",
    ["node", "reason"],
)
NODE_NONCONFORMANT = _counter(
    "sensegate_node_rows_nonconformant",
    "Accepted rows of a node that break a rule and are marked, by node and mark.",
    ["node", "mark"],
)
MQTT_CONNECTIONS = _gauge("sensegate_mqtt_connections", "Open MQTT connections, by front.", ["front"])
MQTT_QUEUED = _gauge(
    "sensegate_mqtt_queued_bytes", "Bytes of MQTT messages that are taken and not yet stored, by front.", ["front"]
)
COMMANDS = _counter("sensegate_commands", "Messages sent to devices (requests for a birth).")
TASKS = _counter("sensegate_tasks", "Tasks of devices, by outcome.", ["outcome"])
PERMISSION_DENIED = _counter(
    "sensegate_permission_denied",
    "Operations that authorisation denied, by operation (connect, publish, subscribe, http).",
    ["operation"],
)
UNREADABLE = _counter(
    "sensegate_log_unreadable", "Entries of the log that a reader could not read, by reader.", ["reader"]
)
DEVICE_CONFLICTS = _counter(
    "sensegate_device_conflicts", "Devices whose rows a node sent although another node owns them, by node.", ["node"]
)
EXPIRED = _counter("sensegate_expired", "Records removed after their retention, by kind.", ["kind"])
UPLINK_LAG = _gauge("sensegate_uplink_lag_entries", "Entries of the log that the centre has not acknowledged.")
DELIVERED = _counter(
    "sensegate_delivered", "Readings delivered to subscribers, by feed and delivery method.", ["feed", "delivery"]
)
SCANNED = _counter(
    "sensegate_scanned", "Rows looked through to answer requests and to deliver feeds, by interface.", ["interface"]
)
SCRUB_BYTES = _counter("sensegate_scrub_read_bytes", "Bytes of the log that the scrub has read.")
SCRUB_LOST = _gauge(
    "sensegate_scrub_lost_readings",
    "Readings that the scrub has found lost before their time, by cause; of the last `store.readings_ttl_h`.",
    ["cause"],
)
SCRUB_FINISHED = _gauge(
    "sensegate_scrub_finished_timestamp_seconds", "When the last pass of the scrub ended; 0: none has."
)
ALARMS = _gauge("sensegate_alarms", "Alarms that are not closed, by severity and state.", ["severity", "state"])
ALARM_EVENTS = _counter("sensegate_alarm_events", "Events of alarms, by event and severity.", ["event", "severity"])
GATEWAY_CONDITION = _gauge(
    "sensegate_gateway_condition",
    "Values that the gateway's own alarm rules judge, by kind (disk: free share; quarantine_rate: share of messages; "
    "lag: entries; refused_spans, store_missing: number).",
    ["kind"],
)
ALARM_DELIVERIES = _counter(
    "sensegate_alarm_deliveries",
    "Events of alarms by kind of channel and outcome (skipped: older than a day before they could be delivered).",
    ["kind", "outcome"],
)
CLOCK_OFFSET = _gauge(
    "sensegate_clock_offset_seconds",
    "By how much other clocks are ahead of the gateway's, as it judges; 0 while unknown.",
)
LAST_VALUES = _gauge("sensegate_last_values_series", "Series whose last value is held in memory.")
DEVICES = _gauge(
    "sensegate_devices", "Registered devices, by state (silent: no message for longer than expected).", ["state"]
)
STREAMS = _gauge("sensegate_streams", "Open streams of subscribers.")
SCRIPT_CALLS = _counter("sensegate_script_calls", "Frames passed to codec scripts, by outcome.", ["outcome"])
SCRIPT_KILLS = _counter("sensegate_script_kills", "Child processes of codec scripts that ended during a request.")
SCRIPT_SUSPENSIONS = _counter(
    "sensegate_script_suspensions",
    "Times that a codec script was suspended for being slow (script) or for one sender (sender).",
    ["scope"],
)
FRAME_CHECKS = _counter(
    "sensegate_frame_checks",
    "Checksums of frames, by protocol and the convention that they match (none: no known convention).",
    ["protocol", "convention"],
)
TCP_CONNECTIONS = _gauge(
    "sensegate_tcp_connections", "Open connections of the TCP listeners, by protocol.", ["protocol"]
)
TCP_FRAMES = _counter(
    "sensegate_tcp_frames", "Frames received by TCP, by protocol and outcome.", ["protocol", "outcome"]
)
TCP_SKIPPED = _counter("sensegate_tcp_skipped_bytes", "Bytes outside of any frame, by protocol.", ["protocol"])
TCP_RESYNCS = _counter(
    "sensegate_tcp_resyncs",
    "Times that the listener skipped bytes in search of the next frame, by protocol.",
    ["protocol"],
)
TCP_ANSWERS = _counter("sensegate_tcp_answers", "Replies sent to devices by TCP, by protocol.", ["protocol"])
VIDEO_FIELDS_REMOVED = _counter(
    "sensegate_video_fields_removed",
    "Fields removed from video metadata before storage, by format and field.",
    ["format", "field"],
)
VIID_REQUESTS = _counter("sensegate_viid_requests", "Requests by GA/T 1400 (VIID), by response status.", ["status"])
VIID_NONCONFORMANT = _counter(
    "sensegate_viid_nonconformant",
    "Accepted objects by GA/T 1400 that break a rule of the standard, by rule.",
    ["rule"],
)
VIID_SENT = _counter("sensegate_viid_sent", "Objects sent to superior platforms by GA/T 1400, by answer.", ["answer"])
SECONDARY_COMPARED = _counter(
    "sensegate_secondary_compared", "Readings of secondary sources compared with the authoritative source of the asset."
)
SECONDARY_DIFFERENT = _counter(
    "sensegate_secondary_different", "Compared readings of secondary sources that differ by more than the tolerance."
)
CAMERA_STREAM = _gauge(
    "sensegate_camera_stream_open",
    "1 while the alarm stream of a camera is open and brings complete parts, by device.",
    ["device"],
)
_FIELDS_MAX = 1_000
"""Most distinct fields since the process began; their names come from outside."""
_fields: set[tuple[str, str]] = set()


def count_removed(form: str, field: str, count: int) -> None:
    """Count removed occurrences of a field of a format; beyond `_FIELDS_MAX` distinct fields as ``other``."""
    if (form, field) not in _fields:
        if len(_fields) >= _FIELDS_MAX:
            field = "other"
        else:
            _fields.add((form, field))
    VIDEO_FIELDS_REMOVED.labels(form, field).inc(count)


PROFILE_CHANGE_SECONDS = _histogram(
    "sensegate_profile_change_seconds", "Time that ingestion pauses while other versions of profiles take effect."
)

HISTORY_LAG = _gauge("sensegate_history_lag_seconds", "Age of the last entry of the log that the history has read.")
HISTORY_ROWS = _counter("sensegate_history_rows", "Readings written to the history.")
HISTORY_SEGMENTS = _gauge("sensegate_history_segments", "Files of the history.")
HISTORY_ROWS_READ = _counter(
    "sensegate_history_rows_read", "Stored readings or hourly sums in the files that queries read."
)


class _UnnamedRegistry(CollectorRegistry):
    """The metrics of `REGISTRY` without labels that name devices, feeds or subscribers."""

    def collect(self) -> Iterator[Metric]:
        for family in REGISTRY.collect():
            if not any(NAMING_LABELS & sample.labels.keys() for sample in family.samples):
                yield family


_UNNAMED = _UnnamedRegistry()


def exposition(*, is_named: bool) -> bytes:
    """Return the metrics as Prometheus text; those with such labels only if `is_named`."""
    return generate_latest(REGISTRY if is_named else _UNNAMED)
