// The fields of a mask, and the mask of their values: every kind that a grant can have.
import { t } from "./lib.js";

// `columns`: data items of the feed; without them, properties are written by name.
export function maskFields(mask = {}, columns = []) {
  const names = [...new Set([...columns.map((column) => column.name), ...(mask.drop || []), ...(mask.hash || [])])].filter((name) => !["place", "profile", "device"].includes(name));
  const words = columns.filter((column) => column.kind === "string").map((column) => column.name);
  const label = (name) => [name, t(name === "place" ? "maskPlace" : name === "profile" ? "maskProfile" : name === "device" ? "maskDevice" : name)];
  return [
    { name: "drop", type: "checks", label: t("maskDrop"), options: ["place", "profile"].map(label).concat(names.map((name) => [name, name])), value: mask.drop || [] },
    { name: "hash", type: "checks", label: t("maskHash"), options: [label("device"), ...words.map((name) => [name, name])], value: mask.hash || [] },
    { name: "round", label: t("maskRound"), hint: "air_temperature=0.5", value: (mask.round || []).map((row) => `${row.property}=${row.step}`).join(", "), help: t("maskRoundHelp") },
    { name: "grid_m", type: "number", min: 0, label: t("maskGrid"), value: mask.grid_m || 0 },
    { name: "time_s", type: "number", min: 0, step: 1, label: t("maskTime"), value: mask.time_s || 0 },
    { name: "division_digits", label: t("maskDivision"), options: [["0", t("unchanged")], ["2", t("digitsProvince")], ["4", t("digitsCity")], ["6", t("digitsCounty")], ["9", t("digitsTown")]], value: String(mask.division_digits || 0) },
    { name: "k", type: "number", min: 0, step: 1, label: t("maskCount"), value: mask.k || 0 },
    { name: "key", label: t("maskKey"), value: mask.key || "", help: t("maskKeyHelp") },
  ];
}
export function maskOf(values) {
  const round = values.round.split(/[,;\s]+/).filter(Boolean).map((pair) => { const [property, step] = pair.split("="); return { property, step: Number(step) }; });
  return { drop: values.drop, hash: values.hash, round, grid_m: Number(values.grid_m), time_s: Number(values.time_s), division_digits: Number(values.division_digits), k: Number(values.k), key: values.key };
}
// A mask in words.
export function maskText(mask) {
  if (!mask) return "";
  return [
    ...(mask.drop || []).map((name) => t("droppedOf", name)), ...(mask.hash || []).map((name) => t("hashedOf", name)), ...(mask.round || []).map((row) => t("roundedOf", row.property, row.step)),
    mask.grid_m ? t("gridOf", mask.grid_m) : "", mask.time_s ? t("timeOf", mask.time_s) : "", mask.division_digits ? t("divisionOf", mask.division_digits) : "", mask.k ? t("countOf", mask.k) : "",
  ].filter(Boolean).join("; ");
}
