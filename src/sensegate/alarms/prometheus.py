"""The gateway's own alarm rules as alert rules of Prometheus: `deploy/alerts.yaml` is generated from this module."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from sensegate.alarms.rules import GATEWAY_RULES, AlarmRule, Severity

_HEAD = """\
# Alert rules for Prometheus, generated from the gateway's own alarm rules: `make docs` writes this file.
# Scrape /metrics of each gateway under the job `sensegate`; metrics that name nodes or feeds need a token.
groups:
  - name: sensegate
    rules:
"""


class AlertRule(msgspec.Struct, frozen=True):
    """An alert rule of Prometheus."""

    name: str
    expression: str
    severity: Severity
    summary: str
    for_s: float = 0.0


MORE_RULES = (
    AlertRule("SensegateDown", 'up{job="sensegate"} == 0', Severity.CRITICAL, "the gateway does not answer", 60),
    AlertRule(
        "SensegateAlarmsOpen",
        'sum by (instance, severity) (sensegate_alarms{state="open",severity=~"major|critical"}) > 0',
        Severity.MAJOR,
        "alarms of operators or profiles are open and not acknowledged; see the console, or `sensegate alarm list`",
    ),
    AlertRule(
        "SensegateAlarmDeliveryFails",
        'increase(sensegate_alarm_deliveries_total{outcome="failed"}[15m]) > 0',
        Severity.MAJOR,
        "a channel does not deliver alarms; see `sensegate alarm channel list`",
    ),
    AlertRule(
        "SensegateReadingsLost",
        "sum by (instance, cause) (sensegate_scrub_lost_readings) > 0",
        Severity.CRITICAL,
        "the scrub found readings lost before their time; see `sensegate doctor CONFIG --scrub`",
    ),
    AlertRule(
        "SensegateLogUnreadable",
        "increase(sensegate_log_unreadable_total[1h]) > 0",
        Severity.MAJOR,
        "entries of the log cannot be read; see `sensegate log unreadable`",
    ),
    AlertRule(
        "SensegateRestarts",
        "sum by (instance, component) (increase(sensegate_restarts_total[15m])) > 3",
        Severity.WARNING,
        "a component of the gateway fails again and again",
    ),
    AlertRule(
        "SensegateDevicesSilent",
        'sensegate_devices{state="silent"} / ignoring(state) sum without (state) (sensegate_devices) > 0.2',
        Severity.WARNING,
        "a fifth of the devices is silent",
        600,
    ),
    AlertRule(
        "SensegateClockOff",
        "abs(sensegate_clock_offset_seconds) > 5",
        Severity.WARNING,
        "the clock of the gateway is off by more than 5 s",
        300,
    ),
)
"""Rules for Prometheus alone: faults that a gateway that is down, or whose deliveries fail, cannot report."""


def alert_rules() -> Iterator[AlertRule]:
    """Yield the rules of every gateway, then those for Prometheus alone."""
    yield from map(_of_gateway, GATEWAY_RULES)
    yield from MORE_RULES


def _of_gateway(rule: AlarmRule) -> AlertRule:
    metric = f'sensegate_gateway_condition{{kind="{rule.kind}"}}'
    limits = [(">", rule.above), ("<", rule.below)]
    parts = [f"{metric} {sign} {limit:g}" for sign, limit in limits if limit is not None]
    name = "Sensegate" + "".join(word.capitalize() for word in re.split(r"[:_]", rule.kind.value))
    return AlertRule(name, " or ".join(parts), rule.severity, rule.title, rule.for_s)


def text() -> str:
    """Return the file of rules as YAML."""
    return _HEAD + "".join(map(_rule_text, alert_rules()))


def _rule_text(rule: AlertRule) -> str:
    quoted = msgspec.json.encode(rule.summary).decode()
    wait = f"        for: {rule.for_s:g}s\n" if rule.for_s else ""
    return (
        f"      - alert: {rule.name}\n        expr: {_single_quoted(rule.expression)}\n{wait}"
        f"        labels: {{severity: {rule.severity}}}\n        annotations: {{summary: {quoted}}}\n"
    )


def _single_quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
