// The result is an object of the top level: right where a machine is fresh for every frame.
var decoded = {};
var position = 0;
function next(bytes) { return bytes[position++]; }
function Decode(fPort, bytes) {
  if (bytes.length > 1) decoded.first = next(bytes);
  decoded.last = next(bytes);
  return decoded;
}
