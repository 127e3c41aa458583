"""`sensegate engine` with a cluster: a configuration a server, and what `sensegate check` refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sensegate.bus import process
from sensegate.bus.server_conf import KEY_VARIABLE
from sensegate.cli import app
from sensegate.config import parse
from sensegate.errors import ConfigError

SERVERS = [{"name": name, "host": f"10.1.0.{at}"} for at, name in enumerate(("n1", "n2", "n3"), 1)]
URL = "tls://10.1.0.1:4222,tls://10.1.0.2:4222,tls://10.1.0.3:4222"


def document(tls: Path, **engine: object) -> str:
    """Return the configuration of a node on a cluster of three machines."""
    paths = {"cert_path": f"{tls}/node.pem", "key_path": f"{tls}/node.key", "ca_path": f"{tls}/ca.pem"}
    cluster = {"servers": SERVERS, "directory": str(tls / "stores"), "tls": paths}
    settings = {"url": URL, "replicas": 3, "cluster": cluster, **engine}
    return yaml.safe_dump({"role": "node", "division": "4401", "directory": str(tls / "gateway"), "engine": settings})


@pytest.mark.live
def test_a_configuration_for_each_server(tmp_path: Path) -> None:
    """nats-server accepts each; routes lead to the others only, by TLS with a password; accounts hold three copies."""
    runner = CliRunner()
    assert runner.invoke(app, ["tls", "init", str(tmp_path)]).exit_code == 0
    keys = {path.suffix: path for path in tmp_path.rglob("*") if path.suffix in {".pem", ".key"}}
    text = document(tmp_path)
    for name, suffix in (("node.pem", ".pem"), ("node.key", ".key"), ("ca.pem", ".pem")):
        text = text.replace(str(tmp_path / name), str(keys[suffix]))
    file = tmp_path / "node.yaml"
    file.write_text(text)
    result = runner.invoke(app, ["engine", str(file), str(tmp_path / "servers")])
    assert result.exit_code == 0, result.output
    for server in SERVERS:
        conf = tmp_path / "servers" / server["name"] / "nats-server.conf"
        (tmp_path / "stores" / server["name"]).mkdir(parents=True)
        environment = {**os.environ, KEY_VARIABLE: "0123456789abcdef0123456789abcdef"}
        command = [process.binary(), "-t", "-c", str(conf)]
        checked = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert checked.returncode == 0, checked.stderr
        written = conf.read_text()
        assert conf.stat().st_mode & 0o077 == 0
        assert f'server_name: "{server["name"]}"' in written
        routes = next(line for line in written.splitlines() if "routes:" in line)
        assert all((f"@{other['host']}:6222" in routes) == (other is not server) for other in SERVERS)
        assert "stream_replicas: 3" in written
        assert written.count("verify: true") == 1
        limits = [line for line in written.splitlines() if "max_file:" in line]
        alone = [line for line in _standalone(tmp_path).splitlines() if "max_file:" in line]
        assert [_number(line) for line in limits] == [3 * _number(line) for line in alone]


def _standalone(directory: Path) -> str:
    file = directory / "alone.yaml"
    file.write_text(yaml.safe_dump({"role": "node", "division": "4401", "directory": str(directory / "gateway")}))
    assert CliRunner().invoke(app, ["engine", str(file), str(directory / "alone")]).exit_code == 0
    return (directory / "alone" / "nats-server.conf").read_text()


def _number(line: str) -> int:
    return int(line.split("max_file:")[1].split(",", maxsplit=1)[0])


@pytest.mark.parametrize(
    ("engine", "refused"),
    [
        ({"url": ""}, "engine.replicas"),
        ({"cluster": {"servers": SERVERS[:2]}}, "engine.cluster.servers"),
        ({"cluster": {"servers": [SERVERS[0], SERVERS[0], SERVERS[1]]}}, "engine.cluster.servers"),
        ({"cluster": {"servers": SERVERS}}, "engine.cluster.servers.0.host"),
        ({"link_ca_file": "ca.pem"}, "engine.link_ca_file"),
    ],
)
def test_what_is_refused(engine: dict[str, object], refused: str, tmp_path: Path) -> None:
    """A cluster without a majority, with a name twice, without TLS beyond loopback; copies without servers."""
    with pytest.raises(ConfigError) as error:
        parse(document(tmp_path, **engine), file="node.yaml")
    assert refused in str(error.value)
