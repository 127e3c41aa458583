// Abeeway trackers, firmware 2: header of five bytes, then what the message's type says. Most significant byte first.
var FRAME_PENDING = 0x00, POSITION = 0x03, HEARTBEAT = 0x05, ACTIVITY = 0x07, SHUTDOWN = 0x09, EVENT = 0x0a, SCAN = 0x0b;
var MODES = ["standby", "motion tracking", "permanent tracking", "motion start/end tracking", "activity tracking", "off"];
var GPS_FIX = 0;

// "Encoded form" of the guide: a number of `bits` bits spread over lo to hi, some values kept for other uses.
function decoded(value, lo, hi, bits, reserved) {
  return (value - reserved / 2) * ((hi - lo) / ((1 << bits) - 1 - reserved)) + lo;
}

// Three bytes are the upper ones of a signed number of ten-millionths of a degree.
function degrees(bytes, at) {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8)) / 1e7;
}

function decodeUplink(input) {
  var bytes = input.bytes;
  var type = bytes[0];
  if ([FRAME_PENDING, POSITION, HEARTBEAT, ACTIVITY, SHUTDOWN, EVENT, SCAN].indexOf(type) < 0) {
    return { errors: ["message type " + type + " is not known"] };
  }
  if (type === FRAME_PENDING) return { data: {} };
  if (bytes.length < 5) return { errors: ["the header has 5 bytes, here are " + bytes.length] };
  var warnings = [];
  var data = {
    mode: MODES[bytes[1] >> 5] || "unknown",
    alert: (bytes[1] & 0x10) !== 0,
    moving: (bytes[1] & 0x04) !== 0,
    charging: bytes[2] === 0,
    battery: bytes[2] >= 1 && bytes[2] <= 100 ? bytes[2] : null,
    temperature: decoded(bytes[3], -44, 85, 8, 0),
  };
  if (bytes[2] === 0xff) warnings.push("the battery could not be measured");
  if (type === POSITION && (bytes[4] & 0x0f) === GPS_FIX) {
    if (bytes.length < 13) return { errors: ["a GPS fix has 13 bytes at least, here are " + bytes.length] };
    data.age = decoded(bytes[5], 0, 2040, 8, 0);
    data.latitude = degrees(bytes, 6);
    data.longitude = degrees(bytes, 9);
    data.error = decoded(bytes[12], 0, 1000, 8, 0);
    if (data.error > 500) warnings.push("the position is off by up to " + data.error + " m");
  }
  return { data: data, warnings: warnings };
}
