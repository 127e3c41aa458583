function bcd(bytes, from, count) {
  var text = "";
  for (var k = from + count - 1; k >= from; k--) text += (bytes[k] >> 4) + "" + (bytes[k] & 15);
  return text;
}
function Decode(fPort, bytes, variables) {
  if (bytes[0] != 0x68) throw new Error("no start byte");
  return { meter: bcd(bytes, 1, 4), volume: +(parseInt(bcd(bytes, 5, 4), 10) * 0.01).toFixed(2), valve: bytes[9] & 3 };
}
