// Overview: where the data went, what needs somebody, the cities.
import { html, useState } from "./preact.js";
import { sentence } from "./sentences.js";
import { Indicators, useIndicators } from "./indicators.js";
import { Card, Empty, Link, Loading, Problem, language, may, mayDecide, number, query, scopeNow, t, useLoad } from "./lib.js";

const FLOW = [["messages", null], ["quarantined", "/console/quarantine"], ["values", null], ["duplicates", null], ["rejected", null], ["accepted", "/console/records"], ["forwarded", "/console/nodes"], ["withheld", "/console/nodes"], ["refused_by_centre", "/console/nodes"]];
const SIDE = new Set(["quarantined", "duplicates", "rejected", "withheld", "refused_by_centre"]);

export function sumByKind(totals) {
  const sums = {};
  for (const [kind, count] of Object.entries(totals || {})) {
    const head = kind.split(".")[0] === "duplicate" ? "duplicates" : kind.split(".")[0];
    sums[head] = (sums[head] || 0) + count;
  }
  return sums;
}
// The same sums of the ledger's rows by division.
function sumOfRows(rows) {
  const sums = {};
  for (const row of rows) for (const [kind, count] of Object.entries(row)) if (typeof count === "number") sums[kind] = (sums[kind] || 0) + count;
  return Object.fromEntries(Object.entries(sums).filter(([, count]) => count));
}
// Where the 21 cities of Guangdong stand on a map of tiles: [column, row]. Boundaries are drawn nowhere: they need an approval.
const TILES = { 4402: [5, 1], 4414: [7, 1], 4418: [4, 2], 4416: [6, 2], 4451: [8, 2], 4412: [3, 3], 4401: [4, 3], 4413: [6, 3], 4452: [7, 3], 4405: [8, 3], 4453: [2, 4], 4406: [3, 4], 4419: [5, 4], 4403: [6, 4], 4415: [7, 4], 4409: [1, 5], 4417: [2, 5], 4407: [3, 5], 4420: [4, 5], 4404: [5, 5], 4408: [1, 6] };
const useCities = (home) => useLoad(home ? `/api/v1/divisions${query({ level: "prefecture", parent: home, limit: 100 })}` : "");
const cityName = (row) => (language === "en" ? row.name_en : row.name_zh.replace(/市$/, ""));
function Cities({ nodes, divisions, scores }) {
  const byDivision = {};
  for (const node of nodes) (byDivision[node.division] ??= []).push(node);
  const rows = divisions.map((row) => ({ ...row, nodes: byDivision[row.code] || [] }));
  const isMap = rows.length > 0 && rows.every((row) => TILES[row.code]);
  if (!rows.length) return html`<${Empty} text=${t("noNodes")} />`;
  return html`<div class=${isMap ? "tilemap" : "tiles"}>${rows.map((row) => {
    const lag = row.nodes.reduce((sum, node) => sum + (node.lag_entries || 0), 0), devices = row.nodes.reduce((sum, node) => sum + (node.devices || 0), 0);
    const isInvited = row.nodes.length > 0 && row.nodes.every((node) => node.state === "never");
    const kind = !row.nodes.length || isInvited ? "absent" : row.nodes.some((node) => node.state !== "up") ? "bad" : lag > 1000 || row.nodes.some((node) => node.problems?.length) ? "warn" : "good";
    const inside = html`<strong>${cityName(row)}</strong>${isInvited ? html`<span class="quiet">${t("invitedOnly")}</span>` : row.nodes.length ? html`${scores[row.code] !== undefined && html`${t("scoreOf", number(scores[row.code], 1))}<br />`}${t("lagOf", number(lag))}<br />${t("devicesOf", number(devices))}` : html`<span class="quiet">${t("notJoined")}</span>`}`;
    const place = isMap ? { gridColumn: TILES[row.code][0], gridRow: TILES[row.code][1] } : {};
    return row.nodes.length ? html`<${Link} key=${row.code} to=${`/console/nodes/${row.nodes[0].member}`} class=${`tile ${kind}`} style=${place}>${inside}<//>` : html`<div key=${row.code} class="tile absent" style=${place}>${inside}</div>`;
  })}</div>`;
}
const WORST = ["critical", "major"];
const NEEDS_SHOWN = 12;
// The open alarms of one rule are one sentence.
function alarmNeeds(alarms) {
  const groups = new Map();
  for (const alarm of alarms) {
    const key = `${alarm.rule}|${alarm.severity}`;
    groups.set(key, [...(groups.get(key) || []), alarm]);
  }
  return [...groups.values()].map((group) => {
    const [alarm] = group, name = sentence(alarm.title) || alarm.rule;
    const text = group.length === 1 ? [alarm.device || alarm.node, name, sentence(alarm.reason)].filter(Boolean).join(": ") : t("alarmsOfRule", name, number(group.length));
    return [WORST.includes(alarm.severity) ? 2 : 1, text, `/console/alarms${query({ state: "open", rule: alarm.rule })}`];
  });
}
// What the gateway itself says of alarms in one sentence stands above in more.
const isOfAlarms = (text) => text.startsWith("alarms: ");
const isSilent = (node) => node.role !== "centre" && node.state !== "up" && node.state !== "never";
// The node whose cut link a text is about; its own text does not name it.
function linkOf(text, member) {
  const match = /^(?:node (\S+): )?link: /.exec(text);
  return match && (match[1] || member);
}
export function needs(me, ready, nodes, counts, balanced, alarms, applications) {
  const list = alarmNeeds(alarms || []), silent = new Set((nodes || []).filter(isSilent).map((node) => node.member));
  // One cut link is in the rows of its node and of the centre, and in the centre's readiness: it is one line.
  const isNew = (text, member) => !silent.has(linkOf(text, member));
  for (const reason of ready?.reasons || []) list.push([2, sentence(reason), null]);
  if (balanced === false) list.push([2, t("unbalanced"), "/"]);
  for (const node of nodes || []) {
    if (node.state === "never") list.push([1, t("nodeNever", node.member), `/console/nodes/${node.member}`]);
    else if (isSilent(node)) list.push([2, [t("nodeSilent", node.member), ...(node.problems || []).filter((text) => linkOf(text, node.member)).map(sentence)].join(": "), `/console/nodes/${node.member}`]);
    for (const problem of (node.problems || []).filter((text) => !isOfAlarms(text) && isNew(text, node.member))) list.push([1, `${node.member}: ${sentence(problem)}`, `/console/nodes/${node.member}`]);
    if (node.conflicts) list.push([1, t("nodeConflicts", node.member, number(node.conflicts)), `/console/nodes/${node.member}`]);
  }
  for (const warning of (ready?.warnings || []).filter((text) => (!isOfAlarms(text) || !alarms) && isNew(text))) list.push([1, sentence(warning), null]);
  if (counts.quarantined) list.push([1, t("quarantinedNow", number(counts.quarantined)), ofNodes(me, "/console/quarantine")]);
  if (applications?.length) list.push([1, t("toDecide", number(applications.length)), "/console/applications?state=pending,lapsed"]);
  if (ready?.devices?.silent) list.push([1, t("devicesSilent", number(ready.devices.silent)), "/console/devices?state=silent"]);
  return list.sort((left, right) => right[0] - left[0]);
}
// Messages in quarantine stay at the node that received them.
const ofNodes = (me, path) => (me.gateway_role === "centre" && path === "/console/quarantine" ? "/console/nodes" : path);
export function Overview({ me }) {
  const [all, showAll] = useState(false);
  const scope = scopeNow();
  const ledger = useLoad(`/api/v1/ledger?since=24h&limit=${scope ? "5000&by=division" : "500"}`, 5), ready = useLoad("/readyz", 5), nodes = useLoad("/api/v1/nodes", 5);
  const alarms = useLoad(may("read_alarms") ? `/api/v1/alarms${query({ state: "open", sort: "severity", limit: 500, within: scope })}` : "", 10), applications = useLoad(may("decide_grants") ? "/api/v1/applications?state=pending,lapsed&limit=100" : "", 30);
  const divisions = useCities(me.gateway_role === "centre" ? me.gateway_division : "").data?.rows || [], indicators = useIndicators().data;
  const scores = Object.fromEntries((indicators?.rows || []).filter((row) => row.score !== null).map((row) => [row.division, row.score]));
  const counts = scope ? sumOfRows((ledger.data?.rows || []).filter((row) => row.division?.startsWith(scope))) : sumByKind(ledger.data?.totals);
  const inScope = (nodes.data?.rows || []).filter((node) => node.division.startsWith(scope) || scope.startsWith(node.division));
  // A department of the same city applies as the city does: only what was asked with the reader's own token waits for somebody else.
  const mine = (applications.data?.rows || []).filter((row) => mayDecide(row, me) && ![row.by, row.subscriber].includes(me.id));
  const list = needs(me, ready.data, inScope, counts, ledger.data?.balanced, alarms.data?.rows, mine);
  const cities = inScope.filter((node) => node.role !== "centre");
  return html`<div class="headline"><h1>${t("page.overview")}</h1>${ready.data && html`<span class=${`badge ${ready.data.ready ? "good" : "bad"}`}>${t(ready.data.ready ? "ready" : "notReady")}</span>`}
      ${ledger.data && html`<span class=${`badge ${ledger.data.balanced ? "good" : "bad"}`}>${t(ledger.data.balanced ? "balanced" : "unbalanced")}</span>`}</div>
    <${Problem} error=${ledger.error} retry=${ledger.reload} />
    <${Card} title=${t("needsYou")}><ul class="needs" aria-live="polite">
      ${list.length ? list.slice(0, all ? list.length : NEEDS_SHOWN).map(([rank, text, path]) => html`<li class=${rank === 2 ? "worst" : ""} key=${text}>${path ? html`<${Link} to=${path}>${text}<//>` : text}</li>`) : [ledger, ready, nodes].every((answer) => answer.data || answer.error) ? html`<li class="fine">${t("nothingNeeded")}</li>` : html`<li><${Loading} /></li>`}</ul>
      ${list.length > NEEDS_SHOWN && html`<p><button type="button" onClick=${() => showAll(!all)}>${all ? t("lessNeeds") : t("moreNeeds", number(list.length - NEEDS_SHOWN))}</button></p>`}<//>
    <${Card} title=${t("flowOf24h")}>${ledger.data ? html`<div class="flow">${FLOW.filter(([kind]) => counts[kind] !== undefined || !SIDE.has(kind)).map(([kind, path]) => {
      const inside = html`<span class="quiet">${t(`kind.${kind}`)}</span><strong>${number(counts[kind] || 0)}</strong>`;
      return path ? html`<${Link} key=${kind} to=${ofNodes(me, path)} class=${SIDE.has(kind) ? "side" : ""}>${inside}<//>` : html`<div key=${kind} class=${`step ${SIDE.has(kind) ? "side" : ""}`}>${inside}</div>`;
    })}<div class="step"><span class="quiet">${t("kind.delivered")}</span><strong>${number(ledger.data.delivered)}</strong></div></div>` : html`<${Loading} />`}<//>
    ${me.gateway_role === "centre" && html`<${Card} title=${t("cities")}><${Cities} nodes=${cities} divisions=${divisions} scores=${scores} /><//>`}
    ${indicators && html`<${Indicators} report=${indicators} names=${Object.fromEntries(divisions.map((row) => [row.code, cityName(row)]))} />`}
    ${Object.values(ready.data?.devices || {}).some(Boolean) && html`<${Card} title=${t("page.devices")}><div class="flow">${Object.entries(ready.data.devices).map(([state, count]) => html`<${Link} key=${state} to=${`/console/devices?state=${state}`}><span class="quiet">${t(`state.${state}`)}</span><strong>${number(count)}</strong><//>`)}</div><//>`}`;
}
