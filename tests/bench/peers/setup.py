"""Installation of the peers into a directory: ``python -m tests.bench.peers.setup DIRECTORY``; a few minutes.

MQTT clients for `tests/collect/front/test_libraries.py` come with them; ``… DIRECTORY clients`` installs these alone.
gmqtt is not among our own packages: it brings a package ``tests``, which would hide ours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

NODE_RED = "4.1.15"
THINGSBOARD = "3.8.5"
GMQTT = "0.8.0"
MQTT_JS = "5.16.0"


def install_npm(prefix: Path, package: str) -> None:
    """Install a package of npm into a directory; raise `CalledProcessError` where npm fails."""
    prefix.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is missing: apt-get install npm")
    subprocess.run([npm, "install", "--no-audit", "--no-fund", "--prefix", str(prefix), package], check=True)


def install_pip(environment: Path, package: str) -> None:
    """Install a package of PyPI into an environment of its own; raise `CalledProcessError` where pip fails."""
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([str(environment / "bin" / "pip"), "install", "--quiet", package], check=True)


def install_clients(directory: Path) -> None:
    """Install the MQTT clients of the tests."""
    install_npm(directory / "clients", f"mqtt@{MQTT_JS}")
    install_pip(directory / "clients" / "python", f"gmqtt=={GMQTT}")


def main(directory: Path) -> None:
    """Install the pinned versions; raise `CalledProcessError` where npm or pip fails."""
    install_npm(directory / "node-red", f"node-red@{NODE_RED}")
    install_pip(directory / "thingsboard", f"thingsboard-gateway=={THINGSBOARD}")
    install_clients(directory)


if __name__ == "__main__":
    (install_clients if sys.argv[2:] == ["clients"] else main)(Path(sys.argv[1]))
