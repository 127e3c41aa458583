"""Scripts that assign members of built-in objects: each call sees its own assignments, no other call does."""

from __future__ import annotations

import msgspec
import pytest

from sensegate.scripts.pool import ScriptPool
from tests.scripts.conftest import Decode, ask, source_of

STRICT = '"use strict";\n'
ENTRY = "function decodeUplink(input) {{ {body} return {{ data: {{ value: {value} }} }}; }}"

# Name -> (top level, body of the function, value, what the value is).
POLYFILLS = {
    "itself or a function": ("Math.trunc = Math.trunc || function (x) { return 1; };", "", "Math.trunc(-2.7)", -2),
    "in brackets": ('Math["trunc"] = Math.trunc || function (x) { return 1; };', "", "Math.trunc(-2.7)", -2),
    "by another name": ("const M = Math; M.sign = M.sign || null;", "", "Math.sign(-9)", -1),
    "by a name that is made": ('for (const k of ["tr" + "unc"]) Math[k] = Math[k];', "", "Math.trunc(-2.7)", -2),
    "only where it is missing": ("Number.isInteger ||= () => 1;", "", "Number.isInteger(2)", True),
    "one of a prototype": (
        "String.prototype.padStart = String.prototype.padStart || null;",
        "",
        "'7'.padStart(2, '0')",
        "07",
    ),
    "within the call": ("", "Number.isNaN = Number.isNaN || null;", "Number.isNaN(NaN)", True),
    "another function within the call": ("", "Math.trunc = (x) => 5;", "Math.trunc(1)", 5),
    "a helper within the call": (
        "",
        "Array.prototype.last = function () { return this[this.length - 1]; };",
        "[1, 8].last()",
        8,
    ),
    "a helper under another name": (
        "const P = Array.prototype;",
        "P.last = function () { return this[this.length - 1]; };",
        "[1, 8].last()",
        8,
    ),
    "a helper only where it is missing": (
        "if (!('last' in Array.prototype)) Array.prototype.last = function () { return 4; };",
        "",
        "[].last()",
        4,
    ),
    "a helper that is defined": (
        "if (![].last) Object.defineProperty(Array.prototype, 'last', { value() { return 3; } });",
        "",
        "[].last()",
        3,
    ),
    "several that are assigned": (
        "Object.assign(Number, { isFinite: Number.isFinite, ten: 10 });",
        "",
        "Number.ten",
        10,
    ),
    "a global": ("globalThis.parseFloat = parseFloat || null;", "", "parseFloat('1.5')", 1.5),
    "a member of a list, named like a method": ("", "const list = []; list.values = 7;", "list.values", 7),
    "a class of its own, named like a method": (
        "function Own() {} Own.prototype = []; Own.prototype.concat = function () { return 6; };",
        "",
        "new Own().concat()",
        6,
    ),
}


@pytest.mark.parametrize("mode", ["", STRICT], ids=["sloppy", "strict"])
@pytest.mark.parametrize("name", POLYFILLS)
def test_a_script_has_what_it_assigns(scripts: ScriptPool, name: str, mode: str) -> None:
    """An assignment to a built-in object holds for its call, in either mode, call after call."""
    if name == "a helper under another name" and not mode:
        pytest.skip("an assignment that the text does not show is silent in sloppy mode")
    top, body, value, expected = POLYFILLS[name]
    source = source_of(f"{mode}{top}\n{ENTRY.format(body=body, value=value)}")
    outcomes = scripts.run([ask(source, bytes([number])) for number in range(6)])
    assert [(outcome.kind, outcome.text) for outcome in outcomes] == [("", outcomes[0].text)] * 6
    assert msgspec.json.decode(outcomes[0].text)["d"] == {"value": expected}


@pytest.mark.parametrize("mode", ["", STRICT], ids=["sloppy", "strict"])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        ("Math.trunc = 5;", "Math.trunc === 5"),
        ("Math.mine = 5;", "Math.mine === 5"),
        ("Object.defineProperty(Math, 'mine', { value: 5 });", "Math.mine === 5"),
        ("Object.defineProperties(Math, { mine: { value: 5 } });", "Math.mine === 5"),
        ("Reflect.defineProperty(Math, 'mine', { value: 5 });", "Math.mine === 5"),
        ("Object.defineProperty(Math, 'trunc', { get() { return 5; } });", "Math.trunc === 5"),
        ("delete Math.trunc;", "Math.trunc === undefined"),
        ("Math.trunc = 5; Object.freeze(Math);", "Math.trunc === 5 || Object.isFrozen(Math)"),
        ("Math.trunc = 5; Object.setPrototypeOf(Math, { mine: 5 });", "Math.mine === 5"),
        ("Math.mine = {}; Math.mine.more = 5;", "Math.mine?.more === 5"),
    ],
)
def test_no_call_sees_what_another_assigned(scripts: ScriptPool, write: str, read: str, mode: str) -> None:
    """What one frame leaves on a built-in object is gone at the next frame, or the frame is refused."""
    body = f"if (input.bytes[0] === 1) {{ {write} }}"
    # The first assignment opens the object, so that the others have a way to it.
    source = source_of(f"{mode}Math.opened = 1; Math.ceil = Math.ceil;\n{ENTRY.format(body=body, value=read)}")
    for _ in range(3):
        for sent in (b"\1", b"\2"):
            [outcome] = scripts.run([ask(source, sent)])
            if sent == b"\2":
                assert (outcome.kind, outcome.text) == ("", '{"d":{"value":false}}')


# Name -> (top level, body of the function, what is asked, its value).
DELETIONS = {
    "at the top": ("delete Math.trunc;", "", "typeof Math.trunc", "undefined"),
    "within the call": ("", "delete Math.trunc;", "typeof Math.trunc", "undefined"),
    "in brackets": ("", 'delete (Math["trunc"]);', "typeof Math.trunc", "undefined"),
    "by another name": ("const M = Math;", "delete M.trunc;", "typeof Math.trunc", "undefined"),
    "by a name that is made, at the top": (
        'for (const k of ["tr" + "unc"]) delete Math[k];',
        "",
        "'trunc' in Math",
        False,
    ),
    "and its own in its place": ("delete Math.trunc; Math.trunc = (x) => 7;", "", "Math.trunc(1.5)", 7),
    "one of a prototype": ("", "delete Array.prototype.includes;", "typeof [].includes", "undefined"),
    "one that objects inherit": ("", "delete Object.prototype.toString;", "'toString' in {}", False),
    "by reflection": ("", "Reflect.deleteProperty(Math, 'trunc');", "typeof Math.trunc", "undefined"),
    "a global": ("", "delete globalThis.parseFloat;", "typeof parseFloat", "undefined"),
    "a whole object": ("delete globalThis.Buffer;", "", "typeof Buffer", "undefined"),
    "a member of its own, named like a method": (
        "",
        "const o = { keys: 1, a: 2 }; delete o.keys;",
        "o.keys ?? 'gone'",
        "gone",
    ),
}


@pytest.mark.parametrize("mode", ["", STRICT], ids=["sloppy", "strict"])
@pytest.mark.parametrize("name", DELETIONS)
def test_a_script_lacks_what_it_deletes(scripts: ScriptPool, name: str, mode: str) -> None:
    """A script may delete a member of a built-in object: its own calls lack it, other scripts have it."""
    top, body, value, expected = DELETIONS[name]
    source = source_of(f"{mode}{top}\n{ENTRY.format(body=body, value=value)}")
    outcomes = scripts.run([ask(source, bytes([number])) for number in range(6)])
    assert [(outcome.kind, outcome.text) for outcome in outcomes] == [("", outcomes[0].text)] * 6
    assert msgspec.json.decode(outcomes[0].text)["d"] == {"value": expected}
    whole = "[Math.trunc(2.7), [1].includes(1), 'toString' in {}, parseFloat('1.5'), typeof Buffer]"
    [other] = scripts.run([ask(source_of(ENTRY.format(body="", value=whole)))])
    assert msgspec.json.decode(other.text)["d"] == {"value": [2, True, True, 1.5, "function"]}


@pytest.mark.parametrize("mode", ["", STRICT], ids=["sloppy", "strict"])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        ("delete Math.trunc;", "typeof Math.trunc"),
        ("delete globalThis.parseFloat;", "typeof parseFloat"),
        ("delete Array.prototype.includes;", "typeof [].includes"),
        ("delete globalThis.parseFloat; globalThis.parseFloat = 5;", "typeof parseFloat"),
        ("Object.defineProperty(globalThis, 'parseFloat', { get() { return 5; } });", "typeof parseFloat"),
        ("Object.defineProperty(globalThis, 'parseFloat', { value: 5, configurable: false });", "typeof parseFloat"),
        ("delete Math.trunc; Object.preventExtensions(Math);", "typeof Math.trunc"),
    ],
)
def test_no_call_lacks_what_another_deleted(scripts: ScriptPool, write: str, read: str, mode: str) -> None:
    """What one frame deletes is there at the next frame, whatever else it did to the place, or the frame is refused."""
    body = f"if (input.bytes[0] === 1) {{ {write} }} else if (input.bytes[0] === 3) delete globalThis.parseFloat;"
    source = source_of(f"{mode}{ENTRY.format(body=body, value=read)}")
    for sent in (b"\1", b"\2", b"\1", b"\2"):
        [outcome] = scripts.run([ask(source, sent)])
        if sent == b"\2":
            assert (outcome.kind, outcome.text) == ("", '{"d":{"value":"function"}}')


def test_a_constant_assigned_twice_is_the_scripts_own_mistake(decode: Decode) -> None:
    """Negative control: what is read-only in the script stays so."""
    outcome = decode(ENTRY.format(body="const a = 1; a = 2;", value="a"))
    assert (outcome.kind, "'a' is read-only" in outcome.text) == ("script_failed", True)


@pytest.mark.parametrize("length", [100, 508, 512, 600, 5_000, 60_000])
def test_a_long_text_is_an_answer(decode: Decode, length: int) -> None:
    """A text put together from parts comes back whole, whatever its length."""
    outcome = decode(ENTRY.format(body=f"const text = 'x' + 'ab'.repeat({length // 2});", value="text"))
    assert (outcome.kind, len(msgspec.json.decode(outcome.text)["d"]["value"])) == ("", length + 1)


@pytest.mark.parametrize("how", ["throw new Error(long)", "throw long", "return { errors: [long, long, long] }"])
@pytest.mark.parametrize("part", ["fault ", "故障 ", "\N{DROPLET}"])
def test_long_errors_are_told(decode: Decode, how: str, part: str) -> None:
    """A long error text or stack is told, shortened; it ends no process."""
    deep = "function deep(n) { if (n > 0) return deep(n - 1); " + how + "; }"
    outcome = decode(
        f"{deep}\nfunction decodeUplink(input) {{ const long = '{part}'.repeat(900); return deep(40); }}".replace(
            "deep(n - 1)", "deep(n - 1, long)"
        )
        .replace("deep(n)", "deep(n, long)")
        .replace("deep(40)", "deep(40, long)")
    )
    assert outcome.kind == ("script_refused" if "errors" in how else "script_failed")
    assert part in outcome.text
    assert not outcome.costly


def test_long_answers_of_two_devices_do_not_keep_a_third_from_the_script(scripts: ScriptPool) -> None:
    """A script whose answers are long is no attack: nobody is suspended."""
    text = (
        "function decodeUplink(input) {"
        " if (input.bytes[0]) throw new Error('no such frame '.repeat(200)); return { data: { ok: 1 } }; }"
    )
    source = source_of(text)
    for sender in ("one", "two", "one", "two"):
        [outcome] = scripts.run([ask(source, b"\1", sender=sender)])
        assert outcome.kind == "script_failed"
    [outcome] = scripts.run([ask(source, b"\0", sender="three")])
    assert (outcome.kind, outcome.text) == ("", '{"d":{"ok":1}}')


def test_nul_in_an_error_does_not_cut_it_short(decode: Decode) -> None:
    """A NUL character in an error is replaced; what follows it is told."""
    outcome = decode("function decodeUplink(input) { throw new Error('a\\0b'); }")
    assert "a\N{REPLACEMENT CHARACTER}b" in outcome.text


def test_nul_in_a_script_is_refused_with_its_line(scripts: ScriptPool) -> None:
    """A script with a NUL character is refused when it is loaded, with its line."""
    info = scripts.inspect(source_of("function decodeUplink(input) {\n return { data: {a: '\0'} };\n}"))
    assert (info.line, "NUL character" in info.error) == (2, True)


@pytest.mark.parametrize("thrown", ["null", "undefined", "0", "''", "{ toString() { throw null; } }"])
def test_what_is_thrown_is_not_told_as_memory(decode: Decode, thrown: str) -> None:
    """A script that throws no error has failed; it did not use up its memory."""
    outcome = decode(f"function decodeUplink(input) {{ throw {thrown}; }}")
    assert (outcome.kind, "memory" in outcome.text, outcome.costly) == ("script_failed", False, False)


def test_memory_used_up_to_the_last_byte_is_told_as_memory(decode: Decode) -> None:
    """Negative control: a script that leaves no memory even for an error, so that the engine throws null."""
    fill = (
        "const held = []; for (let size = 1 << 22; size > 0;) {"
        " try { held.push(new Uint8Array(size).fill(1)); } catch { size >>= 1; } }"
        " let chain = null; for (;;) chain = [chain];"
    )
    outcome = decode(f"function decodeUplink(input) {{ {fill} }}")
    assert (outcome.kind, outcome.costly) == ("script_limit", True)


ZONES = {
    "a formatter": ("new Intl.DateTimeFormat('en', { timeZone: 'Asia/Shanghai' }).format(0)", True),
    "a zone": ("new Date().toLocaleString('en-US', { timeZone: 'Asia/Shanghai' })", True),
    "a zone, the key in a line of its own": (
        "new Date().toLocaleTimeString(\n'en-US',\n{ hour12: false, timeZone: zone })",
        True,
    ),
    "a formatter of the global object": (
        "new globalThis.Intl.DateTimeFormat('en', { timeZone: 'Asia/Shanghai' }).format(0)",
        True,
    ),
    "asked first, of the global object": ("globalThis.Intl ? globalThis.Intl.NumberFormat().format(1) : 0", False),
    "a zone among options that have a name": (
        "((how = { hour12: false, timeZone: 'Europe/Sofia' }) => new Date().toLocaleString('en', how))()",
        True,
    ),
    "UTC among options that have a name": (
        "((how = { timeZone: 'Etc/UTC' }) => new Date(0).toLocaleString('en', how))()",
        False,
    ),
    "a zone that is data": ("({ timeZone: 'Asia/Shanghai', at: new Date(0).toLocaleString() })", False),
    "UTC": ("new Date(0).toLocaleString('en-US', { timeZone: 'UTC' })", False),
    "a comment": ("1 // Intl.DateTimeFormat would be { timeZone: 'x' }\n", False),
    "a text": ("'Intl.NumberFormat'", False),
    "a field of that name": ("({ timeZone: 8 })", False),
    "asked first whether it is there": ("typeof Intl === 'undefined' ? 0 : Intl.NumberFormat().format(1)", False),
}


@pytest.mark.parametrize("name", ZONES)
def test_a_script_that_needs_zones_is_refused_when_it_is_loaded(scripts: ScriptPool, name: str) -> None:
    """`Intl` and zones do not exist here: a script that needs them is refused with the line, no other is."""
    expression, refused = ZONES[name]
    info = scripts.inspect(
        source_of(f"function decodeUplink(input) {{\n\n return {{ data: {{ at: {expression} }} }};\n}}")
    )
    assert (bool(info.error), info.line) == (refused, 3 if refused else 0)


def test_a_zone_that_only_shows_at_run_time_fails(decode: Decode) -> None:
    """A zone that the text does not show is not silently taken for UTC."""
    outcome = decode(
        "const how = { ['time' + 'Zone']: 'Asia/Shanghai' };\n"
        "function decodeUplink(input) { return { data: { at: new Date().toLocaleString('en', how) } }; }"
    )
    assert (outcome.kind, "Asia/Shanghai" in outcome.text) == ("script_failed", True)
