"""Certificates of a laboratory, and those that end soon."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sensegate.authority.certificates import CA_KEY, LaboratoryCA, common_name, fingerprint
from sensegate.authority.expiry import CertificateExpiry
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError

DAY_S = 86_400.0


def lab(folder: Path, clock: FakeClock) -> LaboratoryCA:
    return LaboratoryCA(folder, datetime.fromtimestamp(clock.now() / 1e6, UTC))


async def test_what_ends_soon_is_named(tmp_path: Path) -> None:
    """30 days before, and after; looked at once an hour; a file that is gone is named too."""
    clock = FakeClock()
    pair = lab(tmp_path, clock).issue("server", "server", usage="server", hosts=["localhost", "::1"])
    expiry = CertificateExpiry({"web.tls.cert_file": str(pair.cert_file), "empty": ""}, clock)
    assert expiry.warnings() == []
    await clock.advance(796 * DAY_S)
    (warning,) = expiry.warnings()
    assert "(web.tls.cert_file) expires on 2028-04-05" in warning
    await clock.advance(30 * DAY_S)
    assert "expired on" in expiry.warnings()[0]
    pair.cert_file.unlink()
    assert "expired on" in expiry.warnings()[0], "within the hour"
    await clock.advance(3_600)
    assert "cannot be read" in expiry.warnings()[0]


def test_names_and_pins(tmp_path: Path) -> None:
    """The common name of a device; what is no certificate has none, and no pin."""
    pair = lab(tmp_path, FakeClock()).issue("device-d1", "d1", usage="client")
    assert common_name(pair.cert_file.read_text()) == "d1"
    assert common_name("rubbish") == ""
    assert pair.fingerprint == fingerprint(pair.cert_file)
    with pytest.raises(ConfigError, match="no certificate"):
        fingerprint(pair.key_file)


def test_an_authority_without_its_key_is_not_made_anew(tmp_path: Path) -> None:
    """Certificates that are in use would be worth nothing."""
    lab(tmp_path, FakeClock())
    (tmp_path / CA_KEY).unlink()
    with pytest.raises(ConfigError, match="restore"):
        lab(tmp_path, FakeClock())
