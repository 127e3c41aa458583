"""Certificates that are replaced while we run: looked at, taken when whole."""

from __future__ import annotations

from pathlib import Path

from sensegate.clock import FakeClock
from sensegate.errors import ConfigError
from sensegate.web.certificates import CertificateReload


def test_what_changes_is_taken_when_it_is_there(tmp_path: Path) -> None:
    """Nothing without a change, nothing while a file is away; what is not good is tried again with the next change."""
    file = tmp_path / "server.pem"
    file.write_text("one")
    results: list[str] = []

    def renew() -> None:
        results.append(file.read_text())
        if results[-1] == "bad":
            raise ConfigError("no certificate")

    rotation = CertificateReload([str(file), ""], [renew], FakeClock())
    assert not rotation.check()
    file.unlink()
    assert not rotation.check()
    file.write_text("bad")
    assert rotation.check()
    assert not rotation.check()
    file.unlink()
    (tmp_path / "next").write_text("two")
    (tmp_path / "next").rename(file)
    assert rotation.check()
    assert results == ["bad", "two"]
