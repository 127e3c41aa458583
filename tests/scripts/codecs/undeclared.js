// Never declared: i, total, names. Works where every frame is decoded in a fresh machine.
function Decoder(bytes, port) {
  total = 0;
  names = [];
  for (i = 0; i < bytes.length; i++) {
    total += bytes[i];
    names[names.length] = "v" + i;
  }
  return { total: total, last: names[i - 1] };
}
