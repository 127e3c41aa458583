function decodeUplink(input) {
  return {
    data: { nan: input.bytes[9] / 2, infinite: 1 / input.bytes[0], negative: -1 / input.bytes[0], zero: -0,
            big: 2n ** 40n, huge: 1e21, tiny: 1e-7, none: null },
  };
}
