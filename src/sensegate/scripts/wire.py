"""Messages between the gateway and a script child process: MessagePack, each preceded by its length."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

LENGTH: Final = struct.Struct(">I")
MESSAGE_BYTES_MAX: Final = 64 * 1024**2
"""Greatest length of a message; a longer one is neither sent nor read."""
PROGRESS: Final = struct.Struct("=Q")
"""Shared memory: index of the current frame within its request plus 1 (plus `LOADING`: of the script), or 0."""
LOADING: Final = 1 << 32
BATCHED: Final = 1 << 33
"""Added to the index of the first frame of several that are called in one evaluation."""
SEPARATOR: Final = "\x1e"
"""Stands between the texts of several results: no JSON has it."""
REJECTED: Final = "script_refused"
FAILED: Final = "script_failed"
LIMIT: Final = "script_limit"
STATE: Final = "script_state"
"""Values of `QuarantineReason`."""
RESULT_KINDS: Final = frozenset({"", REJECTED, FAILED, LIMIT, STATE})
NO_PORT: Final = -1
ENCODE: Final = "encode"
"""Value of `ScriptSource.take` for a downlink: the payload of a call is its data as ASCII JSON."""


class ScriptLimits(msgspec.Struct, frozen=True):
    """Limits of one call of a script."""

    cpu_ms: float = 5.0
    """CPU time of a call at which the engine stops it. Native code that continues is killed with its process."""
    mean_cpu_ms: float = 1.0
    """Mean CPU time of a call; a slower script is suspended."""
    memory_mb: float = 16.0
    """Memory of the script's realm, including the engine (about 0.4 MB)."""
    stack_kb: int = 256
    output_kb: float = 64.0
    """Greatest size of the result as JSON."""


class ScriptSource(msgspec.Struct, frozen=True):
    """A script with everything that determines its result."""

    key: str
    """Identifies this script in this version with these options; another text or option has another key."""
    file: str
    """Its file name in messages."""
    text: str
    entry: str = "auto"
    """Name of the decoding function; ``auto``: the first of the usual names."""
    arguments: tuple[str, ...] = ()
    """Arguments: ``input`` alone, or of ``bytes``, ``port``, ``variables``, ``received``; empty: by its signature."""
    take: str = "data"
    """``data``: what it decodes; ``normalized``: what `normalizeUplink` makes of that; ``both``; `ENCODE`."""
    variables: str = "{}"
    """Variables of the device, as JSON."""
    limits: ScriptLimits = ScriptLimits()
    inspection: str = ""
    """`ScriptInfo.inspection` of an earlier load; with it the script is neither inspected nor verified closely."""


class ScriptCall(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A frame for a script."""

    payload: bytes
    port: int
    received_ms: int


class ScriptRun(msgspec.Struct, frozen=True, array_like=True):
    """Frames for one script, in order."""

    key: str
    calls: list[ScriptCall]
    cpu_ms: float
    """CPU limit of these calls, instead of the one of the source."""
    singly: bool = False
    """True if each call is evaluated by itself, so that the call that ends the process is known."""


class ScriptRequest(msgspec.Struct, frozen=True):
    """Scripts that the child does not have yet, and frames."""

    load: list[ScriptSource] = []
    runs: list[ScriptRun] = []


class ScriptInfo(msgspec.Struct, frozen=True):
    """Result of loading a script."""

    key: str
    error: str = ""
    """Reason why it cannot be used; empty: it can."""
    line: int = 0
    """Line of the error in its file; 0 if unknown."""
    entry: str = ""
    arguments: tuple[str, ...] = ()
    normalises: bool = False
    encodes: bool = False
    """True if it has `encodeDownlink`."""
    inspection: str = ""
    """Effects of the script on its realm when it is loaded, as JSON."""


class DecodedCalls(msgspec.Struct, frozen=True, array_like=True, tag="d", gc=False):
    """Results of successive calls that all decoded their frames."""

    count: int
    text: str
    """The texts of their results, with `SEPARATOR` between them."""


class CallResult(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """Result of one call."""

    kind: str
    """Empty: `text` is the result as JSON, ``{"d": data, "w": warnings}``. Otherwise a `QuarantineReason` value."""
    text: str
    costly: bool = False
    """True if it used up CPU time or memory, as an attack would."""


class SlowCall(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A call that took more CPU time than the mean of its script may be."""

    index: int
    """Its index in the run."""
    cpu_ms: float


class ScriptReply(msgspec.Struct, frozen=True):
    """Reply to a request."""

    loaded: list[ScriptInfo]
    results: list[list[CallResult | DecodedCalls]]
    """Results by run, in the order of its calls; ends early after a call that used up a limit, or if all is slow."""
    cpu_us: list[float]
    """CPU time of each run."""
    slow: list[list[SlowCall]]
    """Slow calls of each run, as far as they were evaluated by themselves."""


class ChildHello(msgspec.Struct, frozen=True):
    """First message of a child: the sandbox restrictions in force."""

    sandbox: tuple[str, ...]
