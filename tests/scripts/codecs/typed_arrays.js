function decodeUplink(input) {
  const view = new DataView(new Uint8Array(input.bytes).buffer);
  const words = new Uint16Array([view.getUint16(0), view.getUint16(2)]);
  const clamped = Uint8ClampedArray.from([300, -5, 7.5]);
  return {
    data: {
      big: view.getFloat32(0),
      little: view.getFloat32(4, true),
      double: view.getFloat64(8),
      words: Array.from(words),
      clamped: [...clamped],
      signed: new Int8Array(input.bytes.slice(16, 18)).reduce((sum, one) => sum + one, 0),
    },
  };
}
