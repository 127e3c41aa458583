module.exports = function (bytes, port) {
  return { sum: bytes.reduce(function (total, one) { return total + one; }, 0), port: port };
};
