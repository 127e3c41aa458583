// Quality of devices by hour. A day of a large city is millions of rows, so the last hours come first.
import { html } from "./preact.js";
import "./more.texts.js";
import { Link, List, device, emptyHere, number, replaceSearch, searchValues, t } from "./lib.js";

const SPANS = ["1h", "24h"];
const COLUMNS = [{ name: "device", show: (value) => html`<${Link} to=${device(value)}>${value}<//>` }, { name: "hour", time: true }, { name: "received", label: "receivedCount", numeric: true }, ...["authenticity", "accuracy", "continuity", "completeness"].map((name) => ({ name, numeric: true, show: (value) => (value === null ? "–" : `${number(value * 100, 1)} %`) }))];

export function Quality() {
  const span = searchValues().since || SPANS[0];
  return html`<div class="headline"><h1>${t("page.quality")}</h1><span class="space"></span><div class="tabs">${SPANS.map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === span} onClick=${() => replaceSearch({ ...searchValues(), since: choice, after: "", trail: "" })}>${choice}</button>`)}</div></div>
    <section class="card"><${List} path="/api/v1/quality" defaults=${{ since: SPANS[0] }} columns=${COLUMNS} interval_s=${60} empty=${emptyHere(t("noQuality"))} /></section>`;
}
