function Decoder(payload, port) {
  var list = [];
  for (var k = 0; k + 2 < payload.length; k += 3) {
    list.push({ field: "S" + payload[k], value: (payload[k + 1] << 8 | payload[k + 2]) / 10 });
  }
  return list;
}
