"""What goes over the pipes between the gateway and a child for scripts: MessagePack, each message with its length."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

LENGTH: Final = struct.Struct(">I")
MESSAGE_BYTES_MAX: Final = 64 * 1024**2
"""A longer message is not sent, and not read."""
PROGRESS: Final = struct.Struct("=Q")
"""Shared memory: one more than the place in its request of the frame under way (`LOADING`: of the script); or 0."""
LOADING: Final = 1 << 32
NO_PORT: Final = -1


class Limits(msgspec.Struct, frozen=True):
    """What one call of a script may use up."""

    cpu_ms: float = 5.0
    """CPU time of a call; the engine stops it then. Native code that runs on is killed with its process soon after."""
    mean_cpu_ms: float = 1.0
    """CPU time of a call on average; a script that is slower is suspended."""
    memory_mb: float = 16.0
    """Memory of the script's room, its engine included (about 0.4 MB)."""
    stack_kb: int = 256
    output_kb: float = 64.0
    """Its result as JSON."""


class Source(msgspec.Struct, frozen=True):
    """A script with all that decides what it answers."""

    key: str
    """Names this script in this version with these options; another text or option has another key."""
    file: str
    """Its name in what is told of it."""
    text: str
    entry: str = "auto"
    """Name of the function that decodes; ``auto`` looks for those that the field knows."""
    arguments: tuple[str, ...] = ()
    """Its arguments: ``input`` alone, or of ``bytes``, ``port``, ``variables``, ``received``; empty: by its name."""
    take: str = "data"
    """``data``: what it decodes; ``normalized``: what `normalizeUplink` makes of that; ``both``."""
    variables: str = "{}"
    """Variables of the device, as JSON."""
    limits: Limits = Limits()
    learned: str = ""
    """`Facts.learned` of an earlier loading: it need not be learned again, nor be looked at so closely."""


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A frame for a script."""

    payload: bytes
    port: int
    received_ms: int


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Frames for one script, in their order."""

    key: str
    calls: list[Call]
    cpu_ms: float
    """In place of the limit that its source gives a call."""


class Request(msgspec.Struct, frozen=True):
    """Scripts that the child does not have yet, and frames."""

    load: list[Source] = []
    runs: list[Run] = []


class Facts(msgspec.Struct, frozen=True):
    """What was found in a script when it was loaded."""

    key: str
    error: str = ""
    """Why it cannot be used; empty: it can."""
    line: int = 0
    """Line of the error in its file; 0 where it has none."""
    entry: str = ""
    arguments: tuple[str, ...] = ()
    normalises: bool = False
    encodes: bool = False
    """Whether it has `encodeDownlink`."""
    learned: str = ""
    """What it does to its room when it is loaded."""


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of a frame."""

    kind: str
    """Empty: `text` is the result as JSON, ``{"d": data, "w": warnings}``. Else the word of a `QuarantineReason`."""
    text: str
    costly: bool = False
    """Whether it used up CPU time or memory: what an attack would be after."""


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request."""

    loaded: list[Facts]
    outcomes: list[list[Outcome]]
    """By run, by call. A run ends early after a call that used up a limit, or when the whole is too slow."""
    cpu_us: list[float]
    """CPU time of each run."""


class Hello(msgspec.Struct, frozen=True):
    """What a child says before its first request: what it has given up."""

    sealed: tuple[str, ...]
