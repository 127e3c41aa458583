// What the gateway says about itself, in the language of the page: recognised by its English text (sentences.texts.js).
import { language } from "./lib.js";
import { SENTENCES } from "./sentences.texts.js";

const DEPTH_MAX = 4;
const FIELD = /\{(\d)\}/;
const quoted = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
// [pattern, numbers of its fields in order, Chinese text]; what begins with text of its own is tried first, and of those what has most of it.
const PATTERNS = Object.values(SENTENCES).map(([english, chinese]) => {
  const parts = english.split(FIELD);
  const literals = parts.filter((_, index) => index % 2 === 0), fields = parts.filter((_, index) => index % 2 === 1);
  return [new RegExp(`^${literals.map(quoted).join("(.*?)")}$`, "s"), fields, chinese, literals.join("").length + (literals[0] ? 1_000 : 0)];
}).sort((left, right) => right[3] - left[3]);

// A sentence that is not known stays as it is.
export const sentence = (text) => (language === "en" ? text : inChinese(text));
export function inChinese(text, depth = 0) {
  if (!text || depth > DEPTH_MAX) return text;
  for (const [pattern, fields, chinese] of PATTERNS) {
    const match = pattern.exec(text);
    if (match) return fields.reduce((result, field, index) => result.replaceAll(`{${field}}`, () => inChinese(match[index + 1], depth + 1)), chinese);
  }
  return text;
}
