"""Every metric with its help text; the table in `config/README.md` is generated from this module."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

REGISTRY = CollectorRegistry()
NAMING_LABELS = frozenset(("device", "feed", "node"))
"""Labels whose values name things that lie in the scope of some callers only."""

MESSAGES = Counter(
    "sensegate_messages", "Committed messages, by source and outcome.", ["source", "outcome"], registry=REGISTRY
)
READINGS = Counter("sensegate_readings", "Judged values, by ledger kind.", ["kind"], registry=REGISTRY)
COMMITS = Counter("sensegate_commits", "Atomic commits written.", registry=REGISTRY)
COMMIT_SECONDS = Histogram(
    "sensegate_commit_seconds",
    "Time from the first message of a commit to its acknowledgement by the log.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
DEPTH = Gauge("sensegate_intake_depth_messages", "Messages received and not yet committed.", registry=REGISTRY)
INTAKE_REPEATED = Counter(
    "sensegate_intake_repeated_batches", "Batches that a front stored twice; the second is skipped.", registry=REGISTRY
)
INTAKE_MISSING = Counter(
    "sensegate_intake_missing_batches", "Numbers of batches that never came although later ones did.", registry=REGISTRY
)
RESTARTS = Counter(
    "sensegate_restarts", "Restarts of a component after a failure, by component.", ["component"], registry=REGISTRY
)
LIMIT_HITS = Counter("sensegate_limit_hits", "Times that a limit was reached, by limit.", ["limit"], registry=REGISTRY)
NODE_LIMIT_HITS = Counter(
    "sensegate_node_limit_hits",
    "Requests of a node beyond its quota, by node and quota.",
    ["node", "quota"],
    registry=REGISTRY,
)
NODE_DROPPED = Counter(
    "sensegate_node_dropped",
    "Requests of a node without an answer, by node and reason (reply: the reply subject is outside its inbox).",
    ["node", "reason"],
    registry=REGISTRY,
)
NODE_REFUSED = Counter(
    "sensegate_node_refused",
    "What the centre refused of a node, by node and reason: parts of spans; frame: a whole span; writer: a claim.",
    ["node", "reason"],
    registry=REGISTRY,
)
NODE_NONCONFORMANT = Counter(
    "sensegate_node_rows_nonconformant",
    "Accepted rows of a node that break a rule and are marked, by node and mark.",
    ["node", "mark"],
    registry=REGISTRY,
)
MQTT_CONNECTIONS = Gauge("sensegate_mqtt_connections", "Open MQTT connections, by front.", ["front"], registry=REGISTRY)
MQTT_QUEUED = Gauge(
    "sensegate_mqtt_queued_bytes",
    "Bytes of MQTT messages that are taken and not yet stored, by front.",
    ["front"],
    registry=REGISTRY,
)
COMMANDS = Counter("sensegate_commands", "Messages sent to devices (requests for a birth).", registry=REGISTRY)
TASKS = Counter("sensegate_tasks", "Tasks of devices, by outcome.", ["outcome"], registry=REGISTRY)
PERMISSION_DENIED = Counter(
    "sensegate_permission_denied",
    "Operations that authorisation denied, by operation (connect, publish, subscribe, http).",
    ["operation"],
    registry=REGISTRY,
)
UNREADABLE = Counter(
    "sensegate_log_unreadable",
    "Entries of the log that a reader could not read, by reader.",
    ["reader"],
    registry=REGISTRY,
)
DEVICE_CONFLICTS = Counter(
    "sensegate_device_conflicts",
    "Devices whose rows a node sent although another node owns them, by node.",
    ["node"],
    registry=REGISTRY,
)
EXPIRED = Counter("sensegate_expired", "Records removed after their retention, by kind.", ["kind"], registry=REGISTRY)
UPLINK_LAG = Gauge(
    "sensegate_uplink_lag_entries", "Entries of the log that the centre has not acknowledged.", registry=REGISTRY
)
DELIVERED = Counter(
    "sensegate_delivered",
    "Readings delivered to subscribers, by feed and delivery method.",
    ["feed", "delivery"],
    registry=REGISTRY,
)
SCANNED = Counter(
    "sensegate_scanned",
    "Rows looked through to answer requests and to deliver feeds, by interface.",
    ["interface"],
    registry=REGISTRY,
)
SCRUB_BYTES = Counter("sensegate_scrub_read_bytes", "Bytes of the log that the scrub has read.", registry=REGISTRY)
SCRUB_LOST = Gauge(
    "sensegate_scrub_lost_readings",
    "Readings that the scrub has found lost before their time, by cause; of the last `store.readings_ttl_h`.",
    ["cause"],
    registry=REGISTRY,
)
SCRUB_FINISHED = Gauge(
    "sensegate_scrub_finished_timestamp_seconds",
    "When the last pass of the scrub ended; 0: none has.",
    registry=REGISTRY,
)
ALARMS = Gauge(
    "sensegate_alarms", "Alarms that are not closed, by severity and state.", ["severity", "state"], registry=REGISTRY
)
ALARM_EVENTS = Counter(
    "sensegate_alarm_events", "Events of alarms, by event and severity.", ["event", "severity"], registry=REGISTRY
)
GATEWAY_CONDITION = Gauge(
    "sensegate_gateway_condition",
    "Values that the gateway's own alarm rules judge, by kind (disk: free share; quarantine_rate: share of messages; "
    "lag: entries; refused_spans, store_missing: number).",
    ["kind"],
    registry=REGISTRY,
)
ALARM_DELIVERIES = Counter(
    "sensegate_alarm_deliveries",
    "Events of alarms by kind of channel and outcome (skipped: older than a day before they could be delivered).",
    ["kind", "outcome"],
    registry=REGISTRY,
)
CLOCK_OFFSET = Gauge(
    "sensegate_clock_offset_seconds",
    "By how much other clocks are ahead of the gateway's, as it judges; 0 while unknown.",
    registry=REGISTRY,
)
LAST_VALUES = Gauge("sensegate_last_values_series", "Series whose last value is held in memory.", registry=REGISTRY)
DEVICES = Gauge(
    "sensegate_devices",
    "Registered devices, by state (silent: no message for longer than expected).",
    ["state"],
    registry=REGISTRY,
)
STREAMS = Gauge("sensegate_streams", "Open streams of subscribers.", registry=REGISTRY)
SCRIPT_CALLS = Counter(
    "sensegate_script_calls", "Frames passed to codec scripts, by outcome.", ["outcome"], registry=REGISTRY
)
SCRIPT_KILLS = Counter(
    "sensegate_script_kills", "Child processes of codec scripts that ended during a request.", registry=REGISTRY
)
SCRIPT_SUSPENSIONS = Counter(
    "sensegate_script_suspensions",
    "Times that a codec script was suspended for being slow (script) or for one sender (sender).",
    ["scope"],
    registry=REGISTRY,
)
FRAME_CHECKS = Counter(
    "sensegate_frame_checks",
    "Checksums of frames, by protocol and the convention that they match (none: no known convention).",
    ["protocol", "convention"],
    registry=REGISTRY,
)
TCP_CONNECTIONS = Gauge(
    "sensegate_tcp_connections", "Open connections of the TCP listeners, by protocol.", ["protocol"], registry=REGISTRY
)
TCP_FRAMES = Counter(
    "sensegate_tcp_frames",
    "Frames received by TCP, by protocol and outcome.",
    ["protocol", "outcome"],
    registry=REGISTRY,
)
TCP_SKIPPED = Counter(
    "sensegate_tcp_skipped_bytes", "Bytes outside of any frame, by protocol.", ["protocol"], registry=REGISTRY
)
TCP_RESYNCS = Counter(
    "sensegate_tcp_resyncs",
    "Times that the listener skipped bytes in search of the next frame, by protocol.",
    ["protocol"],
    registry=REGISTRY,
)
TCP_ANSWERS = Counter(
    "sensegate_tcp_answers", "Replies sent to devices by TCP, by protocol.", ["protocol"], registry=REGISTRY
)
VIDEO_FIELDS_REMOVED = Counter(
    "sensegate_video_fields_removed",
    "Fields removed from video metadata before storage, by format and field.",
    ["format", "field"],
    registry=REGISTRY,
)
VIID_REQUESTS = Counter(
    "sensegate_viid_requests",
    "Requests by GA/T 1400 (VIID), by response status.",
    ["status"],
    registry=REGISTRY,
)
VIID_NONCONFORMANT = Counter(
    "sensegate_viid_nonconformant",
    "Accepted objects by GA/T 1400 that break a rule of the standard, by rule.",
    ["rule"],
    registry=REGISTRY,
)
VIID_SENT = Counter(
    "sensegate_viid_sent",
    "Objects sent to superior platforms by GA/T 1400, by answer.",
    ["answer"],
    registry=REGISTRY,
)
SECONDARY_COMPARED = Counter(
    "sensegate_secondary_compared",
    "Readings of secondary sources compared with the authoritative source of the asset.",
    registry=REGISTRY,
)
SECONDARY_DIFFERENT = Counter(
    "sensegate_secondary_different",
    "Compared readings of secondary sources that differ by more than the tolerance.",
    registry=REGISTRY,
)
CAMERA_STREAM = Gauge(
    "sensegate_camera_stream_open",
    "1 while the alarm stream of a camera is open and brings complete parts, by device.",
    ["device"],
    registry=REGISTRY,
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


PROFILE_CHANGE_SECONDS = Histogram(
    "sensegate_profile_change_seconds",
    "Time that ingestion pauses while other versions of profiles take effect.",
    registry=REGISTRY,
)

HISTORY_LAG = Gauge(
    "sensegate_history_lag_seconds", "Age of the last entry of the log that the history has read.", registry=REGISTRY
)
HISTORY_ROWS = Counter("sensegate_history_rows", "Readings written to the history.", registry=REGISTRY)
HISTORY_SEGMENTS = Gauge("sensegate_history_segments", "Files of the history.", registry=REGISTRY)
HISTORY_ROWS_READ = Counter(
    "sensegate_history_rows_read", "Stored readings or hourly sums in the files that queries read.", registry=REGISTRY
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
