function rawDecode(bytes, port) {
  return { current: (bytes[0] * 256 + bytes[1]) / 1000, phase: "L" + port };
}
