// Assessment of a month: indicators by group, the score and how it is made; CSV, and a page that prints well.
import { html } from "./preact.js";
import { Card, Empty, Link, Loading, Problem, emptyHere, isCentre, localTime, number, query, replaceSearch, saveCsv, searchValues, t, useLoad } from "./lib.js";
import { Table, percent } from "./more.js";

const BY = ["division", "city", "department", "domain", "profile"];
const INDICATORS = ["authenticity", "accuracy", "continuity", "completeness"];

export function Assessment() {
  const values = searchValues(), by = values.by || "division";
  const { data, error, loading, reload } = useLoad(`/api/v1/assessment${query({ by, month: values.month })}`);
  // The gateway says which month is the present one: its months are those of UTC.
  const month = values.month || data?.month || "";
  // Hours of devices are kept where they are registered; a centre has sums of its nodes' by city.
  const isByCity = isCentre() && data?.rows.length === 0;
  const cities = useLoad(isByCity ? `/api/v1/indicators${query({ month, hours: 1 })}` : "");
  const ofNodes = (isByCity && cities.data?.rows) || [];
  const rows = data?.rows.length ? data.rows : ofNodes.map((row) => ({ ...row, name: row.division }));
  const set = (changes) => replaceSearch({ by, month, ...changes });
  const columns = [{ name: "name", label: t(`column.${ofNodes.length ? "city" : by}`) }, { name: "devices", numeric: true, show: (value) => number(value) }, { name: "received", label: t("receivedCount"), numeric: true, show: (value) => number(value) }, ...INDICATORS.map((name) => ({ name, numeric: true, show: percent })), { name: "score", label: t("score"), numeric: true, show: (value) => html`<strong>${value === null ? "–" : number(value, 1)}</strong>` }];
  return html`<div class="headline"><h1>${t("page.assessment")} ${month}</h1><span class="space"></span>
      <label class="filter">${t("month")}<input type="month" value=${month} onChange=${(event) => event.target.value && set({ month: event.target.value })} /></label>
      <label class="filter">${t("groupBy")}<select onChange=${(event) => set({ by: event.target.value })}>${BY.map((choice) => html`<option key=${choice} value=${choice} selected=${choice === by}>${t(`column.${choice}`)}</option>`)}</select></label>
      <button type="button" onClick=${() => saveCsv(rows, columns)} disabled=${!rows.length}>CSV</button><button type="button" onClick=${() => print()}>${t("print")}</button></div>
    <${Problem} error=${error} retry=${reload} />
    <section class="card">${!data && loading ? html`<${Loading} />` : rows.length ? html`${ofNodes.length > 0 && html`<p>${t("assessedByCity")}</p>`}<${Table} rows=${rows} columns=${columns} />` : !error && html`<${Empty} text=${emptyHere(t("noAssessment"))} />`}
      ${data && html`<p class="quiet">${t("assessmentHelp")}</p><p class="quiet">${data.since && t("knownHours", number(data.hours_known), number(data.hours_of_month), localTime(data.since))}</p>`}</section>
    <p class="quiet"><${Link} to="/console/quality">${t("byDevice")}<//></p>`;
}
