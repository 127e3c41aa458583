function decodeUplink(input) {
  var text = String.fromCharCode.apply(null, input.bytes);
  var data = {};
  var found = /^#(?<id>[A-Z]{2}\d+);/.exec(text);
  if (!found) return { errors: ["no id in '" + text + "'"] };
  data.id = found.groups.id;
  text.replace(/([a-z]+)=(-?\d+(?:\.\d+)?)([a-zA-Z%]*)/g, function (_, name, value, unit) {
    data[name] = parseFloat(value);
    data[name + "_unit"] = unit;
    return "";
  });
  data.words = text.split(/[;=]/).filter(Boolean).length;
  data.all = [...text.matchAll(/\d+/g)].length;
  return { data: data };
}
