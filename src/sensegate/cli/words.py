"""Words that options and arguments accept; each list is the gateway's own (`tests/test_cli_words.py` compares them)."""

from __future__ import annotations

from typing import Literal

AlarmKind = Literal[
    "threshold", "change", "silence", "gap", "quality", "quarantine_rate", "lag", "disk", "refused_spans",
    "store_missing",
]  # fmt: skip
AlarmState = Literal["open", "acknowledged", "closed"]
ApplicationState = Literal["pending", "approved", "refused", "withdrawn", "lapsed"]
ChannelKind = Literal["webhook", "wecom", "dingtalk", "mail"]
GrantState = Literal["active", "waiting", "expired", "revoked"]
Lane = Literal["live", "backlog"]
PersonRole = Literal["county_operator", "city_operator", "province_operator", "auditor", "admin"]
Severity = Literal["info", "warning", "major", "critical"]
SignatureAlgorithm = Literal["hmac-sha256", "hmac-sm3"]
TaskState = Literal["queued", "sent", "transmitted", "acknowledged", "failed", "done", "expired", "cancelled"]
WebhookForm = Literal["json", "ndjson", "csv", "senml", "msgpack"]
