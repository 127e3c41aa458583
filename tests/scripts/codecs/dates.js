function decodeUplink(input) {
  var bytes = input.bytes;
  var seconds = bytes[0] * 16777216 + (bytes[1] << 16) + (bytes[2] << 8) + bytes[3];
  var sent = new Date(seconds * 1000);
  var age = bytes[4];
  var local = new Date(2000 + bytes[5], bytes[6] - 1, bytes[7], 8, 30, 0);
  return {
    data: {
      sent: sent.toISOString(),
      weekday: ["Su", "Mo", "Tu", "We", "Th", "Fr", "Sa"][sent.getUTCDay()],
      measured: new Date(input.recvTime.getTime() - age * 60000).toISOString(),
      local: local.toISOString(),
      date: local,
      isDate: input.recvTime instanceof Date,
      hours: (local - new Date(Date.UTC(2000 + bytes[5], bytes[6] - 1, bytes[7]))) / 3600000,
    },
  };
}
