"""The page of what we speak of MQTT names a test for each promise and each statement of the standard."""

from __future__ import annotations

from tests.house import mqtt


def test_every_promise_and_statement_has_a_test_that_exists() -> None:
    """A promise without its test is none."""
    assert mqtt.without_test() == []
    statements = [row["statement"] for row in mqtt.rows("mqtt_statements")]
    assert len(statements) == len(set(statements))
