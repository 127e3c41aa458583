/**
 * Cayenne LPP, in the manner of the decoders that network servers ship.
 */
function lppDecode(bytes) {
  var sensor_types = {
    0: { size: 1, name: "digital_in", signed: false, divisor: 1 },
    2: { size: 2, name: "analog_in", signed: true, divisor: 100 },
    101: { size: 2, name: "illuminance", signed: false, divisor: 1 },
    103: { size: 2, name: "temperature", signed: true, divisor: 10 },
    104: { size: 1, name: "humidity", signed: false, divisor: 2 },
    113: { size: 6, name: "accelerometer", signed: true, divisor: 1000 },
    115: { size: 2, name: "barometer", signed: false, divisor: 10 },
    136: { size: 9, name: "gps", signed: true, divisor: [10000, 10000, 100] },
  };
  function arrayToDecimal(stream, is_signed, divisor) {
    var value = 0;
    for (var i = 0; i < stream.length; i++) {
      if (stream[i] > 0xff) throw "Byte value overflow!";
      value = (value << 8) | stream[i];
    }
    if (is_signed) {
      var edge = 1 << (stream.length * 8 - 1);
      var max = 1 << (stream.length * 8);
      value = value >= edge ? value - max : value;
    }
    return value / divisor;
  }
  var sensors = [];
  var i = 0;
  while (i < bytes.length) {
    var s_no = bytes[i++];
    var s_type = bytes[i++];
    if (typeof sensor_types[s_type] == "undefined") throw "Sensor type error!: " + s_type;
    var type = sensor_types[s_type];
    var s_value = 0;
    switch (s_type) {
      case 113:
        s_value = {
          x: arrayToDecimal(bytes.slice(i + 0, i + 2), type.signed, type.divisor),
          y: arrayToDecimal(bytes.slice(i + 2, i + 4), type.signed, type.divisor),
          z: arrayToDecimal(bytes.slice(i + 4, i + 6), type.signed, type.divisor),
        };
        break;
      case 136:
        s_value = {
          latitude: arrayToDecimal(bytes.slice(i + 0, i + 3), type.signed, type.divisor[0]),
          longitude: arrayToDecimal(bytes.slice(i + 3, i + 6), type.signed, type.divisor[1]),
          altitude: arrayToDecimal(bytes.slice(i + 6, i + 9), type.signed, type.divisor[2]),
        };
        break;
      default:
        s_value = arrayToDecimal(bytes.slice(i, i + type.size), type.signed, type.divisor);
        break;
    }
    sensors.push({ channel: s_no, type: s_type, name: type.name, value: s_value });
    i += type.size;
  }
  return sensors;
}
function decodeUplink(input) {
  var fPort = input.fPort, bytes = input.bytes, response = {};
  lppDecode(bytes, 1).forEach(function (field) {
    response[field["name"] + "_" + field["channel"]] = field["value"];
  });
  return { data: response };
}
