"""The systemd unit: sound, and with the confinement that SECURITY.md promises. Skipped where there is no systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "sensegate@.service"
EXPOSURE_MAX = 15
"""Tenths, as `systemd-analyze security --threshold` takes them; 100 is a service without confinement."""

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def exposure(unit: Path) -> subprocess.CompletedProcess[str]:
    """Compare the exposure of a unit with what is allowed."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_unit_is_confined() -> None:
    """Every key is known to systemd, and the exposure is low."""
    checked = exposure(UNIT)
    assert checked.returncode == 0, checked.stdout[-2_000:]
    assert "Unknown key" not in checked.stderr


def test_a_unit_without_filters_is_noticed(tmp_path: Path) -> None:
    """Control: without its filter of system calls the same unit is above the threshold."""
    text = re.sub(
        r"(?m)^(SystemCallFilter|RestrictNamespaces|ProtectSystem)=.*\n", "", UNIT.read_text(encoding="utf-8")
    )
    unit = tmp_path / UNIT.name
    unit.write_text(text, encoding="utf-8")
    assert exposure(unit).returncode != 0
