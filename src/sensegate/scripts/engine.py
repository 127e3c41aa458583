"""A codec script in QuickJS: what a child holds for each script, and how it calls it.

Its top level is compiled as the body of a function, and each call begins by running that function anew: top-level
variables are then variables of one call, so that nothing can pass from one device to the next through them, and a
script behaves as it does on network servers that load it afresh for every frame. The room around it (`harness.js`) is
frozen and kept. What a script leaves on the global object is taken away after the call; a name that it forgot to
declare becomes a variable of its top level from then on, anything else is refused. From time to time a call is made in
a fresh room too: where that answers differently, something was carried over, and the frame is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import _quickjs  # type: ignore[import-not-found] # the package around it starts a thread when it is imported

from sensegate.scripts.wire import NO_PORT, Facts, Outcome, Source

REFUSED: Final = "script_refused"
FAILED: Final = "script_failed"
LIMIT: Final = "script_limit"
STATE: Final = "script_state"
"""Words of `QuarantineReason`."""

CALLS_MAX: Final = 20_000
"""A room is left after so many calls: whatever the engine gathered goes with it."""
SAMPLE: Final = 4_096
"""Every so-manieth call is compared with a fresh room, and the second of a script's life."""
SAMPLE_FIRST: Final = 2
LOOK: Final = 512
"""The room's memory is looked at every so many calls."""
LOAD_S: Final = 1.0
"""CPU time for loading."""
GRACE: Final = 1.5
GRACE_S: Final = 0.003
"""A call's CPU limit times `GRACE` and this more: then its process ends."""
LOAD_MEMORY: Final = 64 * 1024**2
IMPLICIT_MAX: Final = 256
"""Names that a script may forget to declare."""
OURS: Final = 200_000
"""Lines from here on are the harness's, not the script's."""

ENTRIES: Final = ("decodeUplink", "Decode", "Decoder", "rawDecode", "decode", "decoder", "module.exports")
"""The functions that decode, by the names that makers give them; the first that is there counts."""
_BESIDE: Final = ("normalizeUplink", "encodeDownlink")
_SHAPES: Final = {"decodeUplink": ("input",), "Decode": ("port", "bytes", "variables")}
_BYTES_FIRST: Final = ("bytes", "port", "variables")
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
_WORDS: Final = frozenset(
    """
    break case catch class const continue debugger default delete do else enum export extends false finally for function
    if implements import in instanceof interface let new null package private protected public return static super
    switch this throw true try typeof var void while with yield await arguments eval undefined
    """.split()  # noqa: SIM905 - a list of so many words reads worse
)
_STACK: Final = "its stack is full"
_CALL = re.compile(r"\(<input>:(\d+)")
_PLACE = re.compile(r"<input>:(\d+)")
_MODULE = re.compile(
    r"^[ \t]*(?:import\s*[\w{*'\"]|export\s+(?:default|const|let|var|function|class|async|\{))", re.MULTILINE
)


class LoadError(Exception):
    """A script that cannot be used: why, and the line in its file (0: none)."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


class _Learned(NamedTuple):
    """What a script does to its room when it is loaded."""

    helpers: list[list[Any]]
    globals: list[str]
    entry: int
    shape: tuple[str, ...]
    normalises: bool
    encodes: bool


@cache
def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def preload() -> None:
    """Read what is read from files, before there are none."""
    _text("shims.js")
    _text("harness.js")


def identifier(name: str) -> bool:
    """Return whether a function of a script may be called so in `entry`."""
    return all(bool(_IDENTIFIER.fullmatch(part)) and part not in _WORDS for part in name.split("."))


class Script:
    """One script, loaded, in its room."""

    def __init__(self, source: Source, deadline: Callable[[float], None] = lambda _: None) -> None:
        """Load. Raises `LoadError`.

        Args:
            source: the script.
            deadline: ends the process once it has used so many seconds of CPU time from then on; 0: never.
        """
        self.source = source
        self._deadline = deadline
        self._declared: list[str] = []
        self._module = True
        self._names = ENTRIES if source.entry == "auto" else (source.entry,)
        if not source.learned:
            self._contained()
        elif '"module":false' in source.learned:
            self._module = False
        self._told = source.learned or self._learn()
        self._learned = self._understood(json.loads(self._told))
        self._cpu_ms = source.limits.cpu_ms
        try:
            self._room: _Room | None = self._open()
        except _quickjs.JSException as why:
            raise _load_error(why, source.text) from why
        self._calls = 0
        self._compare_at = 0 if source.learned else SAMPLE_FIRST

    @property
    def facts(self) -> Facts:
        """What was found in it."""
        return Facts(
            self.source.key,
            entry=self._names[self._learned.entry],
            arguments=self._learned.shape,
            normalises=self._learned.normalises,
            encodes=self._learned.encodes,
            learned=self._told,
        )

    def limit(self, cpu_ms: float) -> None:
        """Give the calls from here on so much CPU time."""
        if cpu_ms != self._cpu_ms:
            self._cpu_ms = cpu_ms
            self._ready().context.set_time_limit(cpu_ms / 1e3)

    def call(self, payload: bytes, port: int, received_ms: int) -> Outcome:
        """Return what the script makes of a frame. What it does wrong is told in the outcome."""
        sent = payload.decode("latin-1")
        try:
            answer = self._answer(self._ready(), sent, port, received_ms)
        except _Stopped as stop:
            self._room = None
            return Outcome(LIMIT, stop.why, costly=stop.costly)
        if answer.startswith("*"):
            answer = self._declare(answer)
        outcome = self._outcome(answer)
        self._calls += 1
        if outcome.costly or outcome.kind == STATE or self._calls >= CALLS_MAX or self._full():
            self._room = None
        elif self._calls == self._compare_at or not self._calls % SAMPLE:
            return self._compared(outcome, sent, port, received_ms)
        return outcome

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────

    def _contained(self) -> None:
        """See that the text is the body of a function, and ends where that ends.

        A text that closes the function's brace would be followed by a comma or a bracket in the first form, and cannot
        be in the second: no text can close both.
        """
        text = self.source.text
        context = _context(LOAD_MEMORY, 512)
        for before, after in (("void (() => {", "\n});"), ("function _() {", "\n}")):
            try:
                context.eval(f"{before}{text}{after}")
            except _quickjs.JSException as why:
                raise _load_error(why, text) from why
        try:
            self._make(context)
        except _quickjs.JSException:
            self._module = False  # it has a `module`, `exports` or `require` of its own
            try:
                self._make(context)
            except _quickjs.JSException as why:
                raise _load_error(why, text) from why

    def _make(self, context: Any) -> Any:
        """Return the script as a function of `context`: it returns the entries."""
        given = ["module", "exports", "require"] if self._module else []
        entries = ", ".join(map(self._found, (*self._names, *_BESIDE)))
        parameters = ", ".join([*given, *self._declared])
        return context.eval(f"(function ({parameters}) {{{self.source.text}\n;return [{entries}];\n}})")

    def _found(self, name: str) -> str:
        """Return an expression for a function of the script, wherever it puts it."""
        if name == "module.exports":
            return "module.exports" if self._module else "undefined"
        plain = f'typeof {name.partition(".")[0]} !== "undefined" && typeof {name} === "function" ? {name} : '
        return plain + (f"Object(module.exports).{name}" if self._module else "undefined")

    def _learn(self) -> str:
        """Run its top level once in a room that is not frozen; return what it does there, as JSON."""
        context = _context(LOAD_MEMORY, self.source.limits.stack_kb)
        try:
            harness = _harness(context)
            make = self._make(context)
            context.set_time_limit(LOAD_S)
            told: str = harness(make)
        except _quickjs.JSException as why:
            raise _load_error(why, self.source.text) from why
        except UnicodeDecodeError as why:
            raise LoadError("it names something in a way that is no text") from why
        return told if self._module else told.replace("{", '{"module":false,', 1)

    def _understood(self, found: dict[str, Any]) -> _Learned:
        count = len(self._names)
        there = found["entries"]
        entry = next((at for at in range(count) if there[at]), None)
        if entry is None:
            if self.source.entry != "auto":
                raise LoadError(f"it has no function '{self.source.entry}'")
            raise LoadError(f"it has none of the functions {', '.join(ENTRIES[:-1])}, and exports none")
        shape = self.source.arguments or _shape(self._names[entry], found["parameters"][entry])
        learned = _Learned(found["helpers"], found["globals"], entry, shape, *there[count : count + 2])
        if self.source.take != "data" and not learned.normalises:
            raise LoadError("it has no function 'normalizeUplink'")
        return learned

    def _open(self) -> _Room:
        """Return a fresh room."""
        self._deadline(LOAD_S * GRACE)
        limits, learned = self.source.limits, self._learned
        context = _context(LOAD_MEMORY, limits.stack_kb)
        context.set_time_limit(LOAD_S)
        options = {
            "entry": learned.entry,
            "normalise": len(self._names),
            "shape": "input" if learned.shape == ("input",) else learned.shape,
            "take": self.source.take,
            "outputMax": int(limits.output_kb * 1024),
            "helpers": learned.helpers,
            "globals": learned.globals,
            "declared": self._declared,
            "variables": json.loads(self.source.variables),
        }
        opened = _harness(context, "open")
        run = opened(self._make(context), json.dumps(options))
        context.set_memory_limit(int(limits.memory_mb * 1024**2))
        context.set_time_limit(self._cpu_ms / 1e3)
        return _Room(context, run)

    def rest(self) -> None:
        """Do now what the next call would have to wait for: make a fresh room where the last one was left."""
        self._ready()

    def _ready(self) -> _Room:
        if self._room is None:
            self._room = self._open()
            self._calls = 0
        return self._room

    # ── calling ──────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, room: _Room, sent: str, port: int, received_ms: int) -> str:
        # The engine looks at its own limit between two steps; what takes long in one step ends with the process.
        self._deadline(self._cpu_ms / 1e3 * GRACE + GRACE_S)
        try:
            answer: str = room.run(sent, port, float(received_ms))  # whole numbers go through 32 bits
        except _quickjs.StackOverflow as why:
            raise _Stopped(_STACK, costly=False) from why
        except _quickjs.JSException as why:
            raise _Stopped(_stop(str(why))) from why
        except UnicodeDecodeError:
            return "!it told something that is no text"
        return answer

    def _declare(self, answer: str) -> str:
        """Make names that the script forgot to declare variables of its top level; return the answer without them."""
        names, _, answer = answer[1:].partition("\n")
        for name in names.split(","):
            if not identifier(name):
                return f"~'{name[:60]}' was left on the global object"
            self._declared.append(name)
        if len(self._declared) > IMPLICIT_MAX:
            return f"~more than {IMPLICIT_MAX} names were left on the global object"
        try:
            self._room = self._open()
        except _quickjs.JSException:
            self._declared.clear()
            return f"~'{names[:60]}' was left on the global object"
        return answer

    def _outcome(self, answer: str) -> Outcome:
        mark, rest = answer[:1], answer[1:]
        if mark == "{":
            return Outcome("", answer)
        told = {
            "?": Outcome(REFUSED, rest),
            "~": Outcome(STATE, rest),
            "#": Outcome(LIMIT, f"its result has {rest} characters"),
        }
        if mark in told:
            return told[mark]
        what, _, stack = rest.partition("\n")
        if what == "null" or what.startswith("InternalError: out of memory"):  # no memory is left even for the error
            return Outcome(LIMIT, "more memory than it may have", costly=True)
        if what.startswith("RangeError: Maximum call stack size exceeded"):
            return Outcome(LIMIT, _STACK)
        line = _line(stack)
        return Outcome(FAILED, f"{self.source.file}:{line}: {what}" if line else f"{self.source.file}: {what}")

    def _compared(self, outcome: Outcome, sent: str, port: int, received_ms: int) -> Outcome:
        """Return the outcome, unless a fresh room has another one for the same frame."""
        try:
            answer = self._answer(self._open(), sent, port, received_ms)
        except _Stopped as stop:
            return Outcome(LIMIT, stop.why, costly=stop.costly)
        if answer.startswith("*"):
            answer = answer.partition("\n")[2]
        if self._outcome(answer) == outcome:
            return outcome
        self._room = None
        return Outcome(STATE, "it answers otherwise when it has answered before")

    def _full(self) -> bool:
        if self._calls % LOOK:
            return False
        used: int = self._ready().context.memory()["malloc_size"]
        return used > self.source.limits.memory_mb * 1024**2 / 2


class _Room(NamedTuple):
    context: Any
    run: Any


class _Stopped(Exception):
    """The engine stopped a call."""

    def __init__(self, why: str, *, costly: bool = True) -> None:
        super().__init__(why)
        self.why = why
        self.costly = costly


def _context(memory: int, stack_kb: int) -> Any:
    context = _quickjs.Context()
    context.set_memory_limit(memory)
    context.set_max_stack_size(stack_kb * 1024)
    context.set_time_limit(LOAD_S)
    return context


def _harness(context: Any, what: str = "learn") -> Any:
    context.eval(_text("shims.js"))
    return context.eval("\n" * OURS + f"({_text('harness.js').strip().removesuffix(';')}).{what}")


def _shape(name: str, parameters: str) -> tuple[str, ...]:
    """Return the arguments of an entry by the names of its parameters, else by its own."""
    first, _, more = parameters.partition(",")
    first = first.strip().lower()
    if first.startswith("{"):
        return ("input",)
    if "port" in first:
        return ("port", "bytes", "variables")
    if name == "decodeUplink" and not more:
        return ("input",)
    if any(word in first for word in ("byte", "payload", "buf", "data")):
        return _BYTES_FIRST
    if not more and first in {"input", "uplink", "msg", "message", "frame", "obj"}:
        return ("input",)
    return _SHAPES.get(name, _BYTES_FIRST)


def _line(stack: str) -> int:
    """Return the line of the script that is deepest in a stack, 0 where there is none."""
    # A SyntaxError of JSON.parse has a place of its own, in the JSON: calls stand in brackets.
    lines = (int(found[1]) for pattern in (_CALL, _PLACE) for found in pattern.finditer(stack))
    return next((line for line in lines if line < OURS), 0)


def _stop(text: str) -> str:
    if text.startswith("InternalError: interrupted"):
        return "more CPU time than it may have"
    return "more memory than it may have"  # the engine has nothing left to say why


def _load_error(why: Any, text: str) -> LoadError:
    told = str(why)
    what, _, stack = told.partition("\n")
    if isinstance(why, _quickjs.StackOverflow):
        what = "nested too deeply"
    elif what.startswith("InternalError: interrupted"):
        what = f"more than {LOAD_S:g} s of CPU time to load"
    line = _line(stack)
    if what.startswith("SyntaxError") and (found := _MODULE.search(text)):
        line = text.count("\n", 0, found.start() + len(found[0]) - len(found[0].lstrip())) + 1
        what = "an ES module: leave `import` and `export` out, or use module.exports"
    elif line > text.count("\n") + 1:  # in what stands around it
        line, what = text.count("\n") + 1, f"{what}: a bracket or quotation mark is not closed"
    return LoadError(what, line)


__all__ = ["ENTRIES", "NO_PORT", "LoadError", "Script", "identifier", "preload"]
