// Watteco (nke) sensors: reports in the manner of the ZigBee Cluster Library. Most significant byte first.
const REPORT = 0x0a;
const CLUSTERS = new Map([
  [0x0402, { name: "temperature", attribute: 0x0000, type: 0x29 }],
  [0x0405, { name: "humidity", attribute: 0x0000, type: 0x21 }],
  [0x0050, { name: "power", attribute: 0x0006, type: 0x41 }],
]);
const SOURCES = ["external", "rechargeable", "disposable", "solar", "tic"];

class Cursor {
  #bytes;
  #at = 0;
  constructor(bytes) {
    this.#bytes = bytes;
  }
  u8() {
    if (this.#at >= this.#bytes.length) throw new RangeError(`ends at byte ${this.#bytes.length}`);
    return this.#bytes[this.#at++];
  }
  u16() {
    return this.u8() * 256 + this.u8();
  }
  s16() {
    return (this.u16() << 16) >> 16;
  }
}

/** Voltages stand for those sources whose bits are set, in the order of the bits. */
function power(cursor) {
  const [, , available] = [cursor.u8(), cursor.u8(), cursor.u8()];
  const found = {};
  SOURCES.forEach((source, bit) => {
    if ((available >> bit) & 1) found[source] = cursor.u16() / 1000;
  });
  return found;
}

function decodeUplink({ bytes }) {
  const cursor = new Cursor(bytes);
  try {
    const control = cursor.u8();
    const command = cursor.u8();
    if (command !== REPORT) return { errors: [`command ${command} is no report`] };
    const [cluster, attribute, type] = [cursor.u16(), cursor.u16(), cursor.u8()];
    const known = CLUSTERS.get(cluster);
    if (known?.attribute !== attribute || known.type !== type) {
      return { errors: [`cluster ${cluster}, attribute ${attribute}, type ${type} are not known`] };
    }
    const endPoint = control >> 5;
    const value =
      known.name === "power" ? power(cursor) : (known.name === "temperature" ? cursor.s16() : cursor.u16()) / 100;
    return { data: known.name === "power" ? { power: value } : { [known.name]: { [endPoint]: value } } };
  } catch (why) {
    if (why instanceof RangeError) return { errors: [`the frame ${why.message}`] };
    throw why;
  }
}
