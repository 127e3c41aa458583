const { Buffer: NodeBuffer } = require("buffer");
function decodeUplink(input) {
  const buffer = Buffer.from(input.bytes);
  return {
    data: {
      le: buffer.readInt16LE(0),
      be: buffer.readUInt16BE(0),
      float: buffer.readFloatBE(2),
      hex: buffer.toString("hex", 6, 8),
      base64: buffer.slice(6).toString("base64"),
      text: NodeBuffer.from("48656a", "hex").toString(),
      three: buffer.readUIntBE(6, 2),
      length: NodeBuffer.concat([buffer, NodeBuffer.alloc(2)]).length,
    },
  };
}
