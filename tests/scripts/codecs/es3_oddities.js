function Decode(fPort, bytes) {
  var factorial = function (n) { return n < 2 ? 1 : n * arguments.callee(n - 1); };
  var area;
  with (Math) { area = floor(PI * bytes[0]); }
  var octal = 010;
  var list = new Array(3);
  list[0] = escape("a b");
  var fallthrough = 0;
  switch (true) { case bytes[0] > 100: fallthrough++; case bytes[0] > 1: fallthrough++; default: fallthrough++; }
  <!-- an HTML comment, which old pages needed
  return { factorial: factorial(5), area: area, octal: octal, text: list[0] + void 0, cases: fallthrough, i: typeof i };
  for (var i = 0; i < 3; i++);
}
