// Indicators with trend and the month's score, over all that the caller sees and by city.
import { html } from "./preact.js";
import { Card, may, number, query, scopeNow, t, useLoad } from "./lib.js";

const INDICATORS = ["authenticity", "accuracy", "continuity", "completeness"];
const percent = (value) => (value === null || value === undefined ? "–" : `${number(value * 100, 1)} %`);
const WIDTH = 120, HEIGHT = 28;

// A line of the newest hours, from the least to the greatest of them; an hour without a value is a gap.
export function Spark({ values, label }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;  // one hour is no trend
  const low = Math.min(...known), high = Math.max(...known), spread = high - low || 1;
  let pen = "M";
  const line = values.map((value, index) => {
    if (value === null) { pen = "M"; return ""; }
    const part = `${pen}${((index / (values.length - 1)) * (WIDTH - 2) + 1).toFixed(1)} ${(HEIGHT - 2 - ((value - low) / spread) * (HEIGHT - 4)).toFixed(1)}`;
    pen = "L";
    return part;
  }).join("");
  return html`<svg class="spark" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${label} preserveAspectRatio="none"><path d=${line} /></svg>`;
}
// The means of a month, by city; nothing where the gateway keeps none or the caller may not see them.
export const useIndicators = () => useLoad(may("read_ledger") ? `/api/v1/indicators${query({ hours: 48 })}` : "", 60);
const trendOf = (row, name) => row.trend.map((hour) => hour[name]);

export function Indicators({ report, names }) {
  const scope = scopeNow(), rows = report.rows.filter((row) => row.division.startsWith(scope.slice(0, 4)) || scope.startsWith(row.division));
  const whole = scope && rows.length === 1 ? rows[0] : report.total;
  if (!whole.hours) return null;
  const label = (name, row) => t("trendLabel", t(`column.${name}`), String(row.trend.length));
  const figure = (name, shown) => html`<div class="step" key=${name}><span class="quiet">${name === "score" ? t("monthScore") : t(`column.${name}`)}</span><strong>${shown}</strong><${Spark} values=${trendOf(whole, name)} label=${name === "score" ? t("trendLabel", t("score"), String(whole.trend.length)) : label(name, whole)} /></div>`;
  const worst = [...rows].sort((left, right) => (left.score ?? 101) - (right.score ?? 101));
  return html`<${Card} title=${t("indicatorsOf", report.month)}><div class="flow indicators">
      ${figure("score", whole.score === null ? "–" : number(whole.score, 1))}${INDICATORS.map((name) => figure(name, percent(whole[name])))}</div>
    <p class="quiet">${t("indicatorsHelp", number(whole.hours), number(whole.devices))}</p>
    ${rows.length > 1 && html`<div class="scroll" tabindex="0"><table class="list"><thead><tr><th>${t("cityWord")}</th><th class="number">${t("score")}</th><th>${t("trend")}</th>${INDICATORS.map((name) => html`<th class="number" key=${name}>${t(`column.${name}`)}</th>`)}<th class="number">${t("page.devices")}</th></tr></thead>
      <tbody>${worst.map((row) => html`<tr key=${row.division}><td data-label=${t("cityWord")}>${names[row.division] || row.division}</td><td class="number" data-label=${t("score")}><strong>${row.score === null ? "–" : number(row.score, 1)}</strong></td><td data-label=${t("trend")}><${Spark} values=${trendOf(row, "score")} label=${t("trendLabel", t("score"), String(row.trend.length))} /></td>${INDICATORS.map((name) => html`<td class="number" key=${name} data-label=${t(`column.${name}`)}>${percent(row[name])}</td>`)}<td class="number" data-label=${t("page.devices")}>${number(row.devices)}</td></tr>`)}</tbody></table></div>`}<//>`;
}
