function Decode(fPort, bytes, variables) {
  var offset = parseFloat(variables.offset || "0");
  variables.offset = "99"; // has no effect: they are the same for all frames
  return { level: bytes[0] + offset, place: variables.place };
}
