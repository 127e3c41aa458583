// Problems of the HTTP interface in Chinese (problems.texts.js): `key: problem; remedy`, each part recognised by its English text.
import { known } from "./lib.js";
import { OBJECTS, PROBLEMS } from "./problems.texts.js";

const FIELD = /\{(\d)\}/;
const KEYS = /^((?:[\w.:@-]+: )*)(.*)$/s;
// They name the place of a key in a request, which a form does not show.
const PLACES = new Set(["body", "query", "path", "csv"]);
const quoted = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
// [pattern, numbers of its fields in order, Chinese text, length]; what has most text of its own is tried first.
const patterns = (rows, field) => rows.map(([english, chinese]) => {
  const parts = english.split(FIELD), literals = parts.filter((_, index) => index % 2 === 0);
  return [new RegExp(`^${literals.map(quoted).join(field)}$`, "s"), parts.filter((_, index) => index % 2 === 1), chinese, literals.join("").length];
}).sort((left, right) => right[3] - left[3]);
const SENTENCES = patterns(PROBLEMS, "(.*?)"), NAMES = patterns(OBJECTS, "([^\\s']+)");

function translated(text, rows, word) {
  for (const [pattern, fields, chinese] of rows) {
    const match = pattern.exec(text);
    if (match) return fields.reduce((result, field, index) => result.replaceAll(`{${field}}`, () => word(match[index + 1])), chinese);
  }
  return "";
}
// A value of a problem: an object with its name, roles, a state, a fault.
const wordOf = (text) => translated(text, NAMES, (name) => name) || known(`role.${text}`) || known(`state.${text}`);
const valueOf = (text) => wordOf(text) || text.split(", ").map((word) => wordOf(word) || word).join(", ");
// The decoder of JSON names the place of a fault at its end: `$.division` is the field of that name.
function partOf(text) {
  const [, fault, place] = /^(.*?)(?: - at `(.*)`)?$/s.exec(text), result = translated(fault, SENTENCES, valueOf);
  const field = place && known(`column.${place.replace(/^\$\./, "")}`);
  return result && place ? (field ? `${field}：${result}` : `${result}（位于 \`${place}\`）`) : result;
}

// A problem of which no part is known stays as it is.
export function inChinese(text) {
  const [, keys, rest] = KEYS.exec(text);
  const parts = rest.split("; ").map((part) => [partOf(part), part]);
  if (!parts.some(([chinese]) => chinese)) return text;
  const shown = keys.split(": ").filter((key) => key && !PLACES.has(key)).map((key) => `${known(`column.${key.split(".").at(-1)}`) || key}：`);
  return shown.join("") + parts.map(([chinese, english]) => chinese || english).join("；");
}
