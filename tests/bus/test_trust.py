"""Which certificate a node that joined takes for its centre's: in memory, with a laboratory's certificates."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest

from sensegate.authority.certificates import CertificateFiles, LaboratoryCA
from sensegate.bus import trust

HERE = "10.2.0.1"
NOW = dt.datetime.now(dt.UTC)


def issue(directory: Path, name: str, *hosts: str) -> CertificateFiles:
    """Return a certificate of the authority of a directory."""
    return LaboratoryCA(directory, NOW).issue(name, name, usage="server", hosts=hosts)


def shake(client: ssl.SSLContext, shown: CertificateFiles) -> None:
    """Let a client meet a server that shows a certificate. Raises `ssl.SSLError` as the client does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.cert_file, shown.key_file)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_hostname=HERE),
        context.wrap_bio(up, down, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version()


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    """What a node trusts that joined a centre at HERE, whose certificate names another address, with its authority."""
    centre = issue(tmp_path, "centre", "centre.example")
    return trust.joined_centre_context(centre.cert_file.read_text(), HERE)


def test_the_certificate_that_was_told(context: ssl.SSLContext, tmp_path: Path) -> None:
    """It is taken whatever names stand in it: it was told by the centre itself."""
    shake(context, issue(tmp_path, "centre"))


def test_one_in_its_place_for_the_same_host(context: ssl.SSLContext, tmp_path: Path) -> None:
    """A renewed certificate of the same authority is taken without anything done at the node."""
    shake(context, issue(tmp_path, "renewed", HERE))


def test_another_of_the_same_authority(context: ssl.SSLContext, tmp_path: Path) -> None:
    """That of a node or of another server is no centre."""
    other = issue(tmp_path, "node-4401", "10.9.9.9")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"neither the one received on joining.*10\.2\.0\.1"):
        shake(context, other)
    plain = ssl.create_default_context(cadata=other.cert_file.read_text())
    plain.check_hostname = False
    shake(plain, other)  # the control: by the authority alone it would be taken


def test_one_of_another_authority(context: ssl.SSLContext, tmp_path: Path) -> None:
    """Even with the right address."""
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake(context, issue(tmp_path / "other", "centre", HERE))


def test_contexts_offer_no_suite_with_cbc(tmp_path: Path) -> None:
    """Listeners and links offer AES-GCM and ChaCha20 with forward secrecy; control: a default context offers CBC."""

    def weak(context: ssl.SSLContext) -> list[str]:
        suites = [str(suite["name"]) for suite in context.get_ciphers()]
        assert suites
        return [name for name in suites if not ("GCM" in name or "CHACHA20" in name)]

    files = issue(tmp_path, "centre")
    server = trust.server_context("web.tls", cert_file=str(files.cert_file), key_file=str(files.key_file))
    assert weak(server) == []
    assert weak(trust.client_context("uplink")) == []
    assert weak(trust.joined_centre_context("", "localhost")) == []
    assert weak(ssl.create_default_context())
