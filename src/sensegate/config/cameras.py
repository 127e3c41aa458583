"""The configuration of cameras whose alarm streams the gateway fetches.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from sensegate.config.setting import ConfigRecord, doc


class CameraConfig(ConfigRecord, frozen=True):
    """A camera, recorder or appliance whose alarm stream the gateway fetches."""

    device: Annotated[str, doc("id of the registered device to which the messages belong")]
    make: Annotated[
        Literal["hikvision", "dahua"],
        doc("hikvision: …/ISAPI/Event/notification/alertStream; dahua: …/cgi-bin/eventManager.cgi?action=attach"),
    ]
    url: Annotated[
        str,
        doc("http(s)://HOST[:PORT], to which the vendor's path is added, or a complete address; see egress.cameras"),
    ]
    user: Annotated[str, doc("user name at the camera (digest); use an account without other rights")] = ""
    password_file: Annotated[str, doc("file with the password")] = ""
    password_env: Annotated[str, doc("environment variable with the password, instead of the file")] = ""
    ca_file: Annotated[str, doc("PEM of the CA of the camera's certificate; empty: the system's CAs")] = ""
    pin_sha256: Annotated[
        str, doc("SHA-256 fingerprint (hex) of the camera's certificate, instead of a CA: most are self-signed")
    ] = ""
    idle_timeout_s: Annotated[
        float,
        doc("reopen a stream that brings no complete part (a heartbeat counts) for this long", least=0.1, most=86_400),
    ] = 60.0
    connect_timeout_s: Annotated[float, doc("time limit for the answer to the request", least=0.1, most=3_600)] = 10.0
    backoff_max_s: Annotated[
        float, doc("longest wait between attempts (exponential back-off with full jitter)", least=0.1, most=86_400)
    ] = 60.0
    auth_failure_wait_s: Annotated[
        float,
        doc(
            "wait after a rejected password, because cameras lock out accounts after several attempts",
            least=0.1,
            most=604_800,
        ),
    ] = 300.0
    inflight_max: Annotated[
        int, doc("most messages that await their commit; beyond it the stream is not read", least=1, most=10_000)
    ] = 64

    def __post_init__(self) -> None:
        """Reject values that cannot work; the decoder turns the error into a `ConfigError`."""
        if self.pin_sha256 and (
            len(self.pin_sha256) != 64 or not set(self.pin_sha256.lower()) <= set("0123456789abcdef")
        ):
            raise ValueError("pin_sha256: the fingerprint is not 64 hex digits")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("url: the address does not begin with http:// or https://")
        if "@" in self.url.split("/", 3)[2]:
            raise ValueError("url: the address holds a user or password; give user and password_file")
