"""Ways in which a script could keep something from one frame to the next."""

from __future__ import annotations

WRITE, READ = b"\1", b"\2"

# Name -> (top level, what a write does, what a read sees). A frame of 1 writes, a frame of 2 reads.
CHANNELS = {
    "top-level variable": ("var n;", "n = 1;", "n"),
    "top-level let": ("let n;", "n = 1;", "n"),
    "closure": (
        "var box = (function () { var n; return { set: function () { n = 1; }, get: function () { return n; } }; })();",
        "box.set();",
        "box.get()",
    ),
    "object of the top level": ("var box = {};", "box.n = 1;", "box.n"),
    "module": ("", "module.exports.n = 1;", "module.exports.n"),
    "require": ("", "require.n = 1;", "require.n"),
    "own function": ("", "decodeUplink.n = 1;", "decodeUplink.n"),
    "function of the top level": ("var self = arguments.callee;", "self.n = 1;", "self.n"),
    "prototype of the top level": ("var self = arguments.callee;", "self.prototype.n = 1;", "self.prototype.n"),
    "its caller": ("var self = arguments.callee.caller;", "self.n = 1;", "self && self.n"),
    "undeclared variable": ("", "n = 1;", "typeof n === 'undefined' ? undefined : n"),
    "undeclared variable, twice": ("", "n = 1; m = 2;", "typeof m === 'undefined' ? undefined : m"),
    "global object": ("", "globalThis.n = 1;", "globalThis.n"),
    "global object by this": ("", "(function () { this.n = 1; })();", "(function () { return this.n; })()"),
    "global object by Function": ("", "Function('return this')().n = 1;", "Function('return this')().n"),
    "global object by constructor": ("", "[].constructor.constructor('this.n = 1')();", "globalThis.n"),
    "global object by eval": ("", "(0, eval)('var n = 1');", "globalThis.n"),
    "global object, symbol": ("", "globalThis[Symbol.for('n')] = 1;", "globalThis[Symbol.for('n')]"),
    "global object, hidden": (
        "",
        "Object.defineProperty(globalThis, 'n', { value: 1, configurable: true });",
        "globalThis.n",
    ),
    "global object, fixed": ("", "Object.defineProperty(globalThis, 'n', { value: 1 });", "globalThis.n"),
    "global object, getter": (
        "",
        "Object.defineProperty(globalThis, 'n', { get: function () { return 1; } });",
        "globalThis.n",
    ),
    "global object, overwritten": ("", "globalThis.Array = 1;", "typeof Array === 'function' ? undefined : 1"),
    "global object, deleted": ("", "delete globalThis.Array;", "typeof Array === 'function' ? undefined : 1"),
    "global object's prototype": ("", "Object.setPrototypeOf(globalThis, { n: 1 });", "globalThis.n"),
    "global object closed": (
        "",
        "Object.preventExtensions(globalThis);",
        "Object.isExtensible(globalThis) ? undefined : 1",
    ),
    "global of the top level": ("globalThis.n = globalThis.n || {};", "globalThis.n.m = 1;", "globalThis.n.m"),
    "Object.prototype": ("", "Object.prototype.n = 1;", "({}).n"),
    "Object.prototype by __proto__": ("", "({}).__proto__.n = 1;", "({}).n"),
    "Object.prototype by JSON": ("", "Object.assign({}.__proto__, JSON.parse('{\"n\": 1}'));", "({}).n"),
    "Array.prototype": ("", "Array.prototype.n = 1;", "[].n"),
    "Array.prototype, index": ("", "Array.prototype[3] = 1;", "[][3]"),
    "Array.prototype, replaced": ("", "Array.prototype.map = null;", "[].map ? undefined : 1"),
    "Function.prototype": ("", "Function.prototype.n = 1;", "(function () {}).n"),
    "String.prototype": ("", "String.prototype.n = 1;", "''.n"),
    "Math": ("", "Math.n = 1;", "Math.n"),
    "JSON": ("", "JSON.n = 1;", "JSON.n"),
    "Date": ("", "Date.n = 1;", "Date.n"),
    "console": ("", "console.n = 1; console.log.n = 1;", "console.n || console.log.n"),
    "Buffer": ("", "Buffer.n = 1; Buffer.prototype.n = 1;", "Buffer.n || Buffer.prototype.n"),
    "TextDecoder": ("", "TextDecoder.prototype.n = 1;", "TextDecoder.prototype.n"),
    "typed arrays": ("", "Object.getPrototypeOf(Uint8Array).n = 1;", "Object.getPrototypeOf(Uint8Array).n"),
    "iterators": (
        "",
        "Object.getPrototypeOf([][Symbol.iterator]()).n = 1;",
        "Object.getPrototypeOf([][Symbol.iterator]()).n",
    ),
    "generators": ("", "Object.getPrototypeOf(function* () {}).n = 1;", "Object.getPrototypeOf(function* () {}).n"),
    "asynchronous functions": ("", "(async function () {}).constructor.n = 1;", "(async function () {}).constructor.n"),
    "asynchronous generators": (
        "",
        "Object.getPrototypeOf(async function* () {}).prototype.n = 1;",
        "Object.getPrototypeOf(async function* () {}).prototype.n",
    ),
    "iterator helpers": (
        "",
        "Object.getPrototypeOf([].values().map((a) => a)).n = 1;",
        "Object.getPrototypeOf([].values().map((a) => a)).n",
    ),
    "matches": ("", "Object.getPrototypeOf(''.matchAll(/a/g)).n = 1;", "Object.getPrototypeOf(''.matchAll(/a/g)).n"),
    "getter of the language": (
        "",
        "Object.getOwnPropertyDescriptor(Object.prototype, 'toString').get.n = 1;",
        "Object.getOwnPropertyDescriptor(Object.prototype, 'toString').get.n",
    ),
    "setter of the language": (
        "",
        "Object.getOwnPropertyDescriptor(Object.prototype, 'toString').set.prototype.n = 1;",
        "Object.getOwnPropertyDescriptor(Object.prototype, 'toString').set.prototype.n",
    ),
    "thrower of the language": (
        (
            "var thrower = Object.getOwnPropertyDescriptor((function "
            "() { 'use strict'; return arguments; })(), 'callee').get;"
        ),
        "thrower.n = 1;",
        "thrower.n",
    ),
    "errors": (
        "",
        "Error.prepareStackTrace = function () { return 'kept'; };",
        "new Error('x').stack === 'kept' ? 1 : undefined",
    ),
    "depth of stacks": ("", "Error.stackTraceLimit = 0;", "new Error('x').stack ? undefined : 1"),
    "regular expression": ("var r = /a/g;", "r.test('aa');", "r.lastIndex || undefined"),
    "template": ("function t(s) { return s; }", "try { t`a`.n = 1; } catch (e) {}", "t`a`.n"),
    "variables": ("", "input.variables.n = 1;", "input.variables.n"),
    "nested variables": ("", "input.variables.inner.n = 1;", "input.variables.inner.n"),
    "helper on a prototype": (
        "Array.prototype.h = function () { return undefined; };",
        "Array.prototype.h = function () { return 1; };",
        "[].h()",
    ),
    "property of a helper": ("Array.prototype.h = function () {};", "Array.prototype.h.n = 1;", "Array.prototype.h.n"),
    "helper's variable": ("var n; Array.prototype.h = function (v) { if (v) n = v; return n; };", "[].h(1);", "[].h()"),
    "defineProperty beside helpers": (
        "Array.prototype.h = 1;",
        "Object.defineProperty.n = 1;",
        "Object.defineProperty.n",
    ),
    "promise": ("", "Promise.resolve().then(function () { globalThis.n = 1; });", "globalThis.n"),
    "getter in the result": ("", "return { data: { get a() { globalThis.n = 1; return 1; } } };", "globalThis.n"),
    "toJSON in the result": (
        "",
        "return { data: { toJSON: function () { globalThis.n = 1; return {}; } } };",
        "globalThis.n",
    ),
    "error's text": ("", "throw { toString: function () { globalThis.n = 1; return 'x'; } };", "globalThis.n"),
    "symbol of a class": ("class K {} ", "K[Symbol.for('n')] = 1;", "K[Symbol.for('n')]"),
    "private member of the language": (
        "class B { constructor(o) { return o; } } class S extends B { #n = 1; static has(o) { return #n in o; } }",
        "new S(Math);",
        "S.has(Math) || undefined",
    ),
    "iterators that lie": (
        "Object.getPrototypeOf([][Symbol.iterator]()).next = function () { return { done: true }; };",
        "globalThis.n = 1;",
        "globalThis.n",
    ),
    "keys that lie": ("Reflect.ownKeys = function () { return []; };", "globalThis.n = 1;", "globalThis.n"),
}


def script(top: str, write: str, read: str) -> str:
    """Return a script that writes or reads by its first byte."""
    return (
        f"{top}\nfunction decodeUplink(input) {{\n  if (input.bytes[0] === 1) {{ {write} return {{ data: {{}} }}; }}\n"
        f"  return {{ data: {{ seen: {read} }} }};\n}}\n"
    )
