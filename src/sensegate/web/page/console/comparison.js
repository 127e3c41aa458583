// Figures of two versions: over recorded messages (figures of both, a plot, every difference), and of a canary.
import { html } from "./preact.js";
import { Badge, Card, Empty, Loading, Problem, Property, Time, number, t, unitText, useLoad } from "./lib.js";
import { Table } from "./more.js";
import "./editor.texts.js";

const sum = (counts) => Object.values(counts || {}).reduce((total, count) => total + count, 0);
export function Comparison({ name, job }) {
  const { data, error } = useLoad(`/api/v1/profiles/${name}/jobs/${job}`, 1);
  if (error) return html`<${Card} title=${t("comparison")}><${Problem} error=${error} /><//>`;
  if (!data || data.state === "running") return html`<${Card} title=${t("comparison")}><progress value=${data?.share || 0} max="1" aria-label=${t("comparison")}></progress><${Loading} /><//>`;
  const report = data.report;
  if (!report) return html`<${Card} title=${t("comparison")}><${Badge} value=${data.state} /> ${data.problem}<//>`;
  const figures = [["column.messages", report.a.messages, report.b.messages], ["kind.values", report.a.values, report.b.values], ["kind.quarantined", sum(report.a.quarantined), sum(report.b.quarantined)], ["kind.rejected", sum(report.a.rejected), sum(report.b.rejected)], ["outsideRange", report.a.outside, report.b.outside]];
  return html`<${Card} title=${t("comparison")} actions=${html`<span class="quiet">${t("comparedMessages", number(report.messages), number(report.same))}</span>`}>
    <div class="columns"><${Bars} figures=${figures} names=${[report.a.version, report.b.version]} /><${Pairs} differences=${report.differences} /></div>
    ${report.differences.length ? html`<${Table} id="differences" rows=${report.differences.slice(0, 500)} columns=${DIFFERENCE_COLUMNS} />${report.more > 0 && html`<p class="quiet">${t("moreDifferences", number(report.more))}</p>`}` : html`<${Empty} text=${t("noDifferences")} />`}<//>`;
}
const DIFFERENCE_COLUMNS = [{ name: "kind", show: (value) => t(`difference.${value.replace(" ", "_")}`) }, { name: "device" }, { name: "property", show: (value) => html`<${Property} name=${value} />` }, { name: "before", numeric: true, show: (_, row) => shown(row.a) }, { name: "after", numeric: true, show: (_, row) => shown(row.b) }, { name: "unit", show: unitText }, { name: "factor", numeric: true, show: (value) => (value === null ? "" : number(value, 4)) }, { name: "count", numeric: true, show: (value) => number(value) }];
const shown = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? number(value, 6) : String(value).slice(0, 120));
// Two bars a figure: the version in force, and the new one.
function Bars({ figures, names }) {
  const most = Math.max(1, ...figures.flatMap(([, before, after]) => [before, after]));
  return html`<figure><figcaption class="quiet"><span class="key before"></span>${t("before")}: ${names[0]} <span class="key after"></span>${t("after")}: ${names[1]}</figcaption>
    <svg class="bars" viewBox="0 0 400 ${figures.length * 44}" role="img" aria-label=${figures.map(([name, before, after]) => `${t(name)}: ${before} → ${after}`).join("; ")}>
    ${figures.map(([name, before, after], index) => html`<g key=${name} transform="translate(0 ${index * 44})"><text x="0" y="14">${t(name)}</text>
      <rect class="before" x="120" y="4" height="13" width=${Math.max(1, (before / most) * 210)} /><text class="figure" x=${126 + (before / most) * 210} y="15">${number(before)}</text>
      <rect class="after" x="120" y="20" height="13" width=${Math.max(1, (after / most) * 210)} /><text class="figure" x=${126 + (after / most) * 210} y="31">${number(after)}</text></g>`)}</svg></figure>`;
}
// First value of each changed series, before against after: on the line both are equal.
function Pairs({ differences }) {
  const points = differences.filter((row) => typeof row.a === "number" && typeof row.b === "number");
  if (!points.length) return null;
  const all = points.flatMap((row) => [row.a, row.b]);
  const low = Math.min(...all), high = Math.max(...all), width = high - low || 1;
  const place = (value) => 34 + ((value - low) / width) * 232;
  return html`<figure><figcaption class="quiet">${t("valuesBeforeAfter")}</figcaption><svg class="pairs" viewBox="0 0 300 300" role="img" aria-label=${t("valuesBeforeAfter")}>
    <line class="grid" x1="34" y1="266" x2="266" y2="34" /><line class="axis" x1="34" y1="266" x2="266" y2="266" /><line class="axis" x1="34" y1="266" x2="34" y2="34" />
    <text x="34" y="284">${number(low)}</text><text x="266" y="284" text-anchor="end">${number(high)}</text><text x="150" y="296" text-anchor="middle">${t("before")}</text><text x="12" y="150" text-anchor="middle" transform="rotate(-90 12 150)">${t("after")}</text>
    ${points.slice(0, 2000).map((row, index) => html`<circle key=${index} cx=${place(row.a)} cy=${300 - place(row.b)} r="4"><title>${row.device} ${row.property}: ${shown(row.a)} → ${shown(row.b)}</title></circle>`)}</svg></figure>`;
}
// The devices of a canary beside the others.
export function CanaryFigures({ canary }) {
  const share = (value) => (value === null ? "–" : `${number(value * 100, 1)} %`);
  return html`<p class="quiet">${t("canaryDevicesCount", number(canary.count))} <${Time} value=${canary.since} /> · ${t("canaryLimits", share(canary.rejected_max), share(canary.faults_max), number(canary.least))}</p>
    <table class="canary"><thead><tr><th>${t("column.group")}</th><th class="number">${t("outcomes")}</th><th class="number">${t("rejectedShare")}</th><th class="number">${t("faultsShare")}</th></tr></thead><tbody>
      <tr><td>${t("canaryGroup")}</td><td class="number">${number(canary.outcomes)}</td><td class="number">${share(canary.rejected)}</td><td class="number">${share(canary.faults)}</td></tr>
      <tr><td>${t("otherGroup")}</td><td class="number">${number(canary.others_outcomes)}</td><td class="number">${share(canary.others_rejected)}</td><td class="number">${share(canary.others_faults)}</td></tr></tbody></table>`;
}
