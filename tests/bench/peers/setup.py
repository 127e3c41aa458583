"""Installation of the peers into a directory: ``python -m tests.bench.peers.setup DIRECTORY``; a few minutes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

NODE_RED = "4.1.15"
THINGSBOARD = "3.8.5"


def main(directory: Path) -> None:
    """Install the pinned versions; raise `CalledProcessError` where npm or pip fails."""
    directory.mkdir(parents=True, exist_ok=True)
    prefix = directory / "node-red"
    prefix.mkdir(exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is missing: apt-get install npm")
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--prefix", str(prefix), f"node-red@{NODE_RED}"], check=True
    )
    subprocess.run([sys.executable, "-m", "venv", str(directory / "thingsboard")], check=True)
    pip = directory / "thingsboard" / "bin" / "pip"
    subprocess.run([str(pip), "install", "--quiet", f"thingsboard-gateway=={THINGSBOARD}"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
