// Cayenne Low Power Payload: channel, type, value, again and again. Most significant byte first.
// type: [name, bytes of a part, units of a part, signed, names of the parts]
var TYPES = {
  0: ["digital_input", 1, 1, false],
  1: ["digital_output", 1, 1, false],
  2: ["analogue_input", 2, 100, true],
  101: ["illuminance", 2, 1, false],
  102: ["presence", 1, 1, false],
  103: ["temperature", 2, 10, true],
  104: ["humidity", 1, 2, false],
  115: ["barometer", 2, 10, false],
  136: ["gps", 3, [10000, 10000, 100], true, ["latitude", "longitude", "altitude"]],
};

// Analogue output, acceleration, gyrometer: type and size of what makes no reading.
var SKIPPED = { 3: 2, 113: 6, 134: 6 };

function number(bytes, at, size, signed) {
  var value = 0;
  for (var i = 0; i < size; i++) value = value * 256 + bytes[at + i];
  return signed && bytes[at] & 0x80 ? value - Math.pow(256, size) : value;
}

function decodeUplink(input) {
  var bytes = input.bytes;
  var data = {};
  for (var at = 0; at < bytes.length; ) {
    var channel = bytes[at++];
    var code = bytes[at++];
    if (code in SKIPPED) {
      at += SKIPPED[code];
      continue;
    }
    var type = TYPES[code];
    if (!type) return { errors: ["type " + code + " is not known"] };
    var size = type[1], parts = type[4] || [null], value = {};
    if (at + size * parts.length > bytes.length) return { errors: ["type " + code + " ends too soon"] };
    for (var i = 0; i < parts.length; i++, at += size) {
      var units = type[2] instanceof Array ? type[2][i] : type[2];
      var part = number(bytes, at, size, type[3]) / units;
      if (parts[i] === null) value = part;
      else value[parts[i]] = part;
    }
    data[type[0]] = data[type[0]] || {};
    data[type[0]][channel] = value;
  }
  return { data: data };
}
