// IEEE 754 single precision, by hand
function bytesToFloat(bytes) {
  var bits = (bytes[3] << 24) | (bytes[2] << 16) | (bytes[1] << 8) | bytes[0];
  var sign = bits >>> 31 === 0 ? 1.0 : -1.0;
  var e = (bits >>> 23) & 0xff;
  var m = e === 0 ? (bits & 0x7fffff) << 1 : (bits & 0x7fffff) | 0x800000;
  return sign * m * Math.pow(2, e - 150);
}
function Decode(fPort, bytes) {
  return { flow: bytesToFloat(bytes.slice(0, 4)), total: bytesToFloat(bytes.slice(4, 8)) };
}
