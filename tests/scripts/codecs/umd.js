(function (root, factory) {
  if (typeof define === "function" && define.amd) define([], factory);
  else if (typeof module === "object" && module.exports) module.exports = factory();
  else root.Codec = factory();
  root.codecVersion = "1.2";
})(this, function () {
  "use strict";
  var seen = 0; // a counter that must not outlive the frame
  function decodeUplink(input) {
    seen += 1;
    return { data: { value: input.bytes[0], seen: seen, version: codecVersion } };
  }
  return { decodeUplink: decodeUplink };
});
