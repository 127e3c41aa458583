function Decoder(bytes, port) {
  // The Things Network, version 2
  var decoded = {};
  decoded.level = bytes[1] << 8 | bytes[0];
  decoded.tilt = bytes[2] > 127 ? bytes[2] - 256 : bytes[2];
  decoded.port = port;
  return decoded;
}
