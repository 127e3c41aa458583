"""The configuration of cameras whose events are fetched: alarm streams that stay open.

A part of `config.py`, by which it is read.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from sensegate.config.setting import Record, told

_PIN = re.compile(r"[0-9A-Fa-f]{64}")


class CameraConfig(Record, frozen=True):
    """A camera, recorder or box whose alarm stream is fetched."""

    device: Annotated[str, told("id of the registered device; messages come in under it")]
    make: Annotated[
        Literal["hikvision", "dahua"],
        told("hikvision: …/ISAPI/Event/notification/alertStream; dahua: …/cgi-bin/eventManager.cgi?action=attach"),
    ]
    url: Annotated[
        str, told("http(s)://HOST[:PORT], to which the make's path is added, or a whole address; see egress.cameras")
    ]
    user: Annotated[str, told("user name at the camera (digest); give one that may do nothing else")] = ""
    password_file: Annotated[str, told("file with its password")] = ""
    password_env: Annotated[str, told("environment variable with its password, in place of the file")] = ""
    ca_file: Annotated[str, told("authority of its certificate; empty: those of the system")] = ""
    pin_sha256: Annotated[
        str, told("fingerprint (SHA-256, hex) of its certificate, in place of an authority: most sign their own")
    ] = ""
    silence_s: Annotated[
        float, told("a stream without a whole part (a heartbeat is one) for so long is opened anew")
    ] = 60.0
    connect_s: Annotated[float, told("an answer must come within this")] = 10.0
    backoff_max_s: Annotated[float, told("longest wait between attempts; a random part of a doubling time")] = 60.0
    refused_wait_s: Annotated[
        float, told("wait after a refused password: cameras lock users out who try too often")
    ] = 300.0
    inflight_max: Annotated[int, told("most messages of it that wait for their commit; then it is read no more")] = 64

    def __post_init__(self) -> None:
        """Refuse what cannot work; the decoder makes a `ConfigError` of it."""
        for name in ("silence_s", "connect_s", "backoff_max_s", "refused_wait_s", "inflight_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0")
        if self.pin_sha256 and (
            len(self.pin_sha256) != 64 or not set(self.pin_sha256.lower()) <= set("0123456789abcdef")
        ):
            raise ValueError("pin_sha256: is not 64 hex digits")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("url: must begin with http:// or https://")
        if "@" in self.url.split("/", 3)[2]:
            raise ValueError("url: holds a user or password; give user and password_file")
