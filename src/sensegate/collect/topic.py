"""Mapping of MQTT topics to NATS subjects, as in nats-server.

Each level becomes a token: an empty level is ``/``, a ``.`` within a level is ``//`` (README-MQTT of
nats-server; tested against the server itself).
"""

from __future__ import annotations


def subject_of(topic: str) -> str:
    """Return the NATS subject of an MQTT topic (without wildcards)."""
    return ".".join(level.replace(".", "//") or "/" for level in topic.split("/"))


def topic_of(subject: bytes) -> str:
    r"""Return the MQTT topic of a NATS subject; bytes that are not UTF-8 stay visible as ``\xNN``."""
    text = subject.decode("utf-8", "backslashreplace")
    if "/" not in text:
        return text.replace(".", "/")
    return "/".join("" if part == "/" else part.replace("//", ".") for part in text.split("."))
