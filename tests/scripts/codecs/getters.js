function Reading(value) { this._value = value; }
Object.defineProperty(Reading.prototype, "value", { get: function () { return this._value / 2; }, enumerable: true });
Reading.prototype.toJSON = function () { return { value: this.value, kind: "reading" }; };
function decodeUplink(input) {
  return {
    data: {
      get total() { return input.bytes.length; },
      reading: new Reading(input.bytes[0]),
      skipped: undefined,
      method: function () {},
      none: null,
    },
  };
}
