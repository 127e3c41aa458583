"""Codec scripts that try to escape, to run for ever, or to take all memory."""

from __future__ import annotations

GOOD = "function decodeUplink(input) { return { data: { value: input.bytes[0] } }; }"


# What runs away -> code. All of it is contained within the limits of one call.
RUNAWAYS = {
    "endless loop": "while (true) {}",
    "endless loop that catches": "for (;;) { try { for (;;) {} } catch (e) {} finally { continue; } }",
    "endless recursion that catches": "(function f() { try { f(); } catch (e) {} f(); })();",
    "deep recursion": "(function f() { return 1 + f(); })();",
    "mutual recursion by getters": "var o = { get a() { return this.a; } }; o.a;",
    "memory bomb": "var a = []; for (;;) a.push(new Array(1000).fill(1));",
    "memory bomb that catches": (
        "var a = []; for (;;) { try { for (;;) a.push(new Array(1000).fill(1)); } catch (e) {} }"
    ),
    "string bomb": "var s = 'x'; for (;;) s += s;",
    "repeated string": "'a'.repeat(Math.pow(2, 30));",
    "array of all the world": "new Array(1e9).join('x');",
    "array as text": "new Array(5e7) + '';",
    "typed array": "new Uint8Array(2e9);",
    "sparse array": "var a = []; a.length = 4294967295; a.indexOf(5);",
    "regular expression bomb": "/^(a+)+$/.test('a'.repeat(40) + 'b');",
    "regular expression bomb, backreference": "/^(\\w+\\s?)*\\1$/.test('x'.repeat(60) + '!');",
    "native search": "'a'.repeat(5e6).indexOf('a'.repeat(2e6) + 'b');",
    "native replacement": "'a'.repeat(6e6).replaceAll('a', 'bb');",
    "native copying": "var a = new Uint8Array(8e6); for (;;) a.copyWithin(0, 1);",
    "native sorting": (
        "Array.from({ length: 3e5 }, function (_, i) { return -i; }).sort(function (a, b) { return a - b; });"
    ),
    "big numbers": "var n = 3n; for (;;) n *= n;",
    "generator without end": "function* g() { for (;;) yield 1; } for (var x of g()) {}",
    "spread without end": "[...(function* () { for (;;) yield 1; })()];",
    "proxy without end": "var p = new Proxy({}, { get: function () { return p; } }); for (;;) p = p.x;",
    "prototype chain without end": "for (var o = {};;) o = Object.create(o);",
    "closures": "var f = function () {}; for (;;) f = (function (g) { return function () { return g; }; })(f);",
    "JSON of a deep tree": "for (var o = {}, p = o, i = 0; i < 1e5; i++) p = p.a = {}; JSON.stringify(o);",
    "JSON text, deep": "JSON.parse('['.repeat(1e6));",
    "promises": (
        "(function f() { return Promise.resolve().then(f); })(); for (;;) Promise.resolve().then(function () {});"
    ),
    "symbols": "for (var i = 0;; i++) Symbol.for('s' + i);",
    "own code": "for (;;) new Function('return 1');",
    "dates": "for (;;) new Date().toString();",
}


def hostile(code: str) -> str:
    """Return a script that misbehaves for frames that begin with 1."""
    return (
        "function decodeUplink(input) {\n"
        "  if (input.bytes[0] !== 1) return { data: { value: input.bytes[0] } };\n"
        f"  {code}\n"
        "  return { data: { ran: true } };\n"
        "}\n"
    )
