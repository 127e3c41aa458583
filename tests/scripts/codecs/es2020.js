const LAYOUT = new Map([
  [0x01, { name: "temperature", size: 2, scale: 0.1 }],
  [0x02, { name: "pulses", size: 8 }],
  [0x03, { name: "mode", size: 1, words: ["idle", "run"] }],
]);
const read = (bytes) => bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
function decodeUplink({ bytes, fPort: port }) {
  const data = {};
  for (let at = 0; at < bytes.length; ) {
    const layout = LAYOUT.get(bytes[at++]);
    if (layout === undefined) return { errors: [`unknown tag at ${at - 1}`] };
    const { name, size, scale = 1, words } = layout;
    const raw = Number(BigInt.asIntN(64, read(bytes.slice(at, (at += size)))));
    data[name] = words?.[raw] ?? Math.round(raw * scale * 1000) / 1000;
  }
  const tags = Object.entries(data).map(([name]) => name).flatMap((name) => [name]);
  return { data: { ...data, tags: tags.at(-1), exponent: 2 ** 3, port: port ?? null } };
}
