"""Codec scripts: the maker's own JavaScript decodes the frame (LoRa Alliance TS013, and the shapes before it).

Entries, in the order in which ``auto`` looks for them: ``decodeUplink({bytes, fPort, recvTime, variables})``,
``Decode(fPort, bytes, variables)``, ``Decoder(bytes, port)``, ``rawDecode``, ``decode``, ``decoder``, and what a script
exports by ``module.exports``. The tree is the data that the script returns. Its errors refuse the message; its warnings
become the flag `warned` on all readings of the message.

A script must be deterministic: its clock stands at the moment of reception, it has no random numbers, and its top level
runs anew for each frame. It runs in a child process that has access to nothing else (`sensegate.scripts`), within
limits on its resources.
"""

from __future__ import annotations

import hashlib
import json as json_module
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from weakref import WeakValueDictionary

import msgspec

from sensegate.decode.formats import json
from sensegate.decode.frame import (
    BatchParse,
    FormatContext,
    Parse,
    PayloadFormat,
    PayloadFrame,
    WarnedList,
    WarnedObject,
)
from sensegate.decode.part import ProfilePart, Scalar, description
from sensegate.errors import ConfigError, ProfileError, Rejected
from sensegate.model import QuarantineReason
from sensegate.scripts import pool
from sensegate.scripts.pool import PendingCall
from sensegate.scripts.wire import ENCODE, NO_PORT, CallResult, ScriptCall, ScriptInfo, ScriptLimits, ScriptSource

TEXT_BYTES_MAX: Final = 1 << 20
"""Longest script."""
_INSPECTED_MAX: Final = 1_024
_NUMBER_PREFIX: Final = "\0"
_NOT_FINITE: Final = {
    f"{_NUMBER_PREFIX}NaN": float("nan"),
    f"{_NUMBER_PREFIX}Infinity": float("inf"),
    f"{_NUMBER_PREFIX}-Infinity": float("-inf"),
}


class LimitsPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resource limits of one call of a script."""

    cpu_ms: Annotated[
        float, msgspec.Meta(gt=0, le=200), description("CPU time of a call, after which it is stopped")
    ] = 5.0
    mean_cpu_ms: Annotated[
        float, msgspec.Meta(gt=0, le=20), description("mean CPU time of a call; a slower script is suspended")
    ] = 1.0
    memory_mb: Annotated[float, msgspec.Meta(ge=2, le=48), description("memory of the script")] = 16.0
    output_kb: Annotated[float, msgspec.Meta(gt=0, le=256), description("size of its result as JSON")] = 64.0


class ScriptPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The maker's codec script."""

    file: Annotated[str, description("file name of the script, beside the profile: lht65.js")]
    entry: Annotated[str, description("name of the decoding function; auto: one of the usual names")] = "auto"
    arguments: Annotated[
        tuple[Literal["input", "bytes", "port", "variables", "received"], ...],
        description(
            "arguments of the function: input alone (TS013), or the others in order; absent: by its parameter names"
        ),
    ] = ()
    take: Annotated[
        Literal["data", "normalized", "both"],
        description(
            "data: the decoded data; normalized: the result of its normalizeUplink; both: an object of the two"
        ),
    ] = "data"
    variables: Annotated[
        dict[str, Scalar], description("variables passed to the script, the same for all devices")
    ] = {}
    limits: Annotated[LimitsPart, description("resource limits of a call")] = LimitsPart()


class ScriptParse(BatchParse):
    """The parse of one script. Many frames go to the child process in one exchange."""

    def __init__(self, source: ScriptSource, facts: ScriptInfo) -> None:
        self.key = source.key
        self.source = source
        self.facts = facts

    def __call__(self, frame: PayloadFrame) -> Any:
        [result] = self.many([(self, frame)])
        if isinstance(result, Rejected):
            raise result
        return result

    @staticmethod
    def many(requests: Sequence[tuple[Any, PayloadFrame]]) -> list[Any]:
        calls = [
            PendingCall(
                parse.source,
                ScriptCall(frame.payload, NO_PORT if frame.port is None else frame.port, frame.received // 1_000),
                frame.topic,
            )
            for parse, frame in requests
        ]
        results = pool.decoding_pool().run(calls)
        return [_tree(result, frame.nesting_max) for result, (_, frame) in zip(results, requests, strict=True)]


class EncodedDownlink(msgspec.Struct, frozen=True):
    """The frame that a script has made of a downlink's data."""

    bytes: list[int]
    port: int | None = None


class DownlinkScript:
    """The encoder of a script for downlinks (`encodeDownlink`, `Encode`, `Encoder`), and its decoder if it has one."""

    def __init__(self, source: ScriptSource) -> None:
        self._encode = msgspec.structs.replace(
            source, key=f"{source.key} encode", entry="auto", arguments=(), take=ENCODE, inspection=""
        )
        self._decode = msgspec.structs.replace(
            source, key=f"{source.key} decode", entry="decodeDownlink", arguments=(), take="data", inspection=""
        )

    def problem(self) -> str:
        """Return why the script cannot encode; empty if it can."""
        return _inspect(self._encode).error

    @property
    def decodes(self) -> bool:
        """Return whether the script has `decodeDownlink`."""
        return not _inspect(self._decode).error

    def encode(self, data: object, port: int) -> tuple[bytes, int]:
        """Return bytes and port of the frame for a downlink's data; port 0: as the script says.

        Raises:
            ConfigError: the script refuses the data, or fails.
        """
        payload = json_module.dumps(data).encode("ascii")  # the engine reads characters as bytes
        call = ScriptCall(payload, port or NO_PORT, 0)
        [result] = pool.decoding_pool().run([PendingCall(self._encode, call, "downlink")])
        if result.kind:
            raise ConfigError(f"the codec script: {result.text}", key="parameters", remedy="correct the values")
        frame = _decode_downlink(result.text).d
        return bytes(frame.bytes), port or frame.port or 0

    def decode(self, frame: bytes, port: int) -> Any:
        """Return the data that the script decodes a downlink to. Raises `ConfigError` if it refuses it."""
        [result] = pool.decoding_pool().run([PendingCall(self._decode, ScriptCall(frame, port, 0), "downlink")])
        if result.kind:
            raise ConfigError(f"decodeDownlink: {result.text}", key="data")
        return _decode(result.text).d


def encoder_of(parses: Iterable[object]) -> DownlinkScript | None:
    """Return the downlink functions of the first codec script among the parses of a profile's rules."""
    return next((DownlinkScript(parse.source) for parse in parses if isinstance(parse, ScriptParse)), None)


class _Result(msgspec.Struct, frozen=True):
    d: Any = msgspec.UNSET
    w: tuple[str, ...] = ()


class _DownlinkResult(msgspec.Struct, frozen=True):
    d: EncodedDownlink


_decode = msgspec.json.Decoder(_Result).decode
_decode_downlink = msgspec.json.Decoder(_DownlinkResult).decode


def _tree(outcome: CallResult, nesting_max: int) -> Any:
    """Return the tree of an outcome, or the rejection."""
    text = outcome.text
    if outcome.kind:
        return Rejected(QuarantineReason(outcome.kind), text)
    if text.count("[") + text.count("{") > nesting_max and json.depth(text.encode()) > nesting_max:
        return Rejected(QuarantineReason.TOO_DEEP, f"the script's result is nested more than {nesting_max} deep")
    try:
        result = _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:  # lone surrogates
        return Rejected(QuarantineReason.SCRIPT_FAILED, f"the script's result cannot be read: {error}")
    tree = result.d
    if tree is msgspec.UNSET:
        return Rejected(QuarantineReason.SCRIPT_FAILED, "the script's result cannot be written as JSON")
    if '"\\u0000' in text:
        tree = _numbers(tree)
    if not result.w:
        return tree
    return (WarnedList if isinstance(tree, list) else WarnedObject)(tree, result.w)


def _numbers(tree: Any) -> Any:
    """Return a tree with the numbers that JSON cannot express."""
    if isinstance(tree, dict):
        return {key: _numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_numbers(value) for value in tree]
    return _NOT_FINITE.get(tree, tree) if isinstance(tree, str) else tree


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────

_parses: WeakValueDictionary[str, ScriptParse] = WeakValueDictionary()
_facts: OrderedDict[str, ScriptInfo] = OrderedDict()
"""Facts by key of the source, so that a reloaded profile's script is not inspected a second time."""


def _compile(options: ScriptPart, context: FormatContext) -> Parse:
    path = context.folder / options.file
    if Path(options.file).name != options.file:
        raise context.error("the script must lie beside the profile", "file", remedy="give its name alone")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        remedy = f"put the script beside the profile: {path}"
        raise context.error(f"cannot read '{options.file}': {error.strerror}", "file", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise ProfileError("is not valid UTF-8", file=str(path), line=1, remedy="save it as UTF-8") from error
    if len(text) > TEXT_BYTES_MAX:
        raise context.error(f"'{options.file}' has more than {TEXT_BYTES_MAX} characters", "file")
    _check(options, context)
    source = _source(options, context, text)
    facts = _inspect(source)
    if facts.error and facts.line:
        raise ProfileError(facts.error, file=str(path), line=facts.line)
    if facts.error:
        key = "take" if "normalizeUplink" in facts.error else "file" if options.entry == "auto" else "entry"
        raise context.error(
            f"{options.file}: {facts.error}", key, remedy="see device_profiles/README.md, Codec scripts"
        )
    parse = _parses.get(source.key)
    if parse is None:  # rules of one script share its parse, and so the tree of a frame
        parse = _parses[source.key] = ScriptParse(msgspec.structs.replace(source, inspection=facts.inspection), facts)
    return parse


def _check(options: ScriptPart, context: FormatContext) -> None:
    name = options.entry
    if not all(part.isidentifier() or part.replace("$", "_").isidentifier() for part in name.split(".")):
        raise context.error(f"'{name}' is not a function name", "entry")
    given = options.arguments
    if len(set(given)) != len(given) or ("input" in given and len(given) > 1):
        raise context.error("`input` must stand alone, and no argument may occur twice", "arguments")


def _source(options: ScriptPart, context: FormatContext, text: str) -> ScriptSource:
    limits = options.limits
    fresh = ScriptSource(
        key="",
        file=options.file,
        text=text,
        entry=options.entry,
        arguments=options.arguments,
        take=options.take,
        variables=msgspec.json.encode(options.variables).decode(),
        limits=ScriptLimits(limits.cpu_ms, limits.mean_cpu_ms, limits.memory_mb, output_kb=limits.output_kb),
    )
    digest = hashlib.sha256(msgspec.msgpack.encode(fresh)).hexdigest()[:12]
    return msgspec.structs.replace(fresh, key=f"{context.profile}@{context.version} {options.file} {digest}")


def _inspect(source: ScriptSource) -> ScriptInfo:
    facts = _facts.get(source.key)
    if facts is None:
        facts = _facts[source.key] = pool.inspection_pool().inspect(source)
        if len(_facts) > _INSPECTED_MAX:
            _facts.popitem(last=False)
    return facts


FORMAT = PayloadFormat(_compile, ScriptPart, required=True)
