// A made-up street lamp with the functions of LoRa Alliance TS013: level and interval go down on port 10, and come back.
function decodeUplink(input) {
  return { data: { level: input.bytes[0], interval: input.bytes[1] * 256 + input.bytes[2] } };
}
function encodeDownlink(input) {
  const { level, interval } = input.data;
  if (level > 100) return { errors: ["the level is above 100"] };
  return { bytes: [1, level, interval >> 8, interval & 255], fPort: 10 };
}
function decodeDownlink(input) {
  if (input.bytes[0] !== 1) return { errors: ["unknown command"] };
  return { data: { level: input.bytes[1], interval: input.bytes[2] * 256 + input.bytes[3] } };
}
