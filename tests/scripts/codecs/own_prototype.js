function Cursor(bytes) {
  this.bytes = bytes;
  this.at = 0;
}
Cursor.prototype.constructor = Cursor;
Cursor.prototype.toString = function () { return "cursor at " + this.at; };
Cursor.prototype.u16 = function () {
  var value = this.bytes[this.at] * 256 + this.bytes[this.at + 1];
  this.at += 2;
  return value;
};
function LittleCursor() { Cursor.apply(this, arguments); }
LittleCursor.prototype = Object.create(Cursor.prototype);
LittleCursor.prototype.constructor = LittleCursor;
LittleCursor.prototype.u16 = function () {
  var value = this.bytes[this.at + 1] * 256 + this.bytes[this.at];
  this.at += 2;
  return value;
};
function Decode(fPort, bytes) {
  var big = new Cursor(bytes), little = new LittleCursor(bytes);
  return { big: big.u16(), little: little.u16(), where: String(big), own: little.hasOwnProperty("at") };
}
