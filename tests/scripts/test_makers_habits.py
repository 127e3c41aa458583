"""What makers' scripts do to built-ins, what they return and throw: forms beyond those of the known catalogues."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.scripts.conftest import Decode

BODY = "function decodeUplink(input) {{ {} }}"
DATA = "return {{ data: {{ a: {} }} }}"


def answer(decode: Decode, text: str) -> Any:
    """Return the member `a` of what a script returns."""
    result = decode(text, b"\x01\x02\x03")
    assert result.kind == "", result
    return json.loads(result.text)["d"]["a"]


def script(before: str, value: str) -> str:
    """Return a strict script with a preamble that returns a value."""
    return f'"use strict"; {before}; ' + BODY.format(DATA.format(value))


POLYFILLS = [
    ("by index", "Math['trunc'] = Math['trunc'] || function (x) { return 0 }", "Math.trunc(-1.5)", -1),
    ("Object.assign", "Object.assign(Math, { twice: function (x) { return 2 * x } })", "Math.twice(4)", 8),
    ("of dates", "Date.prototype.stamp = function () { return 'D' + this.getTime() }", "new Date(7).stamp()", "D7"),
    ("a method of texts", "String.prototype.reverse = function () { return this.split('').reverse().join('') }",
     "'abc'.reverse()", "cba"),
    ("a method that is replaced", "Array.prototype.at = function () { return 'mine' }", "[1, 2].at(-1)", "mine"),
    ("JSON", "JSON.parse = function () { return 3 }", "JSON.parse('4')", 3),
    ("defineProperty", "Object.defineProperty(Number, 'TEN', { value: 10 })", "Number.TEN", 10),
    ("within a function", "(function () { Number.isNaN = Number.isNaN || isNaN })()", "Number.isNaN(NaN)", True),
    ("a class that extends one", "class Bytes extends Array { sum() { return this.reduce((s, b) => s + b, 0) } }",
     "Bytes.from(input.bytes).sum()", 6),
    ("a global by its name", "Math.max = Math.max; parseInt = parseInt", "parseInt('12', 10)", 12),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "value", "expected"), [row[1:] for row in POLYFILLS], ids=[row[0] for row in POLYFILLS]
)
def test_built_ins_are_the_scripts_own(decode: Decode, before: str, value: str, expected: Any) -> None:
    """Each script has its own, also in strict mode; the next one has those of the language."""
    assert answer(decode, script(before, value)) == expected
    assert answer(
        decode, script("", "[Math.trunc(-1.5), [1, 2].at(-1), JSON.parse('4'), typeof Math.cbrt].join()")
    ) == ("-1,2,4,function")


RETURNED = [
    ("a rope of 600", "var s = ''; for (var i = 0; i < 600; i++) s += 'ab'; return { data: { a: s } }", "ab" * 600),
    ("a rope of ropes", "var s = 'x'; for (var i = 0; i < 12; i++) s = s + s; return { data: { a: s.length } }", 4096),
    ("a text of templates", "var s = ''; for (var i = 0; i < 300; i++) s = `${s}${i % 10}`; return { data: { a: s } }",
     "0123456789" * 30),
    ("a rope as a key", "var k = ''; for (var i = 0; i < 5; i++) k += 'k'; return { data: { a: { [k]: 1 } } }",
     {"kkkkk": 1}),
    ("a joined list", "return { data: { a: new Array(400).join('ab') } }", "ab" * 399),
    ("a repeated text", "return { data: { a: 'ab'.repeat(400) } }", "ab" * 400),
    ("a text with NUL", "return { data: { a: 'x\\0y' } }", "x\0y"),
    ("a large whole number", "return { data: { a: 10n ** 18n } }", 10**18),
    ("an object with toJSON", "return { data: { a: { toJSON: function () { return 5 } } } }", 5),
    ("minus zero", "return { data: { a: -0 } }", 0),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in RETURNED], ids=[row[0] for row in RETURNED])
def test_what_scripts_return(decode: Decode, body: str, expected: Any) -> None:
    """However a text was built, it comes back whole, and the child lives on."""
    assert answer(decode, BODY.format(body)) == expected
    assert answer(decode, script("", "1")) == 1


THROWN = [
    ("null", "throw null", "null"),
    ("nothing", "throw undefined", "undefined"),
    ("a number", "throw 5", "5"),
    ("an object", "throw { code: 5 }", '{"code":5}'),
    ("a list", "throw [1, 2]", "1,2"),
    ("a symbol", "throw Symbol('x')", "Symbol(x)"),
    ("an error with a long text", "throw new Error(new Array(9000).join('ab'))", "Error: abab"),
    ("an error without a text", "throw new RangeError()", "RangeError"),
    ("from far below", "function f(n) { return n ? f(n - 1) : g() } return f(60)", "ReferenceError"),
    ("from a getter of the answer", "return { data: { get a() { throw new Error('late') } } }", "late"),
    ("a circle", "var a = {}; a.a = a; return { data: a }", "circular"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), [row[1:] for row in THROWN], ids=[row[0] for row in THROWN])
def test_what_scripts_throw(decode: Decode, body: str, message: str) -> None:
    """Each failure says what was thrown, is the script's alone, and leaves the child to the next one."""
    result = decode(BODY.format(body))
    assert result.kind == "script_failed"
    assert message in result.text
    assert "memory" not in result.text
    assert answer(decode, script("", "1")) == 1
