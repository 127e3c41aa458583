"use strict";
const table = Object.freeze({ A: 65, B: 66 });
function decodeUplink(input) {
  const who = (function () { return this; })();
  let failed = "";
  try { undeclared = 1; } catch (why) { failed = why.name; }
  return { data: { letter: Object.keys(table).find((key) => table[key] === input.bytes[0]), who: who === undefined, failed } };
}
