// A codec of ordinary size, as makers write them: constants, helpers, a ladder of types, entries for three platforms.
var TYPE_TEMPERATURE = 0x01, TYPE_HUMIDITY = 0x02, TYPE_ACCELERATION = 0x03, TYPE_LIGHT = 0x04;
var TYPE_MOTION = 0x05, TYPE_CO2 = 0x06, TYPE_VOLTAGE = 0x07, TYPE_ANALOGUE = 0x08;
var TYPE_POSITION = 0x09, TYPE_PULSES = 0x0a, TYPE_PULSES_TOTAL = 0x0b, TYPE_PROBE = 0x0c;
var TYPE_DIGITAL = 0x0d, TYPE_DISTANCE = 0x0e, TYPE_TILT = 0x0f, TYPE_INFRARED = 0x10;
var TYPE_OCCUPANCY = 0x11, TYPE_LEAK = 0x12, TYPE_GRID = 0x13, TYPE_PRESSURE = 0x14;
var TYPE_SOUND = 0x15, TYPE_PULSES_B = 0x16, TYPE_PULSES_B_TOTAL = 0x17, TYPE_PROBES = 0x19;
var TYPE_DIGITAL_B = 0x1a, TYPE_ANALOGUE_B = 0x1b, TYPE_TVOC = 0x1c, TYPE_DEBUG = 0x3d, TYPE_SETTINGS = 0x3e;
var MODES = ["off", "eco", "normal", "boost"];
var OCCUPANCY = ["free", "entering", "taken"];

function signed16(value) {
  var number = value & 0xffff;
  if (0x8000 & number) number = -(0x010000 - number);
  return number;
}
function signed8(value) {
  var number = value & 0xff;
  if (0x80 & number) number = -(0x0100 - number);
  return number;
}
function word(data, at) {
  return (data[at] << 8) | data[at + 1];
}
function triple(data, at) {
  return (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
}
function quad(data, at) {
  return ((data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]) >>> 0;
}
function degrees(data, at) {
  var value = data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 2] & 0x80 ? 0xff << 24 : 0);
  return value / 10000;
}
function bit(value, number) {
  return ((value >> number) & 1) === 1;
}
function round(value, digits) {
  var factor = Math.pow(10, digits);
  return Math.round(value * factor) / factor;
}
function hexOf(data) {
  var text = "";
  for (var i = 0; i < data.length; i++) text += (data[i] < 16 ? "0" : "") + data[i].toString(16);
  return text;
}
function bytesOf(hex) {
  for (var bytes = [], c = 0; c < hex.length; c += 2) bytes.push(parseInt(hex.substr(c, 2), 16));
  return bytes;
}
function dewPoint(temperature, humidity) {
  var gamma = Math.log(humidity / 100) + (17.62 * temperature) / (243.12 + temperature);
  return round((243.12 * gamma) / (17.62 - gamma), 1);
}
function decodeSettings(data) {
  var settings = { length: data.length, mode: MODES[data[0] & 0x03], interval: word(data, 1) };
  settings.ack = bit(data[0], 2);
  settings.led = bit(data[0], 3);
  settings.raw = hexOf(data);
  return settings;
}
function decodeBytes(data) {
  var result = {};
  var i, k;
  for (i = 0; i < data.length; i++) {
    switch (data[i]) {
      case TYPE_TEMPERATURE:
        result.temperature = signed16(word(data, i + 1)) / 10;
        i += 2;
        break;
      case TYPE_HUMIDITY:
        result.humidity = data[i + 1];
        i += 1;
        break;
      case TYPE_ACCELERATION:
        result.x = signed8(data[i + 1]);
        result.y = signed8(data[i + 2]);
        result.z = signed8(data[i + 3]);
        i += 3;
        break;
      case TYPE_LIGHT:
        result.light = word(data, i + 1);
        i += 2;
        break;
      case TYPE_MOTION:
        result.motion = data[i + 1];
        i += 1;
        break;
      case TYPE_CO2:
        result.co2 = word(data, i + 1);
        i += 2;
        break;
      case TYPE_VOLTAGE:
        result.vdd = word(data, i + 1);
        i += 2;
        break;
      case TYPE_ANALOGUE:
        result.analogue = word(data, i + 1);
        i += 2;
        break;
      case TYPE_POSITION:
        result.latitude = degrees(data, i + 1);
        result.longitude = degrees(data, i + 4);
        i += 6;
        break;
      case TYPE_PULSES:
        result.pulses = word(data, i + 1);
        i += 2;
        break;
      case TYPE_PULSES_TOTAL:
        result.pulsesTotal = quad(data, i + 1);
        i += 4;
        break;
      case TYPE_PROBE:
        result.probe = signed16(word(data, i + 1)) / 10;
        i += 2;
        break;
      case TYPE_DIGITAL:
        result.digital = data[i + 1];
        i += 1;
        break;
      case TYPE_DISTANCE:
        result.distance = word(data, i + 1);
        i += 2;
        break;
      case TYPE_TILT:
        result.tilt = triple(data, i + 1);
        i += 3;
        break;
      case TYPE_INFRARED:
        result.inside = signed16(word(data, i + 1)) / 10;
        result.outside = signed16(word(data, i + 3)) / 10;
        i += 4;
        break;
      case TYPE_OCCUPANCY:
        result.occupancy = OCCUPANCY[data[i + 1]] || "unknown";
        i += 1;
        break;
      case TYPE_LEAK:
        result.leak = bit(data[i + 1], 0);
        i += 1;
        break;
      case TYPE_GRID:
        result.grid = [];
        for (k = 0; k < 64; k++) result.grid.push(data[i + 3 + k] / 10 + signed16(word(data, i + 1)) / 10);
        i += 66;
        break;
      case TYPE_PRESSURE:
        result.pressure = quad(data, i + 1) / 1000;
        i += 4;
        break;
      case TYPE_SOUND:
        result.soundPeak = data[i + 1];
        result.soundMean = data[i + 2];
        i += 2;
        break;
      case TYPE_PULSES_B:
        result.pulsesB = word(data, i + 1);
        i += 2;
        break;
      case TYPE_PULSES_B_TOTAL:
        result.pulsesBTotal = quad(data, i + 1);
        i += 4;
        break;
      case TYPE_PROBES:
        result.probes = [];
        for (k = 0; k < data[i + 1]; k++) result.probes.push(signed16(word(data, i + 2 + 2 * k)) / 10);
        i += 1 + 2 * data[i + 1];
        break;
      case TYPE_DIGITAL_B:
        result.digitalB = data[i + 1];
        i += 1;
        break;
      case TYPE_ANALOGUE_B:
        result.analogueB = quad(data, i + 1);
        i += 4;
        break;
      case TYPE_TVOC:
        result.tvoc = word(data, i + 1);
        i += 2;
        break;
      case TYPE_SETTINGS:
        result.settings = decodeSettings(data.slice(i + 1));
        i = data.length;
        break;
      default: // something is wrong with the data
        i = data.length;
        break;
    }
  }
  if (result.temperature !== undefined && result.humidity > 0) {
    result.dewPoint = dewPoint(result.temperature, result.humidity);
  }
  return result;
}

// The Things Stack, ChirpStack v4
function decodeUplink(input) {
  return { data: decodeBytes(input.bytes), warnings: [] };
}
// ChirpStack v3
function Decode(fPort, bytes, variables) {
  return decodeBytes(bytes);
}
// The Things Network v2
function Decoder(bytes, port) {
  return decodeBytes(bytes);
}
