"""Mapping of MQTT topic filters to NATS subjects, in which permissions are expressed."""

from __future__ import annotations

from sensegate.errors import ConfigError

_NATS_WILDCARDS = frozenset("*>")


def subject_of(topic: str) -> str:
    """Return the subject of an MQTT topic or topic filter, as nats-server maps it.

    ``/`` becomes ``.``, ``.`` becomes ``//``, an empty level ``/``, ``+`` becomes ``*`` and ``#`` becomes ``>``.

    Raises:
        ConfigError: the topic contains white space, a wildcard inside a level, or a character that is a wildcard only
            in subjects and would widen the permission.
    """
    if not topic or any(character.isspace() or ord(character) < 32 for character in topic):
        raise ConfigError(
            f"topic {topic[:80]!r} is empty or contains white space", key="topic", remedy="remove the white space"
        )
    levels = topic.split("/")
    parts: list[str] = []
    for at, level in enumerate(levels):
        if level == "+":
            parts.append("*")
        elif level == "#" and at == len(levels) - 1:
            parts.append(">")
        elif _NATS_WILDCARDS & set(level) or "+" in level or "#" in level:
            remedy = "use wildcards only as whole levels: + or, at the end, #; * and > are not allowed"
            raise ConfigError(
                f"level {level[:40]!r} of topic {topic[:80]!r} is not allowed", key="topic", remedy=remedy
            )
        else:
            parts.append(level.replace(".", "//") or "/")
    return ".".join(parts)
