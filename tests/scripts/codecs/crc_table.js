var TABLE = [];
for (var n = 0; n < 256; n++) {
  for (var k = 0, c = n; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xa001 : c >>> 1;
  TABLE[n] = c;
}
function crc(bytes) {
  for (var i = 0, value = 0xffff; i < bytes.length; i++) value = (value >>> 8) ^ TABLE[(value ^ bytes[i]) & 0xff];
  return value;
}
function decodeUplink(input) {
  var body = input.bytes.slice(0, -2), sent = input.bytes[input.bytes.length - 2] | input.bytes[input.bytes.length - 1] << 8;
  if (crc(body) !== sent) return { errors: ["CRC"] };
  return { data: { address: body[0], value: body[3] << 8 | body[4] } };
}
