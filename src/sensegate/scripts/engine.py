"""A codec script in QuickJS: what a child holds for each script, and how it calls it.

Its top level is compiled as the body of a function, and each call starts by running that function again: top-level
variables are therefore local to one call, so that nothing passes from one device to the next through them, and a script
behaves as on network servers that load it anew for every frame. The realm around it (`harness.js`) is frozen and kept.
Properties that a script leaves on the global object are removed after the call; a name that it forgot to declare
becomes a variable of its top level from then on, anything else is rejected. Now and then a call is repeated in a fresh
realm: if the result differs, state was carried over, and the frame is rejected.

Many calls go into one evaluation of the engine, each with all of this; the evaluation has the limits of a single call.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import _quickjs  # type: ignore[import-not-found] # its parent package starts a thread on import

from sensegate.scripts.batching import BatchSize, pack
from sensegate.scripts.wire import (
    ENCODE,
    FAILED,
    LIMIT,
    NO_PORT,
    REJECTED,
    SEPARATOR,
    STATE,
    CallResult,
    DecodedCalls,
    ScriptCall,
    ScriptInfo,
    ScriptSource,
)

CALLS_MAX: Final = 20_000
"""Number of calls after which a realm is replaced, with whatever the engine accumulated."""
VERIFY_CALLS: Final = 4_096
"""Interval in calls at which a call is verified in a fresh realm; so is the second call of a script."""
VERIFY_FIRST: Final = 2
MEMORY_CHECK_CALLS: Final = 512
"""Interval in calls at which the memory of the realm is checked."""
ERRORS_MAX: Final = 300
"""Greatest length of the errors that a script returns, characters."""
LOAD_S: Final = 1.0
"""CPU time for loading, seconds."""
DEADLINE_FACTOR: Final = 1.5
DEADLINE_EXTRA_S: Final = 0.003
"""A process ends after a call's CPU limit times the factor plus this."""
LOAD_MEMORY: Final = 64 * 1024**2
REPEATS: Final = 4
"""Number of times that a call which threw null is repeated, to tell its reason by its least CPU time."""
IMPLICIT_MAX: Final = 256
"""Greatest number of undeclared names."""
HARNESS_LINE: Final = 200_000
"""Lines from here on belong to the harness, not to the script."""

ENTRIES: Final = ("decodeUplink", "Decode", "Decoder", "rawDecode", "decode", "decoder", "module.exports")
"""Names of decoding functions used by vendors; the first that exists is taken."""
ENCODERS: Final = ("encodeDownlink", "Encode", "Encoder")
"""Names of encoding functions."""
_OPTIONAL_ENTRIES: Final = ("normalizeUplink", "encodeDownlink")
_SHAPES: Final = {
    "decodeUplink": ("input",),
    "Decode": ("port", "bytes", "variables"),
    "encodeDownlink": ("input",),
    "decodeDownlink": ("input",),
    "Encode": ("port", "bytes", "variables"),
}
_BYTES_FIRST: Final = ("bytes", "port", "variables")
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
_WORDS: Final = frozenset(
    """
    break case catch class const continue debugger default delete do else enum export extends false finally for function
    if implements import in instanceof interface let new null package private protected public return static super
    switch this throw true try typeof var void while with yield await arguments eval undefined
    """.split()  # noqa: SIM905 - more readable than a list
)
_STACK: Final = "its stack is full"
_THREW_NULL: Final = "0"
_NO_MEMORY: Final = "!InternalError: out of memory"
_SHARED: Final = (_NO_MEMORY, "!RangeError: Maximum call stack", _THREW_NULL)
"""Beginnings of answers whose reason may be the other calls of an evaluation, with which a call shares a realm."""
OPENED_MAX: Final = 64
"""Greatest number of built-in members opened because a call failed to assign them."""
NAMES_MAX: Final = 4_096
_READ_ONLY = re.compile(r"'([A-Za-z_$][\w$]*)' is read-only")
_NOT_EXTENSIBLE = re.compile(r"object is not extensible|property is not configurable|could not delete property")
_ASSIGNED = re.compile(
    r"""(?:\.\s*|\[\s*["']|(?<![\w$.]))([A-Za-z_$][\w$]*)(?:["']\s*\])?\s*"""
    r"(?:[-+*/%&|^]|\*\*|<<|>>>?|&&|\|\||\?\?)?=(?![=>])"
)
"""A name that is assigned: a variable, or a member by dot or by text in brackets."""
_DELETED = re.compile(
    r"""\bdelete\b[\s(]*(?:[\w$.]+\.\s*|[\w$.]+\s*\[\s*["'])?([A-Za-z_$][\w$]*)\b"""
    r"""|\bdeleteProperty\s*\([^,()]{1,80},\s*["']([A-Za-z_$][\w$]*)["']"""
)
"""A name that is deleted: a global, or a member by dot or by text in brackets."""
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_ASIDE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`"""
    r"""|(?<=[(,=:\[!&|?{};])[ \t]*/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/""",
    re.DOTALL,
)
"""Comments, texts and regular expressions."""
_INTL = re.compile(r"(?:(?<![\w$.])(?<!typeof )|(?<=globalThis\.)(?=Intl\s*\.))Intl\b")
_ASKED_FIRST = re.compile(r"\btypeof Intl\b|\bglobalThis\.Intl\b(?!\s*\.)")
"""A script that asks whether `Intl` is there does without it."""
_NAMED_ZONE = re.compile(r"""\btimeZone\s*:\s*["'][A-Z]\w+/[A-Z][\w/+-]+["']""")
_LOCALE_OPTIONS = re.compile(r"toLocale(?:Date|Time)?String\s*\([^;()]{1,200},\s*[A-Za-z_$][\w$.]*\s*\)")
"""A time written in a form whose options have a name: they stand elsewhere."""
_ZONED = re.compile(r"toLocale(?:Date|Time)?String\s*\([^;]{0,200}?\btimeZone\b\s*(?::\s*(@UTC@)?)?")
_UTC = re.compile(r"""(?<=timeZone)(\s*:\s*)["'](?:Etc/)?(?:UTC|GMT)["']""")
_TARGET = re.compile(
    r"\b([A-Z]\w*(?:\.prototype)?)\s*(?:\.\s*[\w$]+|\[[^\]\n]{1,80}\])\s*=(?![=>])"
    r"|\b(?:assign|definePropert(?:y|ies))\s*\(\s*([A-Z]\w*(?:\.prototype)?)\s*,"
)
"""An object, by the name of a built-in one, on which a member is made."""
_CALL = re.compile(r"\(<input>:(\d+)")
_PLACE = re.compile(r"<input>:(\d+)")
_MODULE = re.compile(
    r"^[ \t]*(?:import\s*[\w{*'\"]|export\s+(?:default|const|let|var|function|class|async|\{))", re.MULTILINE
)


class LoadError(Exception):
    """The script cannot be used; holds the message and the line in its file (0: unknown)."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class _Inspection(NamedTuple):
    """Effects of a script on its realm when it is loaded."""

    helpers: list[list[Any]]
    assigned: list[list[Any]]
    extended: list[int]
    globals: list[str]
    entry: int
    shape: tuple[str, ...]
    normalises: bool
    encodes: bool


@cache
def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def preload() -> None:
    """Read the JavaScript files, before files become inaccessible."""
    _text("shims.js")
    _text("harness.js")


def is_identifier(name: str) -> bool:
    """Return whether `entry` may name a function of a script like this."""
    return all(bool(_IDENTIFIER.fullmatch(part)) and part not in _WORDS for part in name.split("."))


class Script:
    """A loaded script in its realm."""

    def __init__(self, source: ScriptSource, deadline: Callable[[float], None] = lambda _: None) -> None:
        """Load the script. Raises `LoadError`.

        Args:
            source: the script.
            deadline: ends the process after this many further seconds of CPU time; 0: never.
        """
        self.source = source
        self._deadline = deadline
        self._declared: list[str] = []
        self._identifiers = frozenset(_IDENTIFIER.findall(source.text))
        self._opened: list[str] = []
        self._extend_all = False
        self._module = True
        names = ENCODERS if source.take == ENCODE else ENTRIES
        self._names = names if source.entry == "auto" else (source.entry,)
        if not source.inspection:
            self._check_body()
        elif '"module":false' in source.inspection:
            self._module = False
        self._inspection_json = source.inspection or self._inspect()
        self._inspection = self._parse_inspection(json.loads(self._inspection_json))
        self._cpu_ms = source.limits.cpu_ms
        try:
            self._realm: _Realm | None = self._open_realm()
        except _quickjs.JSException as why:
            raise _load_error(why, source.text) from why
        self._calls = 0
        self._compare_at = 0 if source.inspection else VERIFY_FIRST
        self._batch_size = BatchSize(source.limits.mean_cpu_ms)

    @property
    def info(self) -> ScriptInfo:
        """Result of loading the script."""
        return ScriptInfo(
            self.source.key,
            entry=self._names[self._inspection.entry],
            arguments=self._inspection.shape,
            normalises=self._inspection.normalises,
            encodes=self._inspection.encodes,
            inspection=self._inspection_json,
        )

    def set_cpu_limit(self, cpu_ms: float) -> None:
        """Set the CPU limit of the following calls."""
        if cpu_ms != self._cpu_ms:
            self._cpu_ms = cpu_ms
            self._current_realm().context.set_time_limit(cpu_ms / 1e3)

    def call(self, payload: bytes, port: int, received_ms: int) -> CallResult:
        """Decode a frame. Errors of the script are part of the result."""
        sent = payload.decode("latin-1")
        began = time.thread_time()
        try:
            answer = self._evaluate(self._current_realm(), sent, port, received_ms)
            if answer[:1] in {"!", "?"} and self._open_members(answer):
                answer = self._evaluate(self._current_realm(), sent, port, received_ms)
        except _Stopped as stop:
            self._realm = None
            return CallResult(LIMIT, stop.reason, costly=stop.costly)
        finally:
            self._batch_size.record(1, (time.thread_time() - began) * 1e3, self._cpu_ms)
        return self._settle(answer, sent, port, received_ms)

    def batch_size(self, calls: Sequence[ScriptCall]) -> int:
        """Return how many of these calls go into one evaluation; 1: the next one is called by itself.

        Calls after which something is checked are called by themselves.
        """
        if self._realm is None or self.source.take == ENCODE:
            return 1
        checks = [at - self._calls for at in (self._compare_at, CALLS_MAX) if at > self._calls]
        checks += [every - self._calls % every for every in (VERIFY_CALLS, MEMORY_CHECK_CALLS)]
        return self._batch_size.of(calls, min(checks) - 1)

    def call_many(self, calls: Sequence[ScriptCall]) -> list[CallResult | DecodedCalls]:
        """Decode frames in one evaluation, and return the results of the first ones.

        An evaluation has the limits of a single call. If it exceeds them there is no result, and the frames are called
        one by one from then on; so is a frame whose answer may have its reason in the others.
        """
        realm = self._current_realm()
        began = time.thread_time()
        try:
            answer = self._evaluate(realm, *pack(calls))
        except _Stopped:
            answer = ""
        if answer[:1] not in {"{", SEPARATOR}:
            self._realm = None
            self._batch_size.record_stop(len(calls))
            return []
        self._batch_size.record(len(calls), (time.thread_time() - began) * 1e3, self._cpu_ms)
        if answer[0] == "{":
            decoded = DecodedCalls(answer.count(SEPARATOR) + 1, answer)
            self._calls += decoded.count
            return [decoded]
        return self._settle_each(realm, calls, answer[1:].split(SEPARATOR))

    def _settle_each(
        self, realm: _Realm, calls: Sequence[ScriptCall], answers: Sequence[str]
    ) -> list[CallResult | DecodedCalls]:
        """Return the results of answers of one evaluation, as far as they mean for the realm what they would singly."""
        results: list[CallResult | DecodedCalls] = []
        for call, answer in zip(calls, answers, strict=False):
            if answer.startswith(_SHARED):
                self._batch_size.record_stop(1)
                break
            if answer[0] == "{":
                self._calls += 1
                results.append(DecodedCalls(1, answer))
                continue
            if answer[0] in "!?" and self._open_members(answer):
                break
            results.append(self._settle(answer, call.payload.decode("latin-1"), call.port, call.received_ms))
            if self._realm is not realm:
                break
        return results

    def _settle(self, answer: str, sent: str, port: int, received_ms: int) -> CallResult:
        """Return the result that an answer means, and do to the realm what it requires."""
        if answer == _THREW_NULL:
            answer = self._explain_null(sent, port, received_ms)
        if answer.startswith("*"):
            answer = self._declare_names(answer)
        outcome = self._parse_answer(answer)
        self._calls += 1
        if outcome.costly or outcome.kind == STATE or self._calls >= CALLS_MAX or self._is_memory_high():
            self._realm = None
        elif self._calls == self._compare_at or not self._calls % VERIFY_CALLS:
            return self._verify(outcome, sent, port, received_ms)
        return outcome

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────

    def _check_body(self) -> None:
        """Check that the text is a function body and ends where the function ends.

        A text that closes the function's brace would be followed by a comma or a bracket in the first form, which
        cannot be in the second: no text can close both.
        """
        text = self.source.text
        if (at := text.find("\0")) >= 0:  # the engine would read the text up to there
            raise LoadError("it has a NUL character; remove it, or write \\0", text.count("\n", 0, at) + 1)
        if at := _zone_at(text):
            raise LoadError(
                "it asks for times of a zone (Intl, timeZone), which scripts here do not have; "
                "return UTC, or the time as sent and state `time.zone` in the profile",
                text.count("\n", 0, at) + 1,
            )
        context = _context(LOAD_MEMORY, 512)
        for before, after in (("void (() => {", "\n});"), ("function _() {", "\n}")):
            try:
                context.eval(f"{before}{text}{after}")
            except _quickjs.JSException as why:
                raise _load_error(why, text) from why
        try:
            self._compile(context)
        except _quickjs.JSException:
            self._module = False  # it declares `module`, `exports` or `require` itself
            try:
                self._compile(context)
            except _quickjs.JSException as why:
                raise _load_error(why, text) from why

    def _compile(self, context: Any) -> Any:
        """Compile the script as a function of `context` that returns the entries."""
        given = ["module", "exports", "require"] if self._module else []
        entries = ", ".join(map(self._entry_expression, (*self._names, *_OPTIONAL_ENTRIES)))
        parameters = ", ".join([*given, *self._declared])
        return context.eval(f"(function ({parameters}) {{{self.source.text}\n;return [{entries}];\n}})")

    def _entry_expression(self, name: str) -> str:
        """Return an expression for a function of the script, wherever it is defined."""
        if name == "module.exports":
            return "module.exports" if self._module else "undefined"
        plain = f'typeof {name.partition(".")[0]} !== "undefined" && typeof {name} === "function" ? {name} : '
        return plain + (f"Object(module.exports).{name}" if self._module else "undefined")

    def _inspect(self) -> str:
        """Run its top level once in a realm that is not frozen; return what it does there, as JSON."""
        context = _context(LOAD_MEMORY, self.source.limits.stack_kb)
        try:
            harness = _harness(context)
            make = self._compile(context)
            context.set_time_limit(LOAD_S)
            inspection: str = harness(make, json.dumps(_assignments(self.source.text)))
        except _quickjs.JSException as why:
            raise _load_error(why, self.source.text) from why
        except UnicodeDecodeError as why:
            raise LoadError("a name in it is not valid text") from why
        return inspection if self._module else inspection.replace("{", '{"module":false,', 1)

    def _parse_inspection(self, inspection: dict[str, Any]) -> _Inspection:
        count = len(self._names)
        present = inspection["entries"]
        entry = next((at for at in range(count) if present[at]), None)
        if entry is None:
            if self.source.entry != "auto":
                raise LoadError(f"it has no function '{self.source.entry}'")
            if self.source.take == ENCODE:
                raise LoadError(f"it has none of the functions {', '.join(ENCODERS)}")
            raise LoadError(f"it has none of the functions {', '.join(ENTRIES[:-1])} and exports none")
        shape = self.source.arguments or _arguments(self._names[entry], inspection["parameters"][entry])
        learned = _Inspection(
            inspection["helpers"],
            inspection["assigned"],
            inspection["extended"],
            inspection["globals"],
            entry,
            shape,
            *present[count : count + 2],
        )
        if self.source.take in {"normalized", "both"} and not learned.normalises:
            raise LoadError("it has no function 'normalizeUplink'")
        return learned

    def _open_realm(self, memory: int = 0) -> _Realm:
        """Create a fresh realm; `memory`: in place of the limit of the script."""
        self._deadline(LOAD_S * DEADLINE_FACTOR)
        limits, learned = self.source.limits, self._inspection
        context = _context(LOAD_MEMORY, limits.stack_kb)
        context.set_time_limit(LOAD_S)
        options = {
            "entry": learned.entry,
            "normalise": len(self._names),
            "shape": "input" if learned.shape == ("input",) else learned.shape,
            "take": self.source.take,
            "outputMax": int(limits.output_kb * 1024),
            "helpers": learned.helpers,
            "assigned": learned.assigned,
            "opened": self._opened,
            "extended": learned.extended,
            "extendAll": self._extend_all,
            "globals": learned.globals,
            "declared": self._declared,
            "variables": json.loads(self.source.variables),
        }
        opened = _harness(context, "open")
        run = opened(self._compile(context), json.dumps(options))
        context.set_memory_limit(memory or int(limits.memory_mb * 1024**2))
        context.set_time_limit(self._cpu_ms / 1e3)
        return _Realm(context, run)

    def prepare(self) -> None:
        """Create a fresh realm now if the last one was dropped, so that the next call neither waits nor pays for it."""
        self._current_realm()

    def _current_realm(self) -> _Realm:
        if self._realm is None:
            self._realm = self._open_realm()
            self._calls = 0
        return self._realm

    # ── calling ──────────────────────────────────────────────────────────────────────────────────────

    def _evaluate(self, room: _Realm, sent: str, port: int | str, received_ms: int) -> str:
        # The engine checks its limit between two steps; a single long step is ended with the process.
        self._deadline(self._cpu_ms / 1e3 * DEADLINE_FACTOR + DEADLINE_EXTRA_S)
        try:
            answer: str = room.run(sent, port, float(received_ms))  # integers are passed as 32 bits
        except _quickjs.StackOverflow as why:
            raise _Stopped(_STACK, costly=False) from why
        except _quickjs.JSException as why:
            raise _Stopped(_stop(str(why))) from why
        except (UnicodeDecodeError, TypeError):  # halves of characters; a value that the binding does not know
            return "!its result is not valid text"
        return answer

    def _open_members(self, answer: str) -> bool:
        """Open the built-in member that the script tried to assign; return whether the call is worth repeating.

        The text of a script does not always show what it assigns: ``const target = Math; target["tr" + "unc"] = …``.
        """
        if (match := _READ_ONLY.search(answer)) and match[1] not in self._opened and len(self._opened) < OPENED_MAX:
            self._opened.append(match[1])
        elif not self._extend_all and _NOT_EXTENSIBLE.search(answer):
            self._extend_all = True
        else:
            return False
        self._realm = self._open_realm()
        return True

    def _explain_null(self, sent: str, port: int, received_ms: int) -> str:
        """Repeat a call that threw null with all the memory there is: the engine throws null too, when it has none.

        A script that fills any memory takes many times as long to fill this one. Other processes only ever add to a
        time, so the least of several counts.
        """
        if "throw" not in self.source.text:
            return _NO_MEMORY
        try:
            answers, spent_s = self._repeat(self._current_realm(), sent, port, received_ms)
            more, more_s = self._repeat(
                self._open_realm(memory=LOAD_MEMORY), sent, port, received_ms, enough_s=2 * spent_s + 0.001
            )
        except _Stopped:
            return _NO_MEMORY
        threw = {*answers, *more} == {_THREW_NULL} and more_s < 2 * spent_s + 0.001
        return "!it threw null" if threw else _NO_MEMORY

    def _repeat(
        self, realm: _Realm, sent: str, port: int, received_ms: int, *, enough_s: float = 0.0
    ) -> tuple[list[str], float]:
        """Repeat a call until it took less than `enough_s`, at most `REPEATS` times; return answers and least time."""
        answers: list[str] = []
        least_s = math.inf
        while len(answers) < REPEATS and least_s >= enough_s:
            began = time.thread_time()
            answers.append(self._evaluate(realm, sent, port, received_ms))
            least_s = min(least_s, time.thread_time() - began)
        return answers, least_s

    def _declare_names(self, answer: str) -> str:
        """Make undeclared names variables of the script's top level; return the answer without them."""
        names, _, answer = answer[1:].partition("\n")
        left = names.split(",")
        for name in left:
            # A name that the text lacks was computed, perhaps from a frame: it is no variable.
            if name not in self._identifiers or name in _WORDS:
                return f"~'{name[:60]}' was left on the global object"
        if len(self._declared) + len(left) > IMPLICIT_MAX:
            return f"~more than {IMPLICIT_MAX} names were left on the global object"
        self._declared += left
        try:
            self._realm = self._open_realm()
        except _quickjs.JSException:
            self._declared.clear()
            return f"~'{names[:60]}' was left on the global object"
        return answer

    def _parse_answer(self, answer: str) -> CallResult:
        mark, body = answer[:1], answer[1:]
        if mark == "{":
            return CallResult("", answer)
        results = {
            "?": CallResult(REJECTED, body if len(body) <= ERRORS_MAX else f"{body[: ERRORS_MAX - 1]}…"),
            "~": CallResult(STATE, body),
            "#": CallResult(LIMIT, f"its result has {body} characters"),
        }
        if mark in results:
            return results[mark]
        message, _, stack = body.partition("\n")
        if message.startswith("InternalError: out of memory"):
            return CallResult(LIMIT, "more memory than it may have", costly=True)
        if message.startswith("RangeError: Maximum call stack size exceeded"):
            return CallResult(LIMIT, _STACK)
        line = _line(stack)
        return CallResult(FAILED, f"{self.source.file}:{line}: {message}" if line else f"{self.source.file}: {message}")

    def _verify(self, outcome: CallResult, sent: str, port: int, received_ms: int) -> CallResult:
        """Return the result, unless a fresh realm gives another one for the same frame."""
        try:
            answer = self._evaluate(self._open_realm(), sent, port, received_ms)
        except _Stopped as stop:
            return CallResult(LIMIT, stop.reason, costly=stop.costly)
        if answer.startswith("*"):
            answer = answer.partition("\n")[2]
        if self._parse_answer(answer) == outcome:
            return outcome
        self._realm = None
        return CallResult(STATE, "its result depends on earlier calls")

    def _is_memory_high(self) -> bool:
        if self._calls % MEMORY_CHECK_CALLS:
            return False
        used: int = self._current_realm().context.memory()["malloc_size"]
        return used > self.source.limits.memory_mb * 1024**2 / 2


class _Realm(NamedTuple):
    context: Any
    run: Any


class _Stopped(Exception):
    """The engine stopped a call."""

    def __init__(self, why: str, *, costly: bool = True) -> None:
        super().__init__(why)
        self.reason = why
        self.costly = costly


def _context(memory: int, stack_kb: int) -> Any:
    context = _quickjs.Context()
    context.set_memory_limit(memory)
    context.set_max_stack_size(stack_kb * 1024)
    context.set_time_limit(LOAD_S)
    return context


def _harness(context: Any, entry: str = "learn") -> Any:
    context.eval(_text("shims.js"))
    return context.eval("\n" * HARNESS_LINE + f"({_text('harness.js').strip().removesuffix(';')}).{entry}")


def _zone_at(text: str) -> int:
    """Return the position at which a script asks for times of a zone other than UTC, 0 if it does not."""
    if "timeZone" not in text and "Intl" not in text:
        return 0

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    code = _ASIDE.sub(blank, _UTC.sub(lambda match: match[1] + "@UTC@".ljust(len(match[0]) - len(match[1])), text))
    if not _ASKED_FIRST.search(code) and (match := _INTL.search(code)):
        return match.start()
    if at := next((match.start() for match in _ZONED.finditer(code) if not match[1]), 0):
        return at
    # The name of a zone is a text, which `code` lacks. Where no time is written it may be part of what is decoded.
    zone = _NAMED_ZONE.search(_COMMENT.sub(blank, text)) if _LOCALE_OPTIONS.search(code) else None
    return zone.start() if zone is not None and not _UTC.search(zone[0]) else 0


def _assignments(text: str) -> dict[str, list[str]]:
    """Return the names that a script's text assigns and deletes, and the objects on which it makes members."""
    names = dict.fromkeys(match[1] for match in _ASSIGNED.finditer(text))
    deleted = dict.fromkeys(match[1] or match[2] for match in _DELETED.finditer(text))
    targets = dict.fromkeys(match[1] or match[2] for match in _TARGET.finditer(text))
    return {
        "names": list(names)[:NAMES_MAX],
        "deleted": list(deleted)[:NAMES_MAX],
        "targets": list(targets)[:NAMES_MAX],
    }


def _arguments(name: str, parameters: str) -> tuple[str, ...]:
    """Return the arguments of an entry, by the names of its parameters or else by its own name."""
    first, _, more = parameters.partition(",")
    first = first.strip().lower()
    if first.startswith("{"):
        return ("input",)
    if "port" in first:
        return ("port", "bytes", "variables")
    if name in {"decodeUplink", "encodeDownlink", "decodeDownlink"} and not more:
        return ("input",)
    if any(word in first for word in ("byte", "payload", "buf", "data")):
        return _BYTES_FIRST
    if not more and first in {"input", "uplink", "msg", "message", "frame", "obj"}:
        return ("input",)
    return _SHAPES.get(name, _BYTES_FIRST)


def _line(stack: str) -> int:
    """Return the innermost line of the script in a stack, 0 if there is none."""
    # A SyntaxError of JSON.parse also has a position, within the JSON: calls are in parentheses.
    lines = (int(match[1]) for pattern in (_CALL, _PLACE) for match in pattern.finditer(stack))
    return next((line for line in lines if line < HARNESS_LINE), 0)


def _stop(text: str) -> str:
    if text.startswith("InternalError: interrupted"):
        return "more CPU time than it may have"
    return "more memory than it may have"  # no memory is left for a message


def _load_error(why: Any, text: str) -> LoadError:
    message_text = str(why)
    message, _, stack = message_text.partition("\n")
    if isinstance(why, _quickjs.StackOverflow):
        message = "nested too deeply"
    elif message.startswith("InternalError: interrupted"):
        message = f"more than {LOAD_S:g} s of CPU time to load"
    line = _line(stack)
    if message.startswith("SyntaxError") and (match := _MODULE.search(text)):
        line = text.count("\n", 0, match.start() + len(match[0]) - len(match[0].lstrip())) + 1
        message = "it is an ES module; remove `import` and `export`, or use module.exports"
    elif line > text.count("\n") + 1:  # in the harness around it
        line, message = text.count("\n") + 1, f"{message}: a bracket or quotation mark is not closed"
    return LoadError(message, line)


__all__ = ["ENTRIES", "NO_PORT", "LoadError", "Script", "is_identifier", "preload"]
