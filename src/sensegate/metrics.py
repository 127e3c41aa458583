"""Every metric with its help text; the table in `config/README.md` is generated from this page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

MESSAGES = Counter(
    "sensegate_messages", "Messages committed, by source and outcome.", ["source", "outcome"], registry=REGISTRY
)
READINGS = Counter("sensegate_readings", "Values judged, by ledger kind.", ["kind"], registry=REGISTRY)
COMMITS = Counter("sensegate_commits", "Atomic commits written.", registry=REGISTRY)
COMMIT_SECONDS = Histogram(
    "sensegate_commit_seconds",
    "From the first message of a commit taken to the commit acknowledged by the log.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
DEPTH = Gauge("sensegate_intake_depth_messages", "Messages received and not yet committed.", registry=REGISTRY)
RESTARTS = Counter("sensegate_restarts", "Restarts of a part after it was lost, by part.", ["part"], registry=REGISTRY)
LIMITED = Counter("sensegate_limited", "Times a limit was reached, by limit.", ["limit"], registry=REGISTRY)
NODE_LIMITED = Counter(
    "sensegate_node_limited",
    "Requests of a node that was over its quota, by node and quota.",
    ["node", "quota"],
    registry=REGISTRY,
)
NODE_DROPPED = Counter(
    "sensegate_node_dropped",
    "Requests of a node that got no answer, by node and reason (reply: it asked for one outside its inbox).",
    ["node", "reason"],
    registry=REGISTRY,
)
NODE_REFUSED = Counter(
    "sensegate_node_refused",
    "What the centre did not take of a node, by node and reason: parts of spans; frame: a whole span; writer: a claim.",
    ["node", "reason"],
    registry=REGISTRY,
)
NODE_MARKED = Counter(
    "sensegate_node_marked",
    "Rows of a node that were taken and marked as odd, by node and mark.",
    ["node", "mark"],
    registry=REGISTRY,
)
COMMANDS = Counter("sensegate_commands", "Messages sent down to devices (a birth asked for).", registry=REGISTRY)
TASKS = Counter("sensegate_tasks", "Tasks of devices, by what became of them.", ["outcome"], registry=REGISTRY)
REFUSED = Counter(
    "sensegate_refused",
    "Refused by authority, by what (connect, publish, subscribe, http).",
    ["what"],
    registry=REGISTRY,
)
UNREADABLE = Counter(
    "sensegate_log_unreadable", "Entries of the log that could not be read, by reader.", ["reader"], registry=REGISTRY
)
DEVICE_CONFLICTS = Counter(
    "sensegate_device_conflicts",
    "Devices that a member sent rows of although another one owns them, by member.",
    ["node"],
    registry=REGISTRY,
)
PRUNED = Counter("sensegate_pruned", "What ended long ago and was removed, by what.", ["what"], registry=REGISTRY)
UPLINK_LAG = Gauge("sensegate_uplink_lag_entries", "Entries of the log not yet at the centre.", registry=REGISTRY)
DELIVERED = Counter(
    "sensegate_delivered",
    "Readings delivered to subscribers, by feed and delivery.",
    ["feed", "delivery"],
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
STREAMS = Gauge("sensegate_streams", "Open streams of subscribers.", registry=REGISTRY)
SCRIPT_CALLS = Counter(
    "sensegate_script_calls", "Frames given to codec scripts, by outcome.", ["outcome"], registry=REGISTRY
)
SCRIPT_KILLS = Counter(
    "sensegate_script_kills", "Children for codec scripts that ended over a request.", registry=REGISTRY
)
SCRIPT_SUSPENSIONS = Counter(
    "sensegate_script_suspensions",
    "Times a codec script was suspended for running away or being slow (script), or kept from one sender (sender).",
    ["what"],
    registry=REGISTRY,
)
FRAME_CHECKS = Counter(
    "sensegate_frame_checks",
    "Check values of frames, by protocol and the convention by which they are right (none: by none that is known).",
    ["protocol", "convention"],
    registry=REGISTRY,
)
TCP_CONNECTIONS = Gauge(
    "sensegate_tcp_connections", "Open connections of the TCP listeners, by protocol.", ["protocol"], registry=REGISTRY
)
TCP_FRAMES = Counter(
    "sensegate_tcp_frames",
    "Frames that came by TCP, by protocol and what became of them.",
    ["protocol", "outcome"],
    registry=REGISTRY,
)
TCP_SKIPPED = Counter(
    "sensegate_tcp_skipped_bytes", "Bytes that belong to no frame, by protocol.", ["protocol"], registry=REGISTRY
)
TCP_RESYNCS = Counter(
    "sensegate_tcp_resyncs",
    "Times the next frame had to be looked for behind bytes of no frame, by protocol.",
    ["protocol"],
    registry=REGISTRY,
)
TCP_ANSWERS = Counter(
    "sensegate_tcp_answers", "Answers sent to devices by TCP, by protocol.", ["protocol"], registry=REGISTRY
)
REMOVED = Counter(
    "sensegate_video_removed",
    "Fields taken out of video metadata before anything was written, by format and field.",
    ["format", "field"],
    registry=REGISTRY,
)
VIID_REQUESTS = Counter(
    "sensegate_viid_requests",
    "Requests by GA/T 1400 (VIID), by the status of the answer.",
    ["status"],
    registry=REGISTRY,
)
VIID_ODD = Counter(
    "sensegate_viid_odd",
    "Objects by GA/T 1400 that break a rule of the standard and are taken all the same, by rule.",
    ["rule"],
    registry=REGISTRY,
)
VIID_SENT = Counter(
    "sensegate_viid_sent",
    "Objects sent to platforms above by GA/T 1400, by what they answered.",
    ["answer"],
    registry=REGISTRY,
)
SHADOWS_COMPARED = Counter(
    "sensegate_shadows_compared",
    "Readings of second sources of an asset that were held against those of its authority.",
    registry=REGISTRY,
)
SHADOWS_DIFFERENT = Counter(
    "sensegate_shadows_different",
    "Those of them that differed by more than the tolerance.",
    registry=REGISTRY,
)
CAMERA_STREAM = Gauge(
    "sensegate_camera_stream_open",
    "1 while the alarm stream of a camera is open and brings whole parts, by device.",
    ["device"],
    registry=REGISTRY,
)
_FIELDS_MAX = 1_000
"""Different fields told apart since the process began: their names come from outside."""
_fields: set[tuple[str, str]] = set()


def count_removed(form: str, field: str, count: int) -> None:
    """Count a field of a format that was taken out; beyond many different ones as ``other``."""
    if (form, field) not in _fields:
        if len(_fields) >= _FIELDS_MAX:
            field = "other"
        else:
            _fields.add((form, field))
    REMOVED.labels(form, field).inc(count)


PROFILE_CHANGE_SECONDS = Histogram(
    "sensegate_profile_change_seconds",
    "Time for which the walk stands still while other versions of profiles come in force.",
    registry=REGISTRY,
)
