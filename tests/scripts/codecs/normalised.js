function decodeUplink(input) {
  return { data: { tmp: input.bytes[0], hum: input.bytes[1] }, warnings: input.bytes[1] > 100 ? ["wet"] : [] };
}
function normalizeUplink(input) {
  const data = { air: { temperature: input.data.tmp } };
  if (input.data.hum > 120) return { errors: ["humidity out of range"] };
  data.air.relativeHumidity = input.data.hum;
  return { data, warnings: input.data.tmp > 60 ? ["hot"] : undefined };
}
