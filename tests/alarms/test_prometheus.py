"""The alert rules for Prometheus name what exists, and are those of the gateway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sensegate import metrics
from sensegate.alarms import prometheus
from sensegate.alarms.prometheus import AlertRule, alert_rules
from sensegate.alarms.rules import GATEWAY_RULES

FILE = Path(__file__).parents[2] / "deploy" / "alerts.yaml"
KNOWN = {name for family in metrics.REGISTRY.collect() for name in (family.name, f"{family.name}_total")}


def metrics_of(expression: str) -> set[str]:
    """Return the names of metrics in an expression."""
    return set(re.findall(r"\bsensegate_\w+", expression))


@pytest.mark.parametrize("rule", tuple(alert_rules()), ids=lambda rule: rule.name)
def test_each_metric_of_a_rule_exists(rule: AlertRule) -> None:
    """A rule on a metric that was renamed never fires; counters carry their suffix."""
    names = metrics_of(rule.expression)
    counters = {family.name for family in metrics.REGISTRY.collect() if family.type == "counter"}
    assert names - KNOWN == set()
    assert names & counters == set()
    assert names or "up{" in rule.expression


def test_a_metric_that_does_not_exist_is_noticed() -> None:
    """Control: an unknown name is found in an expression."""
    assert metrics_of("rate(sensegate_nowhere_total[5m]) > 0") - KNOWN == {"sensegate_nowhere_total"}


def test_the_file_has_a_rule_for_each_of_the_gateway() -> None:
    """It is YAML as Prometheus reads it: unique names, the same limits and waits as the built-in alarm rules."""
    text = FILE.read_text(encoding="utf-8")
    assert text == prometheus.text()
    (group,) = yaml.safe_load(text)["groups"]
    rules = {rule["alert"]: rule for rule in group["rules"]}
    assert len(rules) == len(group["rules"])
    for rule in GATEWAY_RULES:
        (alerts,) = [alert for alert in rules.values() if f'kind="{rule.kind}"' in alert["expr"]]
        assert f"{rule.above if rule.above is not None else rule.below:g}" in alerts["expr"]
        assert alerts.get("for", "0s") == f"{rule.for_s:g}s"
        assert alerts["labels"]["severity"] == rule.severity
