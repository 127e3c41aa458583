"""The configuration of GA/T 1400 (VIID): the listener for cameras and platforms, platforms above and below.

A part of `config.py`, by which it is read.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from sensegate.config.setting import Record, told

_CODE = re.compile(r"\d{20}", re.ASCII)
_DETAILS = frozenset({"3", "4", "7", "9", "11", "12", "13", "14", "15", "16"})


class ViidDeviceConfig(Record, frozen=True):
    """What one camera or platform cannot do as the standard says."""

    device: Annotated[str, told("its code, 20 digits")]
    batch_reply: Annotated[
        Literal["list", "single"], told("single: it knows no ResponseStatusListObject; all is answered by one status")
    ] = "list"
    compact: Annotated[bool, told("it needs a challenge without blanks behind the commas")] = False
    algorithms: Annotated[
        tuple[Literal["MD5", "SHA-256"], ...], told("digests that it is offered, in this order; empty: viid.algorithms")
    ] = ()


class ViidSuperiorConfig(Record, frozen=True):
    """A platform above, at which this gateway registers and to whose subscriptions it answers."""

    name: Annotated[str, told("short name, for logs and metrics")]
    url: Annotated[str, told("its address, without path: http(s)://HOST:PORT")]
    server_id: Annotated[str, told("its own code, 20 digits: it subscribes under this User-Identify")]
    password_file: Annotated[str, told("file with our password there")]
    username: Annotated[str, told("user name for the digest; empty: our code there")] = ""
    local_id: Annotated[str, told("our code there; empty: viid.server_id")] = ""
    ids: Annotated[
        tuple[str, ...], told("codes of devices that have another one there: `OURS=THEIRS`, 20 digits each")
    ] = ()
    ca_file: Annotated[str, told("authority of its certificate, for https")] = ""
    keepalive_s: Annotated[float, told("time between signs of life")] = 60.0
    backoff_max_s: Annotated[float, told("longest wait before registering again")] = 60.0
    batch_max: Annotated[int, told("most objects in one notification")] = 200
    grade_max: Annotated[int, told("observations of a higher grade are withheld")] = 3
    catalogue: Annotated[bool, told("send our cameras (APEs) after each registration")] = True


class ViidSubordinateConfig(Record, frozen=True):
    """A platform below, to which this gateway subscribes once it has registered here."""

    device: Annotated[str, told("its code, 20 digits: a device in the registry, with the profile sensegate/viid")]
    url: Annotated[str, told("its address, without path: http(s)://HOST:PORT")]
    details: Annotated[
        str,
        told("what is subscribed to, comma separated: 3 cameras, 4 their state, 11 persons, 12 faces, 13 vehicles …"),
    ] = "3,11,12,13,14"
    resource: Annotated[str, told("code of a device, tollgate or platform, or of a division; empty: all it has")] = ""
    report_interval_s: Annotated[int, told("seconds between notifications that are asked for")] = 1
    ca_file: Annotated[str, told("authority of its certificate, for https")] = ""

    def __post_init__(self) -> None:
        """Refuse details that no standard knows."""
        if not {word.strip() for word in self.details.split(",")} <= _DETAILS:
            raise ValueError(f"details: {self.details}: of 3, 4, 7, 9, 11 to 16, comma separated")


class ViidConfig(Record, frozen=True):
    """GA/T 1400 (VIID)."""

    server_id: Annotated[str, told("our own code, 20 digits (type 503 or 504); empty: VIID is not spoken")] = ""
    host: Annotated[str, told("address to listen on")] = "127.0.0.1"
    port: Annotated[int, told("port to listen on; 0 takes a free one below 32768")] = 0
    address: Annotated[
        str, told("http(s)://HOST:PORT by which other platforms reach this listener; empty: where it listens")
    ] = ""
    cert_file: Annotated[str, told("PEM certificate chain of the listener; empty: no TLS")] = ""
    key_file: Annotated[str, told("PEM private key")] = ""
    ca_file: Annotated[str, told("PEM of the authority that signs cameras' certificates; empty: none asked for")] = ""
    plain: Annotated[bool, told("listen beyond loopback without TLS, as cameras' networks often demand")] = False
    realm: Annotated[str, told("realm of the digest; with another one every password must be rotated")] = "viid"
    seal_file: Annotated[
        str, told("file of the key under which passwords' digests lie, 0600; empty: <directory>/viid.key")
    ] = ""
    algorithms: Annotated[
        tuple[Literal["MD5", "SHA-256"], ...],
        told("digests that are offered, in this order; old clients take the first"),
    ] = ("MD5", "SHA-256")
    body_bytes_max: Annotated[int, told("largest body; more is refused with 413")] = 8 * 1024**2
    bodies_bytes_max: Annotated[int, told("most bytes of bodies that are read at a time; more are told to wait")] = (
        128 * 1024**2
    )
    body_timeout_s: Annotated[float, told("a body must be complete after this")] = 30.0
    connections_max: Annotated[int, told("most open connections")] = 4_000
    session_s: Annotated[float, told("a registration lapses so long after the last request")] = 300.0
    bind: Annotated[
        Literal["address", "none"],
        told("address: User-Identify is believed from where it registered only; none: from anywhere (behind a proxy)"),
    ] = "address"
    unregister: Annotated[
        Literal["digest", "session"],
        told("what takes leave: a digest, or User-Identify alone (clients differ, the standard's text is unclear)"),
    ] = "digest"
    time_zone: Annotated[str, told("TimeZone in the answer to System/Time; clients differ in what they read")] = (
        "Asia/Shanghai"
    )
    requests_per_s: Annotated[float, told("most requests a second of one device over ten seconds")] = 200.0
    nonce_s: Annotated[float, told("life of a nonce")] = 300.0
    failures_max: Annotated[int, told("so many wrong passwords of a device from one address lock it out")] = 10
    lockout_s: Annotated[float, told("for so long")] = 300.0
    states: Annotated[
        bool, told("readings of `online`: true at a registration, false when it ends or lapses (silence)")
    ] = False
    adopt_max: Annotated[
        int, told("most cameras that one platform may register behind itself by its catalogue (APEs); 0: none")
    ] = 10_000
    datum: Annotated[
        Literal["", "wgs84", "cgcs2000", "gcj02", "bd09"],
        told("datum of the places in catalogues, which do not say; empty: unknown, places are not taken"),
    ] = ""
    devices: Annotated[tuple[ViidDeviceConfig, ...], told("what single cameras or platforms cannot do")] = ()
    superiors: Annotated[tuple[ViidSuperiorConfig, ...], told("platforms above")] = ()
    subordinates: Annotated[tuple[ViidSubordinateConfig, ...], told("platforms below")] = ()

    def __post_init__(self) -> None:
        """Refuse codes that are none."""
        codes = [("server_id", self.server_id)] if self.server_id or self.superiors or self.subordinates else []
        codes += [("superiors[].server_id", superior.server_id) for superior in self.superiors]
        codes += [("superiors[].local_id", superior.local_id) for superior in self.superiors if superior.local_id]
        for superior in self.superiors:
            pairs = [pair.partition("=") for pair in superior.ids]
            codes += [("superiors[].ids", code) for ours, _, theirs in pairs for code in (ours, theirs)]
        codes += [("subordinates[].device", subordinate.device) for subordinate in self.subordinates]
        for key, code in codes:
            if not _CODE.fullmatch(code):
                raise ValueError(f"{key}: '{code[:40]}' is not 20 digits")
        if not self.algorithms:
            raise ValueError("algorithms: name at least one")
