"""Keys of older configurations with their new names, for errors that say what to write now."""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "cameras[].connect_s": "connect_timeout_s",
    "cameras[].refused_wait_s": "auth_failure_wait_s",
    "cameras[].silence_s": "idle_timeout_s",
    "egress.retry_first_s": "retry_initial_s",
    "egress.retry_longest_s": "retry_max_s",
    "foreign": "external_brokers",
    "ingest.stall_s": "stall_timeout_s",
    "listen.tcp[].first_s": "identify_timeout_s",
    "listen.tcp[].frame_s": "frame_timeout_s",
    "listen.tcp[].hang_up": "allow_offline",
    "listen.tcp[].idle_s": "idle_timeout_s",
    "listen.tcp[].rubbish_bytes_max": "resync_bytes_max",
    "peer.first": "initially_active",
    "peer.hold_s": "standby_timeout_s",
    "people.idle_s": "session_idle_timeout_s",
    "people.lock_s": "lockout_s",
    "people.password_days": "password_max_age_days",
    "people.session_s": "session_max_s",
    "sharing.answer_days": "decision_days",
    "sharing.days_max": "grant_days_max",
    "sharing.kept_days": "retention_days",
    "sharing.near_m": "duplicate_distance_m",
    "time.own_clock_off_s": "clock_error_max_s",
    "uplink.others": "other_centres",
    "viid.adopt_max": "catalogue_cameras_max",
    "viid.bind": "session_binding",
    "viid.bodies_bytes_max": "bodies_total_bytes_max",
    "viid.devices[].compact": "compact_challenge",
    "viid.failures_max": "auth_failures_max",
    "viid.nonce_s": "nonce_lifetime_s",
    "viid.plain": "allow_plaintext",
    "viid.seal_file": "digest_key_file",
    "viid.session_s": "session_timeout_s",
    "viid.states": "publish_online",
    "viid.superiors[].ids": "id_map",
    "viid.unregister": "unregister_auth",
    "web.more_hosts": "additional_hosts",
    "web.pictures_bytes_max": "multipart_bytes_max",
    "web.wait_max_s": "long_poll_max_s",
}
"""Old key (with ``[]`` behind a list) to the new name of its last part."""

REMOVED: dict[str, str] = {
    "ingest.partition": "there are no partitions: one process commits all messages of a node; for more, run more nodes",
}
"""Old key without a successor to the reason."""
