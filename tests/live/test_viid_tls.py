"""GA/T 1400 by TLS: a registration with a certificate holds for that certificate alone; plain text gets nowhere."""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs

from sensegate.config.viid import ViidConfig
from sensegate.errors import ConfigError, Unavailable
from sensegate.viid.client import ViidClient
from tests.live.curl import Camera
from tests.live.site import PLAIN, config_of, running

pytestmark = [pytest.mark.live, pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")]

SERVER, CAMERA, OTHER = "44010000005030000001", "44010600001190000001", "44010600001190000002"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A certificate that signed itself, for 127.0.0.1, and its key: of the listener, and of a camera."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(cert_file), str(key_file)


async def test_by_tls_and_bound_to_a_certificate(tmp_path: Path, files: tuple[str, str]) -> None:
    cert, key = files
    config = structs.replace(
        config_of(tmp_path / "4401", profiles=(str(PLAIN), str(PLAIN.parent / "viid.yaml"))),
        viid=ViidConfig(server_id=SERVER, cert_file=cert, key_file=key, ca_file=cert),
    )
    async with running(config) as site:
        url = site.addresses.viid
        assert url.startswith("https://")
        made = await site.device(CAMERA, profile="sensegate/viid")
        camera = Camera(url, CAMERA, made.password, "--cacert", cert, "--cert", cert, "--key", key)
        assert (await camera.system("Register")).status == 200
        shown = Camera(url, CAMERA, "", "--cacert", cert, "--cert", cert, "--key", key, digest=False)
        assert (await shown.system("Keepalive")).status == 200
        bare = Camera(url, CAMERA, "", "--cacert", cert, digest=False)
        assert (await bare.system("Keepalive")).status == 401
        other = await site.device(OTHER, profile="sensegate/viid")
        client = ViidClient(url, OTHER, password=other.password, ca_file=cert)
        await client.register()
        await client.keepalive()
        await client.unregister()
        await client.close()
        stranger = ViidClient(url, OTHER, password=other.password)  # does not know the authority
        with pytest.raises(Unavailable):
            await stranger.register()
        await stranger.close()


async def test_beyond_loopback_without_tls_only_where_it_is_said(tmp_path: Path) -> None:
    config = structs.replace(
        config_of(tmp_path / "4401", profiles=(str(PLAIN),)), viid=ViidConfig(server_id=SERVER, host="192.0.2.1")
    )
    with pytest.raises(ConfigError, match="allow_plaintext"):
        async with running(config):
            pass
