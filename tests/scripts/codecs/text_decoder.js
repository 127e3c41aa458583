const decoder = new TextDecoder("utf-8");
function decodeUplink(input) {
  const text = decoder.decode(new Uint8Array(input.bytes));
  const [name, value] = text.split("=");
  return { data: { [name]: Number(value), length: new TextEncoder().encode(text).length } };
}
