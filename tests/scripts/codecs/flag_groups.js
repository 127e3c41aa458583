var decoder = {
  PROTOCOL_VERSION: 2,
  SENSORS: [
    { length: 1, values: [{ name: "voltage_ratio", displayName: "Voltage ratio", convert: function (x) { return (x[0] / 32768 - 1) * 2; } }] },
    { length: 2, values: [
      { name: "temperature", convert: function (x) { return 175 * x[0] / 65535 - 45; }, unit: "°C" },
      { name: "humidity", convert: function (x) { return 100 * x[1] / 65535; }, unit: "%" } ] },
    { length: 1, values: [{ name: "battery_voltage", convert: function (x) { return x[0] / 1000; }, unit: "V" }] },
  ],
  read_int: function (bytes, pos) { return (bytes[pos] << 8) + bytes[pos + 1]; },
  decode: function (msg) {
    var bytes = msg, i, j;
    var version = bytes[0];
    if (version != this.PROTOCOL_VERSION) return { error: "protocol version " + version + " doesn't match v2" };
    var flags = this.read_int(bytes, 3);
    var result = { protocol_version: version, device_id: this.read_int(bytes, 1) };
    var pos = 5;
    for (i = 0; i < this.SENSORS.length; i++, flags >>= 1) {
      if ((flags & 1) !== 1) continue;
      var sensor = this.SENSORS[i];
      var x = [];
      for (j = 0; j < sensor.length; j++, pos += 2) x.push(this.read_int(bytes, pos));
      for (j = 0; j < sensor.values.length; j++) {
        var value = sensor.values[j];
        if ("convert" in value) result[value.name] = value.convert.bind(this)(x);
      }
    }
    return result;
  },
};
function decodeUplink(input) {
  var res = decoder.decode(input.bytes);
  if (res.error) return { errors: [res.error] };
  return { data: res };
}
