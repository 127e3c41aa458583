// Quality of devices.
import { html } from "./preact.js";
import { Link, device, emptyHere, listPage, number, t } from "./lib.js";

export const Quality = listPage("page.quality", "/api/v1/quality?since=24h", [{ name: "device", show: (value) => html`<${Link} to=${device(value)}>${value}<//>` }, { name: "hour", time: true }, { name: "received", numeric: true }, ...["authenticity", "accuracy", "continuity", "completeness"].map((name) => ({ name, numeric: true, show: (value) => (value === null ? "–" : `${number(value * 100, 1)} %`) }))], { interval_s: 60, empty: emptyHere(t("noQuality")) });
