// Platform features that scripts expect, in plain JavaScript: TextDecoder and TextEncoder of browsers, Buffer of Node
// (its reading methods, and those needed to build one), and a console without output.
// Evaluated before harness.js, which freezes it with everything else.
(function () {
  "use strict";
  const hidden = (name, value) =>
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  const MALFORMED = 0xfffd;

  // ── UTF-8 ─────────────────────────────────────────────────────────────────────────────────────────

  function utf8(bytes, fatal) {
    let text = "";
    let at = 0;
    while (at < bytes.length) {
      const first = bytes[at++];
      let code = first;
      let more = 0;
      let least = 0;
      if (first >= 0x80) {
        if (first >= 0xc2 && first < 0xe0) [code, more, least] = [first & 0x1f, 1, 0x80];
        else if (first >= 0xe0 && first < 0xf0) [code, more, least] = [first & 0x0f, 2, 0x800];
        else if (first >= 0xf0 && first < 0xf5) [code, more, least] = [first & 0x07, 3, 0x10000];
        else [code, more, least] = [-1, 0, 0];
      }
      let end = at;
      while (more > 0 && end < bytes.length && (bytes[end] & 0xc0) === 0x80) {
        code = (code << 6) | (bytes[end++] & 0x3f);
        more -= 1;
      }
      const wrong = more > 0 || code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) || code < 0;
      if (wrong && fatal) throw new TypeError("the bytes are no UTF-8");
      at = wrong ? Math.max(at, end - 1) : end;
      text += String.fromCodePoint(wrong ? MALFORMED : code);
    }
    return text;
  }

  function utf8Bytes(text) {
    const bytes = [];
    for (const letter of String(text)) {
      let code = letter.codePointAt(0);
      if (code >= 0xd800 && code < 0xe000) code = MALFORMED;
      if (code < 0x80) bytes.push(code);
      else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 0x3f));
      else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
      else {
        bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 0x3f), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
      }
    }
    return bytes;
  }

  function bytesOf(source) {
    if (source === undefined) return new Uint8Array(0);
    if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
    if (source instanceof ArrayBuffer) return new Uint8Array(source);
    throw new TypeError("not bytes");
  }

  function latin1(bytes) {
    let text = "";
    for (let at = 0; at < bytes.length; at += 1) text += String.fromCharCode(bytes[at] & 0xff);
    return text;
  }

  function utf16(bytes) {
    let text = "";
    for (let at = 0; at + 1 < bytes.length; at += 2) text += String.fromCharCode(bytes[at] | (bytes[at + 1] << 8));
    return text;
  }

  const ENCODINGS = {
    __proto__: null,
    "utf-8": "utf-8", utf8: "utf-8", ascii: "latin1", "us-ascii": "latin1", "iso-8859-1": "latin1",
    latin1: "latin1", "windows-1252": "latin1", "utf-16le": "utf-16le", "utf-16": "utf-16le", utf16le: "utf-16le",
  };

  class TextDecoder {
    #encoding;
    #fatal;
    constructor(label = "utf-8", { fatal = false } = {}) {
      this.#encoding = ENCODINGS[String(label).trim().toLowerCase()];
      if (this.#encoding === undefined) throw new RangeError(`unknown encoding '${label}'`);
      this.#fatal = Boolean(fatal);
    }
    get encoding() {
      return this.#encoding;
    }
    decode(source) {
      const bytes = bytesOf(source);
      if (this.#encoding === "latin1") return latin1(bytes);
      if (this.#encoding === "utf-16le") return utf16(bytes);
      return utf8(bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes, this.#fatal);
    }
  }

  class TextEncoder {
    get encoding() {
      return "utf-8";
    }
    encode(text = "") {
      return new Uint8Array(utf8Bytes(text));
    }
  }

  // ── Buffer ────────────────────────────────────────────────────────────────────────────────────────

  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

  function base64(bytes) {
    let text = "";
    for (let at = 0; at < bytes.length; at += 3) {
      const left = bytes.length - at;
      const three = (bytes[at] << 16) | ((left > 1 ? bytes[at + 1] : 0) << 8) | (left > 2 ? bytes[at + 2] : 0);
      text += LETTERS[three >> 18] + LETTERS[(three >> 12) & 63];
      text += (left > 1 ? LETTERS[(three >> 6) & 63] : "=") + (left > 2 ? LETTERS[three & 63] : "=");
    }
    return text;
  }

  function base64Bytes(text) {
    const bytes = [];
    let bits = 0;
    let held = 0;
    for (const letter of text.replace(/-/g, "+").replace(/_/g, "/")) {
      const six = LETTERS.indexOf(letter);
      if (letter === "=") break;
      if (six < 0) continue;
      held = ((held << 6) | six) & 0xffffff;
      bits += 6;
      if (bits >= 8) bytes.push((held >> (bits -= 8)) & 0xff);
    }
    return bytes;
  }

  function encoded(text, encoding) {
    switch (String(encoding ?? "utf8").toLowerCase()) {
      case "hex": {
        const bytes = [];
        for (let at = 0; at + 1 < text.length; at += 2) {
          const pair = text.slice(at, at + 2);
          if (!/^[0-9a-fA-F]{2}$/.test(pair)) break; // as Node does
          bytes.push(parseInt(pair, 16));
        }
        return bytes;
      }
      case "base64":
      case "base64url":
        return base64Bytes(text);
      case "latin1":
      case "binary":
      case "ascii":
        return Array.from({ length: text.length }, (_, at) => text.charCodeAt(at) & 0xff);
      case "utf8":
      case "utf-8":
        return utf8Bytes(text);
      default:
        throw new TypeError(`unknown encoding '${encoding}'`);
    }
  }

  class Buffer extends Uint8Array {
    static from(source, encoding, length) {
      if (typeof source === "string") return new Buffer(encoded(source, encoding));
      if (source instanceof ArrayBuffer) return new Buffer(source, encoding, length);
      return new Buffer(Array.from(source, (value) => Number(value) & 0xff));
    }
    static alloc(size, fill = 0) {
      return new Buffer(size).fill(fill);
    }
    static allocUnsafe(size) {
      return new Buffer(size);
    }
    static isBuffer(value) {
      return value instanceof Buffer;
    }
    static byteLength(text, encoding) {
      return encoded(String(text), encoding).length;
    }
    static concat(parts, total) {
      const bytes = [];
      for (const part of parts) for (let at = 0; at < part.length; at += 1) bytes.push(part[at]);
      return Buffer.from(total === undefined ? bytes : bytes.slice(0, total));
    }
    slice(start, end) {
      return this.subarray(start, end);
    }
    toString(encoding = "utf8", start = 0, end = this.length) {
      const bytes = this.subarray(start, end);
      switch (String(encoding).toLowerCase()) {
        case "hex":
          return bytes.reduce((text, value) => text + (value < 16 ? "0" : "") + value.toString(16), "");
        case "base64":
          return base64(bytes);
        case "base64url":
          return base64(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
        case "ascii":
          return latin1(bytes.map((value) => value & 0x7f));
        case "latin1":
        case "binary":
          return latin1(bytes);
        case "utf16le":
        case "ucs2":
          return utf16(bytes);
        default:
          return utf8(bytes, false);
      }
    }
    toJSON() {
      return { type: "Buffer", data: Array.from(this) };
    }
    equals(other) {
      return this.length === other.length && this.every((value, at) => value === other[at]);
    }
    write(text, offset = 0, length = this.length - offset, encoding = "utf8") {
      const bytes = encoded(text, encoding).slice(0, length);
      this.set(bytes, offset);
      return bytes.length;
    }
    readUIntBE(offset, size) {
      let value = 0;
      for (let at = 0; at < size; at += 1) value = value * 256 + byteAt(this, offset + at);
      return value;
    }
    readUIntLE(offset, size) {
      let value = 0;
      for (let at = size - 1; at >= 0; at -= 1) value = value * 256 + byteAt(this, offset + at);
      return value;
    }
    readIntBE(offset, size) {
      return signed(this.readUIntBE(offset, size), size);
    }
    readIntLE(offset, size) {
      return signed(this.readUIntLE(offset, size), size);
    }
  }

  function byteAt(buffer, at) {
    if (!(at >= 0 && at < buffer.length)) {
      throw new RangeError(`The value of "offset" is out of range: byte ${at} of ${buffer.length}`);
    }
    return buffer[at];
  }

  function signed(value, size) {
    const half = 2 ** (8 * size - 1);
    return value >= half ? value - 2 * half : value;
  }

  const KINDS = [
    ["Int8", 1], ["Uint8", 1], ["Int16", 2], ["Uint16", 2], ["Int32", 4], ["Uint32", 4],
    ["BigInt64", 8], ["BigUint64", 8], ["Float32", 4], ["Float64", 8],
  ];
  const NODE = { __proto__: null, Float32: "Float", Float64: "Double" };
  for (const [kind, size] of KINDS) {
    for (const little of size === 1 ? [false] : [false, true]) {
      const name = (NODE[kind] ?? kind) + (size === 1 ? "" : little ? "LE" : "BE");
      const view = (buffer, offset) => {
        byteAt(buffer, offset);
        byteAt(buffer, offset + size - 1);
        return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
      };
      const read = function (offset = 0) {
        return view(this, offset)["get" + kind](offset, little);
      };
      const write = function (value, offset = 0) {
        view(this, offset)["set" + kind](offset, value, little);
        return offset + size;
      };
      for (const word of [name, name.replace(/^Uint/, "UInt").replace(/^BigUint/, "BigUInt")]) {
        for (const [verb, method] of [["read", read], ["write", write]]) {
          Object.defineProperty(Buffer.prototype, verb + word, {
            value: method, writable: true, configurable: true, enumerable: false,
          });
        }
      }
    }
  }

  const silent = {};
  for (const name of ["log", "info", "warn", "error", "debug", "trace", "assert", "dir"]) silent[name] = function () {};

  // The engine ignores the zone that is asked for, and would tell a wrong time.
  for (const name of ["toLocaleString", "toLocaleDateString", "toLocaleTimeString"]) {
    const plain = Date.prototype[name];
    const checked = {
      [name](locale, options) {
        const zone = options?.timeZone;
        if (zone !== undefined && !/^(Etc\/)?(UTC|GMT)$/i.test(zone)) {
          throw new RangeError(`timeZone '${zone}' is not to be had: scripts have UTC alone`);
        }
        return plain.call(this, locale, options);
      },
    };
    Object.defineProperty(Date.prototype, name, { value: checked[name] });
  }

  hidden("TextDecoder", TextDecoder);
  hidden("TextEncoder", TextEncoder);
  hidden("Buffer", Buffer);
  hidden("console", silent);
})();
