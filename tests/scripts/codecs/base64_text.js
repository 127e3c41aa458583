function decodeUplink(input) {
  var text = atob(String.fromCharCode(...input.bytes));
  return { data: { text: text, again: btoa(text), uri: decodeURIComponent("%E5%8C%97") } };
}
