"""Configurations that `run` would refuse or misread: `sensegate check` refuses each at its key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import yaml
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.config import Config, parse, settings
from sensegate.config.reference import Setting, record_type
from sensegate.config.setting import ConfigRecord, doc
from sensegate.errors import ConfigError

NUMBERS = [setting for setting in settings() if setting.is_number]
REQUIRED: dict[str, dict[str, Any]] = {
    "engine.cluster.servers[]": {"name": "n1", "host": "127.0.0.1"},
    "external_brokers[]": {"name": "a", "host": "127.0.0.1"},
    "listen.tcp[]": {"protocol": "hj212"},
    "influx.outlets[]": {"name": "a", "url": "http://127.0.0.1", "subscriber": "a"},
    "cameras[]": {"device": "cam", "make": "dahua", "url": "http://127.0.0.1"},
    "viid.superiors[]": {"name": "a", "url": "http://127.0.0.1", "server_id": "4" * 20, "password_file": "a"},
    "viid.subordinates[]": {"device": "4" * 20, "url": "http://127.0.0.1"},
}
"""Required keys of the records within lists."""


def document(key: str, value: object, **others: Any) -> str:
    """Return a configuration with a value at a key, given as ``section.list[].key``."""
    tree: Any = value
    parts = key.split(".")
    for depth in range(len(parts), 0, -1):
        path = ".".join(parts[:depth])
        name = parts[depth - 1].removesuffix("[]")
        if path.endswith("[]"):
            tree = [{**REQUIRED[path], **tree}]
        tree = {name: tree}
    base = {"role": "node", "division": "4401", "directory": "data", **others}
    return yaml.safe_dump({**base, **tree}, allow_unicode=True)


def refusal(text: str) -> ConfigError:
    """Return the error with which a configuration is refused."""
    with pytest.raises(ConfigError) as refused:
        parse(text, file="node.yaml")
    return refused.value


def without_range(settings: list[Setting]) -> list[str]:
    """Return the keys of numbers that lack a bound."""
    return [
        setting.key for setting in settings if setting.is_number and (setting.least is None or setting.most is None)
    ]


def records(record: type[ConfigRecord] = Config) -> list[type[ConfigRecord]]:
    """Return the records of the configuration."""
    nested = [record_type(kind) for kind in get_type_hints(record, include_extras=True).values()]
    return [record, *(inner for kind in nested if kind for inner in records(kind))]


def test_each_number_of_the_configuration_has_a_range() -> None:
    """Every number field has a least and a greatest value."""
    fields = sum(
        get_args(kind)[0] in {int, float}
        for record in set(records())
        for kind in get_type_hints(record, include_extras=True).values()
    )
    assert fields > 100
    assert len({setting.key for setting in NUMBERS}) >= fields
    assert without_range(list(settings())) == []


def test_a_number_without_a_range_is_noticed() -> None:
    """Control: the test above fails for a record whose number has no bounds, or only one."""

    class Unbounded(ConfigRecord, frozen=True):
        bare: Annotated[int, doc("size")] = 1
        half: Annotated[float, doc("size", least=1)] = 1.0
        bounded: Annotated[int, doc("size", least=1, most=2)] = 1
        text: Annotated[str, doc("name")] = ""

    assert without_range(list(settings(Unbounded))) == ["bare", "half"]


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.key)
def test_a_number_outside_its_range_is_refused_at_its_key(setting: Setting) -> None:
    """The error gives the key, the range and what to do; the bounds themselves are within the range."""
    assert setting.least is not None
    assert setting.most is not None
    for value in (setting.least - 1, setting.most + 1):
        error = refusal(document(setting.key, value))
        assert error.problem == f"{value} is out of range"
        assert error.key.replace(".0.", "[].") == setting.key
        assert error.remedy == f"give a number from {setting.least:,} to {setting.most:,}"
        assert error.line > 0
    for value in (setting.least, setting.most):
        try:
            parse(document(setting.key, value))
        except ConfigError as why:
            # Another rule may forbid a bound (a retention below the legal one), but not as out of range.
            assert "out of range" not in why.problem  # noqa: PT017 - only some bounds raise


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("web.port", 99_999, "web.port: 99999 is out of range; give a number from 0 to 65,535"),
        ("duplicates.horizon_h", -1, "duplicates.horizon_h: -1 is out of range"),
        ("store.log_bytes", 0, "store.log_bytes: 0 is out of range"),
        ("store.readings_ttl_h", -5, "store.readings_ttl_h: -5 is out of range"),
        ("time.zone", "Asia/Kanton", "time.zone: there is no time zone 'Asia/Kanton'"),
        ("time.zone", "../../etc/passwd", "time.zone: there is no time zone"),
        ("time.oldest", "yesterday", "time.oldest: 'yesterday' is not a time"),
        ("listen.tcp[].allow", ["10.0.0.0/99"], "allow: '10.0.0.0/99' is neither an address nor a network"),
        ("listen.tcp[].allow", ["10.1.2.3/8"], "the network is 10.0.0.0/8"),
        ("egress.allow", ["10.0.0.0/99"], "egress.allow: '10.0.0.0/99' is neither"),
        ("web.trusted_proxies", ["10.0.0.0/99"], "web.trusted_proxies: '10.0.0.0/99' is neither"),
        ("web.trusted_proxies", ["proxy.example"], "web.trusted_proxies: 'proxy.example' is neither"),
        ("egress.cameras", ["1.2.3"], "egress.cameras: '1.2.3' is neither"),
        ("web.host", "0.0.0.0", "web.host: 0.0.0.0 is not loopback"),  # noqa: S104 - it is refused
        ("engine.mqtt_host", "10.1.1.1", "engine.mqtt_host: 10.1.1.1 is not loopback"),
        ("listen.tcp[].host", "10.1.1.1", "would accept frames of any device"),
        ("ingest.commit_messages_max", 70_000, "exceeds ingest.depth_messages_max, which is 60000"),
        ("egress.retry_max_s", 0.5, "egress.retry_initial_s: 1 exceeds egress.retry_max_s"),
    ],
)
def test_what_a_start_would_refuse_or_misread(key: str, value: object, message: str) -> None:
    """The text names the key and what is wrong with it."""
    assert message in str(refusal(document(key, value)))


@pytest.mark.parametrize(
    ("engine", "web", "clash"),
    [
        ({"port": 4222, "mqtt_port": 4222}, {}, "engine.mqtt_port: 4222 is also the port of engine.port"),
        ({"mqtt_port": 1883}, {"port": 1883}, "web.port: 1883 is also the port of engine.mqtt_port"),
        ({"mqtt_port": 1883}, {"port": 1883, "host": "localhost"}, "is also the port of engine.mqtt_port"),
        ({"mqtt_port": 1883}, {"port": 1883, "host": "::1"}, ""),
        ({"port": 0, "mqtt_port": 0}, {"port": 0}, ""),
        ({"port": 1883, "url": "nats://127.0.0.1:1"}, {"port": 1883}, ""),
    ],
)
def test_two_listeners_on_one_port(engine: dict[str, Any], web: dict[str, Any], clash: str) -> None:
    """Equal ports of overlapping addresses are refused; free ports, other addresses, an external server are not."""
    text = document("engine", engine, web=web)
    if clash:
        assert clash in str(refusal(text))
    else:
        assert parse(text).engine.port == engine.get("port", 0)


@pytest.mark.parametrize(
    ("key", "value"), [("division", "9901"), ("division", "gz"), ("nodes", [{"division": "9999", "secret_file": "a"}])]
)
def test_check_and_run_refuse_unknown_divisions(tmp_path: Path, key: str, value: object) -> None:
    """Both commands name the key; the control, a known division, is no problem."""
    file = tmp_path / "node.yaml"
    file.write_text(document("log_level", "error", **{"directory": str(tmp_path / "data"), key: value}), "utf-8")
    checked = CliRunner().invoke(app, ["check", str(file)])
    assert checked.exit_code == 1
    assert f": {key}" in checked.output
    assert "division" in checked.output
    started = CliRunner().invoke(app, ["run", str(file)])
    assert isinstance(started.exception, ExceptionGroup)
    assert any(isinstance(error, ConfigError) and error.key.startswith(key) for error in started.exception.exceptions)
    assert not (tmp_path / "data" / "engine").exists()
    file.write_text(document("log_level", "error"), "utf-8")
    assert CliRunner().invoke(app, ["check", str(file)]).exit_code == 0
