function Decoder(bytes, port) {
  var text = "";
  for (var i in bytes) text += String.fromCharCode(bytes[i]);
  var message = JSON.parse(text);
  message.sum = message.v.reduce(function (a, b) { return a + b; });
  delete message.v;
  return JSON.parse(JSON.stringify(message));
}
