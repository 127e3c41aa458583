"""What `deploy/` holds is valid by the schemas of its readers, confined, and agrees with the product.

Images are not built and manifests not applied here: neither a container engine nor a cluster is at hand.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped] # it has no annotations
import pytest
import yaml

from sensegate.config import parse

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = "1.33"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = [DEPLOY / "sensegate@.service", *sorted((DEPLOY / "cluster").glob("*.service"))]


def documents(file: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Return name and pod specification of each workload."""
    workloads = [row for file in MANIFESTS for row in documents(file) if row["kind"] in {"StatefulSet", "Deployment"}]
    return [(row["metadata"]["name"], row["spec"]["template"]["spec"]) for row in workloads]


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_manifests_are_valid(file: Path) -> None:
    """Each by the schema of its kind; a key that the schema does not have is refused."""
    for document in documents(file):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    spoilt = documents(file)[0]
    spoilt["spec"]["unknown"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoilt, KUBERNETES, strict=True)


def test_pods_are_confined() -> None:
    """No root, no capability, a read-only root, one pod a machine; each has a budget or is spread, and a policy."""
    policies = {
        row["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for file in MANIFESTS
        for row in documents(file)
        if row["kind"] == "NetworkPolicy"
    }
    assert len(pods()) == 3
    for name, pod in pods():
        assert name in policies
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"readinessProbe", "startupProbe"} & set(container)
            assert "memory" in container["resources"]["limits"]


def test_the_compose_file_is_valid() -> None:
    """By the schema of the Compose specification; confined as the manifests are."""
    file = DEPLOY / "container" / "compose.yaml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    (service,) = documents(file)[0]["services"].values()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert (file.parent / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_the_image_is_built_in_stages_and_runs_without_rights() -> None:
    """The last stage has no compiler's layer, a numeric user, a health check; what it copies exists."""
    text = (DEPLOY / "container" / "Dockerfile").read_text()
    stages = re.split(r"(?m)^FROM ", text)[1:]
    assert len(stages) == 2
    assert re.search(r"(?m)^USER 10001:10001$", stages[1])
    assert "HEALTHCHECK" in stages[1]
    assert "pip install" not in stages[1]
    for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", text):
        for source in line.split()[:-1]:
            assert (DEPLOY.parent / source).exists(), source


def test_the_health_check_tells_the_living(tmp_path: Path) -> None:
    """Exit code 1 where nobody answers."""
    script = DEPLOY / "container" / "healthcheck.py"
    environment = {"SENSEGATE_HEALTH_URL": "http://127.0.0.1:9/healthz"}
    checked = subprocess.run([sys.executable, script], env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert checked.returncode == 1


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_valid(unit: Path, tmp_path: Path) -> None:
    """Systemd knows every key; programs that are installed elsewhere are the only thing that it may miss."""
    copied = tmp_path / unit.name.replace("@", "@x")
    copied.write_text(unit.read_text())
    command = ["systemd-analyze", "verify", "--man=no", str(copied)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in checked.stderr.splitlines() if unit.name.split("@")[0] in line]
    assert not [line for line in lines if "is not executable" not in line], lines


def test_the_configuration_of_three_machines_is_one() -> None:
    """`sensegate check` would take it; the ports that manifests and units name are its own."""
    config = parse((DEPLOY / "cluster" / "node.yaml").read_text(), file="node.yaml")
    assert config.engine.replicas == 3
    assert config.engine.standby
    assert config.listen.mqtt.separate
    image = (DEPLOY / "container" / "Dockerfile").read_text()
    assert f"EXPOSE {config.listen.mqtt.port} {config.web.port}" in image
    assert config.engine.cluster.directory in (DEPLOY / "cluster" / "sensegate-nats@.service").read_text()
