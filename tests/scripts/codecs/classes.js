class Reader {
  #bytes;
  #at = 0;
  static SIGN = 0x80;
  constructor(bytes) {
    this.#bytes = bytes;
  }
  get left() {
    return this.#bytes.length - this.#at;
  }
  u8() {
    return this.#bytes[this.#at++];
  }
  i8() {
    const value = this.u8();
    return value & Reader.SIGN ? value - 256 : value;
  }
}
class Signed extends Reader {
  next() {
    return super.i8();
  }
}
function decodeUplink(input) {
  const reader = new Signed(input.bytes);
  const values = [];
  while (reader.left) values.push(reader.next());
  return { data: { values } };
}
