"""Words that the command line accepts: those of the gateway; any other is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest
from typer.testing import CliRunner

from sensegate.alarms.channels import ChannelKind
from sensegate.alarms.records import AlarmState
from sensegate.alarms.rules import AlarmKind, Severity
from sensegate.cli import app, words
from sensegate.control.tasks import TaskState
from sensegate.errors import ConfigError
from sensegate.share.applications import ApplicationState
from sensegate.share.webhooks import NewWebhook
from sensegate.tiers.protocol import Lane
from sensegate.web.people import PersonRole


def _field(record: type[msgspec.Struct], name: str) -> Iterable[str]:
    """Return the words of a field of a record."""
    return get_args(get_type_hints(record)[name])


@pytest.mark.parametrize(
    ("accepted", "known"),
    [
        (words.AlarmKind, AlarmKind),
        (words.AlarmState, AlarmState),
        (words.ApplicationState, ApplicationState),
        (words.ChannelKind, ChannelKind),
        (words.Lane, Lane),
        (words.PersonRole, get_args(PersonRole)),
        (words.Severity, Severity),
        (words.SignatureAlgorithm, _field(NewWebhook, "algorithm")),
        (words.TaskState, TaskState),
        (words.WebhookForm, _field(NewWebhook, "form")),
    ],
)
def test_the_words_are_those_of_the_gateway(accepted: object, known: Iterable[str]) -> None:
    """The command line imports nothing of the gateway to print its help, so it has the words itself."""
    assert set(get_args(accepted)) == set(map(str, known))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("task list --state foo", "'queued', 'sent'"),
        ("alarm list --state foo", "'acknowledged'"),
        ("alarm list --severity foo", "'warning'"),
        ("alarm set r foo", "'threshold'"),
        ("alarm channel set c foo", "'wecom'"),
        ("application list --state foo", "'pending'"),
        ("grant list --state foo", "'revoked'"),
        ("node skip foo", "'backlog'"),
        ("people add li --role subscriber --scope 44", "'county_operator'"),
        ("webhook create all https://example.org/x --form foo", "'ndjson'"),
        ("trace", "--device with --time"),
        ("trace x --device d --time 2026-01-01T00:00:00Z", "--device with --time"),
        ("device publish d p.json", "SENSEGATE_DEVICE_PASSWORD"),
        ("device change d lon=x", "is not a number"),
        ("device change d secondary=x", "is not true or false"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, arguments: str, named: str
) -> None:
    """The error names the words, or what is missing; no gateway answers at the address."""
    monkeypatch.setenv("SENSEGATE_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("SENSEGATE_DEVICE_PASSWORD", raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, arguments.split(" "))
    assert result.exit_code == 2, result.exception
    assert named in result.stderr


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"topic": "a"}', "'payload' is missing"),
        ("x", "it is not JSON"),
        ("[]", "it is not an object"),
        ('{"topic": "a", "payload_b64": "?"}', "base64"),
    ],
)
def test_a_line_that_cannot_be_replayed(tmp_path: Path, line: str, reason: str) -> None:
    """The error names file, line and what the line lacks, in no words of Python."""
    file = tmp_path / "m.jsonl"
    file.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        CliRunner().invoke(app, ["replay", str(file), "--to", "mqtt://127.0.0.1:1"], catch_exceptions=False)
    assert str(refused.value).startswith(f"{file}:1: the line is not a recorded message (")
    assert reason in str(refused.value)
    assert "Error:" not in str(refused.value)


def test_a_demo_needs_a_folder_for_its_summary(tmp_path: Path) -> None:
    """It is refused before any gateway starts."""
    with pytest.raises(ConfigError, match=r"--summary: there is no such folder; create it"):
        CliRunner().invoke(app, ["demo", "--summary", str(tmp_path / "no" / "x.json")], catch_exceptions=False)
