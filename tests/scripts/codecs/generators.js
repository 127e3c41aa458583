function* groups(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const size = bytes[at + 1];
    yield [bytes[at], bytes.slice(at + 2, at + 2 + size)];
    at += 2 + size;
  }
}
const NAMES = { 1: "depth", 2: "speed" };
function decodeUplink(input) {
  const pairs = [...groups(input.bytes)].map(([tag, value]) => [NAMES[tag] ?? `tag_${tag}`, value]);
  const iterable = { *[Symbol.iterator]() { yield* pairs; } };
  const data = {};
  outer: for (const [name, [high, low = 0]] of iterable) {
    for (const known of ["depth"]) if (name === known) { data[name] = (high * 256 + low) / 100; continue outer; }
    data[name] = high;
  }
  return { data };
}
