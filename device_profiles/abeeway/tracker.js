// Abeeway trackers, firmware 2: header of five bytes, then what the message's type says. Most significant byte first.
var FRAME_PENDING = 0x00, POSITION = 0x03, HEARTBEAT = 0x05, ACTIVITY = 0x07, SHUTDOWN = 0x09, EVENT = 0x0a, SCAN = 0x0b;
var TYPES = [FRAME_PENDING, POSITION, HEARTBEAT, ACTIVITY, SHUTDOWN, EVENT, SCAN];
var GPS_FIX = 0;

// "Encoded form" of the guide: eight bits spread over lo to hi, no values kept for other uses.
function decoded(value, lo, hi) {
  return value * ((hi - lo) / 255) + lo;
}

// Three bytes are the upper ones of a signed number of ten-millionths of a degree.
function degrees(bytes, at) {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8)) / 1e7;
}

function decodeUplink(input) {
  var bytes = input.bytes;
  var type = bytes[0];
  if (!TYPES.includes(type)) return { errors: ["message type " + type + " is not known"] };
  if (type === FRAME_PENDING) return { data: { type: type } };
  if (bytes.length < 5) return { errors: ["the header is longer"] };
  var warnings = [];
  var data = {
    type: type,
    alert: (bytes[1] & 0x10) !== 0,
    moving: (bytes[1] & 0x04) !== 0,
    charging: bytes[2] === 0,
    battery: bytes[2] >= 1 && bytes[2] <= 100 ? bytes[2] : null,
    temperature: decoded(bytes[3], -44, 85),
  };
  if (bytes[2] === 0xff) warnings.push("the battery could not be measured");
  if (type === POSITION && (bytes[4] & 0x0f) === GPS_FIX) {
    if (bytes.length < 13) return { errors: ["a GPS fix is longer"] };
    data.age = bytes[5] * 8;
    data.latitude = degrees(bytes, 6);
    data.longitude = degrees(bytes, 9);
  }
  return { data: data, warnings: warnings };
}
