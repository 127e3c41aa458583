// The JavaScript realm of one codec script: forbidden features are removed, everything shared between calls is frozen,
// and every call starts with the script's own top level, as if the script had just been loaded.
//
// Evaluates to {learn, open}. `learn(make)` runs the top level once in a realm that is not frozen and reports what it
// adds to the built-in objects; `open(make, options)` freezes the realm and returns `run(text, port, received)` for one
// frame and for many.
//
// `make` is the script as a function: (module, exports, require, …) -> the entries, in the order of their names.
(function () {
  "use strict";
  const world = globalThis;
  const {
    apply, construct, ownKeys, getPrototypeOf, setPrototypeOf, defineProperty, deleteProperty, isExtensible,
    preventExtensions,
  } = Reflect;
  const describe = Reflect.getOwnPropertyDescriptor;
  const { freeze, create, is } = Object;
  const { stringify, parse } = JSON;
  const { isArray } = Array;
  const List = Array;
  const listOf = Array.of;
  const bytesOfHex = Uint8Array.fromHex;
  const Bytes = Uint8Array;
  const { isFinite } = Number;
  const text = String;
  const loose = (method) => Function.prototype.call.bind(method);
  const joined = loose(Array.prototype.join);
  const has = loose(String.prototype.includes);
  const cut = loose(String.prototype.slice);
  const part = loose(Array.prototype.slice);
  const wellFormed = loose(String.prototype.toWellFormed);
  const replaced = loose(String.prototype.replaceAll);
  const search = loose(RegExp.prototype.exec);
  const knows = loose(Map.prototype.has);
  const recall = loose(Map.prototype.get);
  const sourceOf = loose(Function.prototype.toString);
  const RealDate = Date;
  const RealError = Error;

  const MEMBERS_MAX = 1024;

  // ── forbidden features ───────────────────────────────────────────────────────────────────────────

  // Clocks, threads, and observers of the garbage collector. (Files, network and host objects do not exist here.)
  for (const name of [
    "performance", "SharedArrayBuffer", "Atomics", "WeakRef", "FinalizationRegistry", "queueMicrotask", "DOMException",
  ]) {
    delete world[name];
  }
  // Accessors that store values within the engine, where freezing has no effect.
  delete RealError.prepareStackTrace;
  delete RealError.stackTraceLimit;

  let now = 0;
  /** The clock is fixed at the time of reception, so that a payload always decodes to the same result. */
  function DeterministicDate(...given) {
    if (!new.target) return new RealDate(now).toString();
    return construct(RealDate, given.length === 0 ? [now] : given, new.target);
  }
  defineProperty(DeterministicDate, "name", { value: "Date" });
  defineProperty(DeterministicDate, "length", { value: 7 });
  DeterministicDate.prototype = RealDate.prototype;
  defineProperty(RealDate.prototype, "constructor", { value: DeterministicDate, writable: true, configurable: true });
  DeterministicDate.UTC = RealDate.UTC;
  DeterministicDate.parse = RealDate.parse;
  DeterministicDate.now = function () {
    return now;
  };
  for (const name of ["UTC", "parse", "now"]) defineProperty(DeterministicDate, name, { enumerable: false });
  defineProperty(world, "Date", { value: DeterministicDate, writable: true, configurable: true, enumerable: false });
  Math.random = function random() {
    throw new RealError("Math.random is not to be had: the same payload must always decode to the same");
  };
  function require(name) {
    if (name === "buffer" || name === "node:buffer") return { Buffer: world.Buffer };
    throw new RealError(`require('${text(name)}'): a script has no modules`);
  }

  // ── built-in objects ──────────────────────────────────────────────────────────────────────────────

  /** All built-in objects, in the same order in every realm. */
  const language = [];
  const met = new Set();
  const ahead = [
    world, require, function* () {}, async function () {}, async function* () {}, [][Symbol.iterator](),
    new Map()[Symbol.iterator](), new Set()[Symbol.iterator](), ""[Symbol.iterator](), "".matchAll(/x/g),
    (function* () {})(), (async function* () {})(), [].values().map((object) => object), Iterator.from({ next() {} }),
  ];
  const samples = ahead.length;
  for (let at = 0; at < ahead.length; at += 1) {
    const object = ahead[at];
    if ((typeof object !== "object" && typeof object !== "function") || object === null || met.has(object)) continue;
    met.add(object);
    if (at === 0 || at >= samples || object === require) language.push(object);
    ahead.push(getPrototypeOf(object));
    const keys = ownKeys(object);
    if (typeof object === "function" && keys.length === 2) continue; // length and name only, as most functions
    for (const key of keys) {
      const found = describe(object, key);
      if ("value" in found) ahead.push(found.value);
      else ahead.push(found.get, found.set);
    }
  }

  // ── inspection────────────────────────────────────────────────────────────────────────────────────

  function callable(entries) {
    const found = [];
    for (let at = 0; at < entries.length; at += 1) found[at] = typeof entries[at] === "function";
    return found;
  }

  /** Parameter names of a function, as far as they are simple identifiers. */
  function parameters(entry) {
    const found = search(/^[^(]*\(([^)]*)\)|^\s*(?:async\s+)?([\w$]+)\s*=>/, sourceOf(entry));
    return found === null ? "" : (found[1] ?? found[2] ?? "");
  }

  /** The built-in object that a dotted name means, as its place in `language`; -1 if it means none. */
  function place(name) {
    let object = world;
    for (const part of name.split(".")) {
      const found = object === undefined || object === null ? undefined : describe(object, part);
      object = found && found.value;
    }
    return language.indexOf(object);
  }

  /** Places and names of the members of built-in objects that bear one of these names and can be assigned. */
  function members(names) {
    const sought = new Set(names);
    const found = [];
    for (let at = 0; at < language.length; at += 1) {
      for (const key of ownKeys(language[at])) {
        if (sought.has(key) && describe(language[at], key).writable) found.push([at, key]);
      }
    }
    return found.slice(0, MEMBERS_MAX);
  }

  /**
   * Run the top level once; return JSON: the helpers that it adds to built-in objects ([object, name]) and the members
   * that it deletes there, the globals that it creates, which entries are functions, and their parameters. `given` names
   * the members that its text assigns or deletes, and the objects on which it does: what it does only sometimes, or in a
   * call, cannot be seen by running it.
   */
  function learn(make, given) {
    const { names: assignedNames, deleted: deletedNames, targets } = parse(given);
    const assigned = members(assignedNames);
    const helpers = members(deletedNames);
    const extended = targets.map(place).filter((at) => at > 0);
    const before = [];
    const keysBefore = [];
    for (const object of language) {
      const known = new Map();
      for (const key of ownKeys(object)) known.set(key, describe(object, key).value);
      before.push(known);
      keysBefore.push(ownKeys(object));
    }
    const module = { exports: {} };
    const entries = apply(make, world, [module, module.exports, require]);
    // From here on nothing is used that the script may have replaced, such as iterators and methods of arrays and maps.
    const globals = [];
    for (let at = 0; at < language.length; at += 1) {
      for (let number = 0; number < keysBefore[at].length; number += 1) {
        const key = keysBefore[at][number];
        if (typeof key === "string" && !describe(language[at], key)) helpers[helpers.length] = [at, key];
      }
      const keys = ownKeys(language[at]);
      for (let number = 0; number < keys.length; number += 1) {
        const key = keys[number];
        const found = describe(language[at], key);
        const known = knows(before[at], key);
        if (known && is(recall(before[at], key), found.value)) continue;
        if (typeof key === "symbol") throw new TypeError("the script puts a symbol on an object of the language");
        if (at === 0 && !known) globals[globals.length] = key;
        else if ("value" in found) helpers[helpers.length] = [at, key];
        else throw new TypeError(`the script puts an accessor '${key}' on an object of the language`);
      }
    }
    const names = [];
    for (let at = 0; at < entries.length; at += 1) {
      names[at] = typeof entries[at] === "function" ? parameters(entries[at]) : "";
    }
    return stringify({ helpers, assigned, extended, globals, entries: callable(entries), parameters: names });
  }

  // ── what a script may change ──────────────────────────────────────────────────────────────────────

  /**
   * The members of built-in objects that the script assigns stay open, and get their own values back after each call:
   * a call sees its own assignments (a polyfill, a helper), the next one does not.
   */
  class OpenMembers {
    constructor(options) {
      this.byObject = new Map(); // object -> Set of its open members
      this.extended = new Map(); // object that may gain members -> {known, count, parent}
      this.slots = [];
      for (const [at, key] of options.helpers) this.open(language[at], key);
      for (const [at, key] of options.assigned) this.open(language[at], key);
      for (const [at, key] of members(options.opened)) this.open(language[at], key);
      for (const [at] of options.helpers) this.extend(language[at]);
      for (const at of options.extended) this.extend(language[at]);
      if (options.extendAll) {
        for (const key of ownKeys(world)) {
          const { value } = describe(world, key);
          for (const object of [value, value?.prototype]) if (language.includes(object)) this.extend(object);
        }
      }
      for (const slot of this.slots) slot.loose = slot.target === world || this.extended.has(slot.target);
      if (this.slots.length > 0 || this.extended.size > 0) this.replaceDefinitions();
      this.targets = [...this.extended];
    }

    open(target, key) {
      if (target === world && !describe(world, key)?.writable) return;
      const keys = this.byObject.get(target) ?? new Set();
      this.byObject.set(target, keys);
      const found = describe(target, key);
      if (keys.has(key) || found === undefined) return; // a helper that the object does not have before the call
      keys.add(key);
      this.slots.push({ target, key, value: found.value, enumerable: found.enumerable, loose: false });
    }

    extend(target) {
      if (target === world || this.extended.has(target)) return;
      if (!this.byObject.has(target)) this.byObject.set(target, new Set());
      const known = create(null);
      for (const key of ownKeys(target)) known[key] = true;
      this.extended.set(target, { known, count: ownKeys(target).length, parent: getPrototypeOf(target) });
    }

    /** `Object.defineProperty` makes members that cannot be removed, unless it is told otherwise. */
    replaceDefinitions() {
      const { extended } = this;
      const holds = (target) => knows(extended, target);
      const { defineProperties } = Object;
      const define = Object.defineProperty;
      Object.defineProperty = function (target, key, how) {
        return define(target, key, holds(target) ? { ...how, configurable: true } : how);
      };
      Object.defineProperties = function (target, all) {
        if (!holds(target)) return defineProperties(target, all);
        const keys = ownKeys(all);
        for (let at = 0; at < keys.length; at += 1) define(target, keys[at], { ...all[keys[at]], configurable: true });
        return target;
      };
      Reflect.defineProperty = function (target, key, how) {
        return defineProperty(target, key, holds(target) ? { ...how, configurable: true } : how);
      };
      for (const made of [Object.defineProperty, Object.defineProperties, Reflect.defineProperty]) {
        freeze(made.prototype);
        freeze(made);
      }
    }

    /** Freeze an object but for its open members. */
    close(target) {
      const open = this.byObject.get(target);
      if (open === undefined) {
        freeze(target);
        return;
      }
      const loose = this.extended.has(target);
      for (const key of ownKeys(target)) {
        const found = describe(target, key);
        if (open.has(key)) defineProperty(target, key, { writable: true, configurable: loose });
        else if ("value" in found) defineProperty(target, key, { writable: false, configurable: false });
        else defineProperty(target, key, { configurable: false });
      }
      if (!loose) preventExtensions(target);
    }

    isOpen(target, key) {
      return this.byObject.get(target)?.has(key) ?? false;
    }

    /** Give all open members their own values back; return the name of one that cannot have it, or "". */
    restore() {
      const { slots, targets } = this;
      for (let at = 0; at < slots.length; at += 1) {
        const { target, key, value, enumerable, loose: isLoose } = slots[at];
        if (isLoose) {
          const found = describe(target, key);
          if (found !== undefined && is(found.value, value) && found.writable) continue;
          if (!defineProperty(target, key, { value, writable: true, enumerable, configurable: true })) return text(key);
        } else if (!is(target[key], value) && !defineProperty(target, key, { value })) return text(key);
      }
      for (let at = 0; at < targets.length; at += 1) {
        const target = targets[at][0];
        const { known, count, parent } = targets[at][1];
        const keys = ownKeys(target);
        if (keys.length !== count) {
          for (let number = 0; number < keys.length; number += 1) {
            if (!known[keys[number]] && !deleteProperty(target, keys[number])) return text(keys[number]);
          }
        }
        if (!isExtensible(target) || getPrototypeOf(target) !== parent) return "its prototype";
      }
      return "";
    }
  }

  // ── freezing ──────────────────────────────────────────────────────────────────────────────────────

  function accessor(target, key, enumerable, get, set) {
    freeze(set.prototype);
    defineProperty(target, key, { get: freeze(get), set: freeze(set), enumerable, configurable: false });
  }

  /** Allow objects that inherit from a frozen one to define members of the same name: `Point.prototype.toString = …`. */
  function overridable(target, key) {
    const found = describe(target, key);
    if (found === undefined || !("value" in found) || !found.configurable) return;
    const { value } = found;
    accessor(target, key, found.enumerable, () => value, function (other) {
      if (this === target) throw new TypeError(`'${key}' is read-only`);
      defineProperty(this, key, { value: other, writable: true, enumerable: true, configurable: true });
    });
  }

  function freezeAll(open) {
    const inherited = (target, key) => {
      if (!open.isOpen(target, key)) overridable(target, key);
    };
    const errors = [RealError];
    for (const object of language) if (typeof object === "function" && getPrototypeOf(object) === RealError) errors.push(object);
    for (const error of errors) {
      for (const key of ["constructor", "name", "message", "toString"]) inherited(error.prototype, key);
    }
    for (const key of ownKeys(Object.prototype)) if (key !== "__proto__") inherited(Object.prototype, key);
    for (const key of ["constructor", "toString"]) inherited(Function.prototype, key);
    for (let at = 1; at < language.length; at += 1) open.close(language[at]);
    closeGlobal(open);
  }

  /**
   * Freeze the names of the global object, on an object from which it inherits them: what a call leaves on the global
   * object is then found without a look at all of them.
   */
  function closeGlobal(open) {
    const names = create(getPrototypeOf(world));
    for (const key of ownKeys(world)) {
      const found = describe(world, key);
      if (open.isOpen(world, key)) defineProperty(world, key, { writable: true, configurable: true });
      else if (!found.configurable) {
        if ("value" in found) defineProperty(world, key, { writable: false });
      } else if (deleteProperty(world, key)) defineProperty(names, key, found);
    }
    setPrototypeOf(world, freeze(names));
  }

  // ── calling ───────────────────────────────────────────────────────────────────────────────────────

  const MARK = "\u0000";
  const SEPARATOR = "\u001e";
  const ANSWERS_MAX = 65536;
  const NOTHING = "0";
  const TOLD_MAX = 240;
  const FRAME_MAX = 512;
  const NONE = freeze([]);
  const LIST_MAX = 16;

  /** JSON replacer: NaN and the infinities are written as such, integers of any size as numbers. */
  function careful(_key, value) {
    if (typeof value === "number" && !isFinite(value)) return MARK + text(value);
    if (typeof value === "bigint") {
      const number = Number(value);
      return BigInt(number) === value ? number : text(value);
    }
    return value;
  }

  function written(result) {
    let json;
    try {
      json = stringify(result);
    } catch {
      return stringify(result, careful); // a BigInt; anything that cannot be written throws again
    }
    return json !== undefined && has(json, "null") ? stringify(result, careful) : json;
  }

  function words(list) {
    const told = [];
    const given = isArray(list) ? list : list === undefined || list === null || list === "" ? [] : [list];
    for (let at = 0; at < given.length && at < LIST_MAX; at += 1) told[at] = cut(text(given[at]), 0, TOLD_MAX);
    return told;
  }

  /**
   * An answer as the engine's host can read it: in one piece (a concatenation may still be several), without halves of
   * characters, without NUL, at which the host would end it, and without the separator. In JSON all are escaped.
   */
  function whole(answer) {
    if (answer[0] === "{") return cut(answer, 0);
    return cut(replaced(replaced(wellFormed(answer), MARK, "\ufffd"), SEPARATOR, "\ufffd"), 0);
  }

  /** Describe an error as text; a script may throw anything, including objects that throw when inspected. */
  function told(fault) {
    try {
      if (!(fault instanceof RealError)) {
        const shown = text(fault);
        return cut(shown === "[object Object]" ? text(stringify(fault)) : shown, 0, TOLD_MAX);
      }
      return `${cut(text(fault.name), 0, 60)}: ${cut(text(fault.message), 0, TOLD_MAX)}\n${cut(text(fault.stack), 0, 2000)}`;
    } catch {
      return "it threw something that cannot be read";
    }
  }

  function open(make, given) {
    const options = parse(given);
    const { entry, normalise, shape, take, outputMax } = options;
    const openMembers = new OpenMembers(options);
    const hasOpenMembers = openMembers.slots.length > 0 || openMembers.targets.length > 0;
    const variables = options.variables;
    freezeDeep(variables);
    freeze(make);
    if (make.prototype) freeze(make.prototype);
    freezeAll(openMembers);

    const mine = create(null);
    for (const key of ownKeys(world)) mine[key] = true;
    const known = ownKeys(world).length;
    const ancestor = getPrototypeOf(world);
    const topLevel = create(null);
    for (const key of options.globals) topLevel[key] = true;
    const declared = create(null);
    for (const key of options.declared) declared[key] = true;

    /** Bytes as numbers, of any kind of list; null if it is none. */
    function numbers(list) {
      if (typeof list !== "object" || list === null || !(list.length >= 0 && list.length <= FRAME_MAX)) return null;
      const made = [];
      for (let at = 0; at < list.length; at += 1) {
        const byte = list[at];
        if (typeof byte !== "number" || !(byte >= 0 && byte <= 255) || byte % 1 !== 0) return null;
        made[at] = byte;
      }
      return made;
    }

    /** Encode a downlink: `sent` is the data as JSON. */
    function encode(entries, sent, fPort) {
      const encoder = entries[entry];
      if (typeof encoder !== "function") return "!the entry is gone";
      const data = parse(sent);
      let made;
      if (shape === "input") made = encoder({ data, fPort, variables });
      else {
        const parts = [];
        for (let at = 0; at < shape.length; at += 1) {
          const part = shape[at];
          parts[at] = part === "bytes" ? data : part === "port" ? fPort : variables;
        }
        made = { bytes: apply(encoder, undefined, parts) };
      }
      if (typeof made !== "object" || made === null) return "!it returned nothing";
      const errors = words(made.errors);
      if (errors.length > 0) return "?" + joined(errors, "; ");
      const bytes = numbers(made.bytes);
      if (bytes === null) return "!its bytes are no list of numbers from 0 to 255";
      const warnings = words(made.warnings);
      const to = typeof made.fPort === "number" ? made.fPort : fPort;
      return stringify({ d: { bytes, port: to === undefined ? null : to }, w: warnings });
    }

    function call(bytes, port, received, sent) {
      const module = { exports: {} };
      const entries = apply(make, world, [module, module.exports, require]);
      const decode = entries[entry];
      if (typeof decode !== "function") return "!the entry is gone";
      const fPort = port < 0 ? undefined : port;
      if (take === "encode") return encode(entries, sent, fPort);
      let result;
      if (shape === "input") {
        result = decode({ bytes, fPort, recvTime: new RealDate(received), variables });
        if (typeof result !== "object" || result === null) return "!it returned nothing";
        const refusals = result.errors;
        const errors = refusals === undefined ? NONE : words(refusals);
        if (errors.length > 0) return "?" + joined(errors, "; ");
        if (typeof result.then === "function") return "!it is asynchronous";
        if (result.data === undefined || result.data === null) return "!it returned no data and no errors";
      } else {
        const parts = [];
        for (let at = 0; at < shape.length; at += 1) {
          const part = shape[at];
          parts[at] = part === "bytes" ? bytes : part === "port" ? fPort
            : part === "received" ? new RealDate(received) : variables;
        }
        const data = apply(decode, undefined, parts);
        if (data === undefined || data === null) return "!it returned nothing";
        if (typeof data.then === "function") return "!it is asynchronous";
        result = { data };
      }
      if (typeof result.data !== "object" && take !== "both") return "!its data is no object";
      const cautions = result.warnings;
      const warnings = cautions === undefined ? [] : words(cautions);
      let data = result.data;
      if (take !== "data") {
        const normalised = entries[normalise]({ data, fPort, recvTime: new RealDate(received) });
        if (typeof normalised !== "object" || normalised === null) return "!normalizeUplink returned nothing";
        const errors = words(normalised.errors);
        if (errors.length > 0) return "?" + joined(errors, "; ");
        const more = words(normalised.warnings);
        for (let at = 0; at < more.length; at += 1) warnings[warnings.length] = more[at];
        if (normalised.data === undefined || normalised.data === null) return "!normalizeUplink returned no data";
        data = take === "both" ? { data, normalized: normalised.data } : normalised.data;
      }
      const json = written(warnings.length > 0 ? { d: data, w: warnings } : { d: data });
      if (json.length > outputMax) return "#" + json.length;
      return json;
    }

    /** Remove what the call left on the global object; return the properties that it should not have left. */
    function tidied(answer) {
      let unnamed = "";
      const keys = ownKeys(world); // by index: the script may have replaced iterators
      for (let at = 0; at < keys.length; at += 1) {
        const key = keys[at];
        if (mine[key]) continue;
        if (!deleteProperty(world, key)) return "~" + text(key) + " stays on the global object";
        if (typeof key === "symbol" || declared[key]) return "~" + text(key) + " was left on the global object";
        if (!topLevel[key]) unnamed += (unnamed && ",") + key;
      }
      return unnamed === "" ? answer : "*" + unnamed + "\n" + answer;
    }

    /** Call the script for one frame; everything that the call left is removed or reported before this returns. */
    function once(bytes, port, received, sent) {
      now = received;
      let answer;
      try {
        answer = call(bytes, port, received, sent);
      } catch (fault) {
        // Also what the engine throws when no memory is left for an error; it is the only one to throw it unbidden.
        answer = fault === null ? NOTHING : "!" + told(fault);
      }
      const stays = hasOpenMembers ? openMembers.restore() : "";
      if (stays !== "") return "~" + stays + " of an object of the language stays changed";
      if (getPrototypeOf(world) !== ancestor || !isExtensible(world)) return "~the global object was changed";
      return ownKeys(world).length === known ? answer : tidied(answer);
    }

    /** Call the script for many frames, whose bytes follow each other as hexadecimal digits. `heads` is a JSON list of
     * length, port and time after `first` of each. Returns the answers with SEPARATOR between them, as many as fit; with
     * one before them if any is not the result as JSON.
     */
    function many(hex, heads, first) {
      const numbers = parse(heads);
      const bytes = apply(listOf, List, apply(bytesOfHex, Bytes, [hex]));
      const answers = [];
      let start = 0;
      let room = ANSWERS_MAX;
      let lead = "";
      for (let at = 0; at < numbers.length && room > 0; at += 3) {
        const end = start + numbers[at];
        let answer = once(part(bytes, start, end), numbers[at + 1], first + numbers[at + 2], "");
        if (answer[0] !== "{") {
          answer = whole(answer);
          lead = SEPARATOR;
        }
        answers[answers.length] = answer;
        room -= answer.length;
        start = end;
      }
      return cut(lead + joined(answers, SEPARATOR), 0);
    }

    return function run(sent, port, received) {
      if (typeof port === "string") return many(sent, port, received);
      const bytes = [];
      for (let at = 0; at < sent.length; at += 1) bytes[at] = sent.charCodeAt(at);
      return whole(once(bytes, port, received, sent));
    };
  }

  function freezeDeep(object) {
    if (typeof object !== "object" || object === null) return;
    for (const key of ownKeys(object)) freezeDeep(object[key]);
    freeze(object);
  }

  return { learn, open };
})();
