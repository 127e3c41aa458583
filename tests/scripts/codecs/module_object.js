const twice = (value) => 2 * value;
function decode(input) {
  return { data: { value: twice(input.bytes[0]) } };
}
module.exports = { decodeUplink: decode, decodeDownlink: null };
