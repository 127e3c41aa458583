function Decode(fPort, bytes) {
  var hex = "";
  for (var i = 0; i < bytes.length; i++) {
    var h = bytes[i].toString(16);
    hex += (h.length < 2 ? "0" : "") + h;
  }
  hex = hex.toUpperCase();
  var reversed = hex.match(/../g).reverse().join("");
  return {
    serial: hex.substr(0, 8),
    value: parseInt(hex.substring(8, 12), 16) / 10,
    little: parseInt(reversed.substr(0, 4), 16),
    bits: parseInt(hex.slice(-2), 16).toString(2).padStart(8, "0"),
    label: "n°" + Number("0x" + hex.substr(8, 2)),
  };
}
