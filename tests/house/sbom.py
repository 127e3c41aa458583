"""Writes the bill of materials: `python -m tests.house.sbom [FILE]`, CycloneDX 1.5, by default dist/sbom.cdx.json.

The packages come from `uv.lock`, with the digests of their files. nats-server is added with its digest, the revision of
its source, and its modules with their checksums; it must equal the facts that the package ships.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sensegate.bus.build_info import differences, engine_facts, read_build_info, sha256_of
from sensegate.bus.process import binary
from sensegate.errors import EngineError

ROOT = Path(__file__).parents[2]
FILE = ROOT / "dist" / "sbom.cdx.json"
_SOURCE = "https://github.com/nats-io/nats-server"


def packages() -> dict[str, Any]:
    """Return the bill of the packages that `uv.lock` holds for users."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "export", "--frozen", "--no-dev", "--quiet", "--format", "cyclonedx1.5"]
    command += ["--preview-features", "sbom-export"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    bill: dict[str, Any] = json.loads(run.stdout)
    return bill


def engine_components(path: Path) -> list[dict[str, Any]]:
    """Return the components of a nats-server. Raises `EngineError`: it is not the one that is known."""
    if deviations := differences(path, engine_facts()):
        raise EngineError(f"{path} is not the nats-server that is known: {'; '.join(deviations)}")
    build = read_build_info(path)
    engine = {
        "type": "application",
        "bom-ref": f"nats-server@{build.version}",
        "name": "nats-server",
        "version": build.version,
        "purl": f"pkg:golang/{build.module}@{build.version}",
        "hashes": [{"alg": "SHA-256", "content": sha256_of(path)}],
        "externalReferences": [{"type": "vcs", "url": f"{_SOURCE}/tree/{build.revision}"}],
        "properties": [
            {"name": "go:toolchain", "value": build.toolchain},
            {"name": "vcs:modified", "value": str(build.is_modified).lower()},
        ],
    }
    modules = [
        {
            "type": "library",
            "bom-ref": f"golang:{name}",
            "name": name.partition("@")[0],
            "version": name.partition("@")[2],
            "purl": f"pkg:golang/{name}",
            "properties": [{"name": "go:sum", "value": checksum}],
        }
        for name, checksum in build.modules.items()
    ]
    return [engine, *modules]


def bill_of_materials(engine: Path) -> dict[str, Any]:
    """Return the bill of all components."""
    bill = packages()
    components = engine_components(engine)
    bill["components"] += components
    references = [component["bom-ref"] for component in components]
    bill["dependencies"] += [
        {"ref": references[0], "dependsOn": references[1:]},
        *({"ref": reference, "dependsOn": []} for reference in references[1:]),
    ]
    return bill


def main(file: Path = FILE) -> None:
    """Write the bill."""
    bill = bill_of_materials(Path(binary()))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{file}: {len(bill['components'])} components; nats-server equals what is known of it\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
