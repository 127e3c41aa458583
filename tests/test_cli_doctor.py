"""`sensegate doctor` on stores: what it complains of, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.cli import doctor
from sensegate.cli.doctor import CheckOutcome, CheckResult, examine

PROFILES = Path(__file__).parents[1] / "device_profiles" / "sensegate"
LINE = "[7] 2026/12/01 00:00:00.000000 [{}] {}\n"


def node(directory: Path) -> Path:
    """Write the configuration of a node with its store in a directory."""
    (directory / "engine").mkdir(parents=True)
    file = directory / "node.yaml"
    file.write_text(f"role: node\ndivision: '4401'\ndirectory: {directory}\nprofiles: [{PROFILES}]\n")
    return file


def findings(file: Path, check: str) -> list[CheckResult]:
    return [finding for finding in examine(file) if finding.check == check]


def test_a_path_is_no_complaint(tmp_path: Path) -> None:
    """Words of the server count, those of the directory do not; control: a complaint about a file in it."""
    directory = tmp_path / "corrupt, disabled and out of space"
    file, log = node(directory), directory / "engine" / "nats.log"
    log.write_text(LINE.format("INF", f'  Store Directory: "{directory}/engine/store/jetstream"'))
    assert [finding.verdict for finding in findings(file, "store")] == [CheckOutcome.GOOD]
    log.write_text(LINE.format("WRN", f"Stream state for {directory}/engine/store/x is corrupt"))
    assert [finding.verdict for finding in findings(file, "store")] == [CheckOutcome.BAD]


def test_a_disk_without_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free bytes do not help where no file can be made."""
    file = node(tmp_path / "node")
    assert not findings(file, "inodes")
    monkeypatch.setattr(doctor, "inodes_free", lambda _: 3.0)
    (finding,) = findings(file, "inodes")
    assert finding.verdict is CheckOutcome.BAD
    assert "3 more files" in finding.detail


def test_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning where acknowledgements would wait for it; control: a fast one, and a gateway that flushes rarely."""
    file = node(tmp_path / "node")
    for took, verdict in (([0.001] * 20, CheckOutcome.GOOD), ([0.05] * 20, CheckOutcome.WARNING)):
        monkeypatch.setattr(doctor, "_flush_times", lambda _, took=took: took)
        assert [finding.verdict for finding in findings(file, "flush")] == [verdict]
    with file.open("a") as config:
        config.write("engine: {durability: process}\n")
    assert not findings(file, "flush")


def test_a_store_that_was_never_made(tmp_path: Path) -> None:
    """Nothing is known and nothing is missing."""
    assert [finding.verdict for finding in findings(node(tmp_path / "node"), "streams")] == [CheckOutcome.GOOD]
