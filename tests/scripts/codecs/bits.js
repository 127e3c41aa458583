function decodeUplink(input) {
  var b = input.bytes;
  var word = ((b[0] << 24) | (b[1] << 16) | (b[2] << 8) | b[3]) >>> 0;
  return {
    data: {
      word: word,
      signed: word >> 0,
      twelve: ((b[4] << 4) | (b[5] >>> 4)) & 0xfff,
      second: ((b[5] & 0x0f) << 8) | b[6],
      int24: (b[7] << 24 >> 8) | (b[8] << 8) | b[9],
      flags: [0, 1, 2, 3].map(function (bit) { return (b[10] >> bit & 1) === 1; }),
      inverted: ~b[10] & 0xff,
      parity: (function () { for (var n = b[10], p = 0; n; n &= n - 1) p ^= 1; return p; })(),
    },
  };
}
