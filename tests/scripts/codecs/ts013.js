function decodeUplink(input) {
  var data = {};
  var warnings = [];
  switch (input.fPort) {
    case 10:
      if (input.bytes.length !== 4) return { errors: ["expected 4 bytes, got " + input.bytes.length] };
      data.pressure = ((input.bytes[0] << 16) | (input.bytes[1] << 8) | input.bytes[2]) / 100;
      data.battery = input.bytes[3];
      if (data.battery < 10) warnings.push("low battery");
      break;
    default:
      return { errors: ["unknown FPort"] };
  }
  return { data: data, warnings: warnings };
}
function encodeDownlink(input) {
  return { bytes: [input.data.interval & 0xff], fPort: 10 };
}
