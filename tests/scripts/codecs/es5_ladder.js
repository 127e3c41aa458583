// ES5 of ChirpStack v3: globals, a ladder of ifs, var everywhere.
var SCALE_TEMPERATURE = 100;
var names = ["closed", "open"];
var result;
function int16(high, low) {
  var value = (high << 8) | low;
  if (value & 0x8000) value = value - 0x10000;
  return value;
}
function Decode(fPort, bytes, variables) {
  var decoded = {};
  if (fPort == 1) {
    decoded.temperature = int16(bytes[0], bytes[1]) / SCALE_TEMPERATURE;
    decoded.humidity = bytes[2] / 2;
    var millivolts = bytes[3] << 8 | bytes[4];
    decoded.battery = millivolts / 1000;
  } else if (fPort == 2) {
    var door = bytes[0] & 1;
    decoded.door = names[door];
    var count = bytes[1] << 8 | bytes[2];
    decoded.count = count;
  } else {
    decoded.unknown = fPort;
  }
  result = decoded;
  return result;
}
