"""The configuration of GA/T 1400 (VIID): the listener for cameras and platforms, superior and subordinate platforms.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from sensegate.config.setting import ConfigRecord, doc

_CODE = re.compile(r"\d{20}", re.ASCII)
_DETAILS = frozenset({"3", "4", "7", "9", "11", "12", "13", "14", "15", "16"})


class ViidDeviceConfig(ConfigRecord, frozen=True):
    """Deviations of one camera or platform from the standard."""

    device: Annotated[str, doc("its id, 20 digits")]
    batch_reply: Annotated[
        Literal["list", "single"],
        doc("single: it does not understand ResponseStatusListObject; answer with one status for all objects"),
    ] = "list"
    compact_challenge: Annotated[bool, doc("it needs a digest challenge without spaces after the commas")] = False
    algorithms: Annotated[
        tuple[Literal["MD5", "SHA-256"], ...],
        doc("digest algorithms to offer, in this order; empty: viid.algorithms"),
    ] = ()


class ViidSuperiorConfig(ConfigRecord, frozen=True):
    """A superior platform, at which this gateway registers and whose subscriptions it serves."""

    name: Annotated[str, doc("short name, for logs and metrics")]
    url: Annotated[str, doc("its address without a path: http(s)://HOST:PORT")]
    server_id: Annotated[str, doc("its id, 20 digits: it subscribes with this User-Identify")]
    password_file: Annotated[str, doc("file with the password of this gateway there")]
    username: Annotated[str, doc("user name for the digest; empty: local_id")] = ""
    local_id: Annotated[str, doc("id of this gateway there; empty: viid.server_id")] = ""
    id_map: Annotated[tuple[str, ...], doc("ids of devices that differ there: `OURS=THEIRS`, 20 digits each")] = ()
    ca_file: Annotated[str, doc("PEM of the CA of its certificate, for https")] = ""
    keepalive_s: Annotated[float, doc("interval of keep-alive requests", least=1, most=86_400)] = 60.0
    backoff_max_s: Annotated[float, doc("longest wait before the next registration", least=0.05, most=86_400)] = 60.0
    batch_max: Annotated[int, doc("most objects in one notification", least=1, most=10_000)] = 200
    grade_max: Annotated[int, doc("observations of a higher grade are withheld", least=1, most=4)] = 3
    catalogue: Annotated[bool, doc("send the catalogue of cameras (APEs) after each registration")] = True


class ViidSubordinateConfig(ConfigRecord, frozen=True):
    """A subordinate platform, to which this gateway subscribes once it has registered here."""

    device: Annotated[str, doc("its id, 20 digits: a registered device with the profile sensegate/viid")]
    url: Annotated[str, doc("its address without a path: http(s)://HOST:PORT")]
    details: Annotated[
        str,
        doc("subscribed details, comma separated: 3 cameras, 4 their state, 11 persons, 12 faces, 13 vehicles …"),
    ] = "3,11,12,13,14"
    resource: Annotated[str, doc("id of a device, tollgate or platform, or a division code; empty: everything")] = ""
    report_interval_s: Annotated[
        int, doc("requested interval of notifications in seconds; 0: at once", least=0, most=86_400)
    ] = 1
    ca_file: Annotated[str, doc("PEM of the CA of its certificate, for https")] = ""

    def __post_init__(self) -> None:
        """Reject details that the standard does not define."""
        if not {word.strip() for word in self.details.split(",")} <= _DETAILS:
            raise ValueError(
                f"details: {self.details} is not allowed; give numbers of 3, 4, 7, 9, 11 to 16, comma separated"
            )


class ViidConfig(ConfigRecord, frozen=True):
    """GA/T 1400 (VIID): listener, accounts and platforms."""

    server_id: Annotated[str, doc("id of this gateway, 20 digits (type 503 or 504); empty: VIID is off")] = ""
    host: Annotated[str, doc("address to listen on")] = "127.0.0.1"
    port: Annotated[int, doc("port to listen on; 0: a free port below 32768", least=0, most=65_535)] = 0
    address: Annotated[
        str, doc("http(s)://HOST:PORT at which other platforms reach this listener; empty: host and port")
    ] = ""
    cert_file: Annotated[str, doc("PEM certificate chain of the listener; empty: no TLS")] = ""
    key_file: Annotated[str, doc("PEM private key")] = ""
    ca_file: Annotated[
        str, doc("PEM of the CA of the cameras' certificates; empty: no client certificate is required")
    ] = ""
    allow_plaintext: Annotated[bool, doc("listen beyond loopback without TLS, which camera networks often require")] = (
        False
    )
    realm: Annotated[str, doc("realm of the digest; after a change every password must be rotated")] = "viid"
    digest_key_file: Annotated[
        str, doc("file of the key that encrypts the stored password digests, 0600; empty: <directory>/viid.key")
    ] = ""
    algorithms: Annotated[
        tuple[Literal["MD5", "SHA-256"], ...],
        doc("digest algorithms to offer, in this order; old clients take the first"),
    ] = ("MD5", "SHA-256")
    body_bytes_max: Annotated[
        int, doc("largest request body; a larger one is answered with 413", least=1_024, most=1024**3)
    ] = 8 * 1024**2
    bodies_total_bytes_max: Annotated[
        int,
        doc(
            "most bytes of request bodies in memory at a time; further requests are answered with a retry",
            least=1_024,
            most=10**12,
        ),
    ] = 128 * 1024**2
    body_timeout_s: Annotated[float, doc("time limit for a complete request body", least=0.1, most=3_600)] = 30.0
    connections_max: Annotated[int, doc("most open connections", least=16, most=1_000_000)] = 4_000
    connections_per_address_max: Annotated[
        int,
        doc(
            "most open connections from one address; 0: half of connections_max; behind a proxy give connections_max",
            least=0,
            most=1_000_000,
        ),
    ] = 0
    requests_per_device_max: Annotated[
        int, doc("most requests with a body that one device or platform may have open", least=1, most=100_000)
    ] = 100
    session_timeout_s: Annotated[
        float, doc("a registration lapses this long after the last request", least=1, most=604_800)
    ] = 300.0
    session_binding: Annotated[
        Literal["address", "none"],
        doc("address: accept a User-Identify only from the address that registered; none: from any (behind a proxy)"),
    ] = "address"
    unregister_auth: Annotated[
        Literal["digest", "session"],
        doc("authentication of unregister: a digest, or User-Identify alone (clients differ, the standard is unclear)"),
    ] = "digest"
    time_zone: Annotated[str, doc("TimeZone in the answer to System/Time; clients differ in what they accept")] = (
        "Asia/Shanghai"
    )
    requests_per_s: Annotated[
        float, doc("most requests per second of one device, averaged over ten seconds", least=0.1, most=1_000_000)
    ] = 200.0
    nonce_lifetime_s: Annotated[float, doc("lifetime of a nonce", least=1, most=86_400)] = 300.0
    auth_failures_max: Annotated[
        int, doc("wrong passwords of a device from one address after which it is locked out", least=1, most=100_000)
    ] = 10
    lockout_s: Annotated[float, doc("duration of the lock-out", least=1, most=604_800)] = 300.0
    publish_online: Annotated[
        bool, doc("publish readings of `online`: true at a registration, false when it ends or lapses")
    ] = False
    catalogue_cameras_max: Annotated[
        int,
        doc("most cameras that one platform may register by its catalogue (APEs); 0: none", least=0, most=10_000_000),
    ] = 10_000
    datum: Annotated[
        Literal["", "wgs84", "cgcs2000", "gcj02", "bd09"],
        doc("datum of the coordinates in catalogues, which do not state it; empty: unknown, coordinates are ignored"),
    ] = ""
    devices: Annotated[tuple[ViidDeviceConfig, ...], doc("deviations of single cameras or platforms")] = ()
    superiors: Annotated[tuple[ViidSuperiorConfig, ...], doc("superior platforms")] = ()
    subordinates: Annotated[tuple[ViidSubordinateConfig, ...], doc("subordinate platforms")] = ()

    def __post_init__(self) -> None:
        """Reject malformed ids and an empty list of algorithms."""
        codes = [("server_id", self.server_id)] if self.server_id or self.superiors or self.subordinates else []
        codes += [("superiors[].server_id", superior.server_id) for superior in self.superiors]
        codes += [("superiors[].local_id", superior.local_id) for superior in self.superiors if superior.local_id]
        for superior in self.superiors:
            pairs = [pair.partition("=") for pair in superior.id_map]
            codes += [("superiors[].id_map", code) for ours, _, theirs in pairs for code in (ours, theirs)]
        codes += [("subordinates[].device", subordinate.device) for subordinate in self.subordinates]
        for key, code in codes:
            if not _CODE.fullmatch(code):
                raise ValueError(f"{key}: '{code[:40]}' is not 20 digits")
        if not self.algorithms:
            raise ValueError("algorithms: the list is empty; name at least one")
