// Nodes: the list, and one node.
import { html, useState } from "./preact.js";
import { sentence } from "./sentences.js";
import { Absent, Badge, Card, Empty, Facts, List, Problem, Secret, Time, call, may, number, t, useDialog, useLoad } from "./lib.js";

const NODE_COLUMNS = [{ name: "member" }, { name: "role", show: (value) => t(`gatewayRole.${value}`) }, { name: "state", badge: true }, { name: "lag_entries", numeric: true }, { name: "last_commit", time: true }, { name: "devices", numeric: true }, { name: "load", numeric: true }, { name: "clock_offset_s", numeric: true }, { name: "version" }, { name: "membership", badge: true }, { name: "problems", value: (row) => (row.problems || []).map((text) => sentence(text)).join("; ") }];
export function Nodes({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const invite = () => show({ title: t("inviteNode"), action: t("invite"), consequence: t("inviteHelp"), fields: [{ name: "division", label: t("column.division"), required: true, hint: "4406" }, { name: "member", label: t("column.member"), help: t("memberHelp") }, { name: "note", label: t("column.note") }], submit: async (values) => {
    const made = await call("POST", "/api/v1/nodes", Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p><${Secret} value=${made.code} /></p>`;
  } });
  return html`${dialog}<h1>${t("page.nodes")}</h1><section class="card"><${List} stamp=${stamp} path="/api/v1/nodes" columns=${NODE_COLUMNS} search=${false} sortable=${false} interval_s=${5} link=${(row) => `/console/nodes/${row.member}`}
    actions=${me.gateway_role === "centre" && may("change_nodes") && html`<button type="button" class="primary" onClick=${invite}>${t("inviteNode")}</button>`} /></section>`;
}
// What video lost by redaction is one count: its fields are of no use to who operates.
function countsOf(counts) {
  const sums = {};
  for (const [kind, count] of Object.entries(counts)) {
    const key = kind.startsWith("removed.") ? "removed" : kind;
    sums[key] = (sums[key] || 0) + count;
  }
  return Object.entries(sums).sort();
}
export function Node({ member, me }) {
  const [dialog, show] = useDialog();
  const row = useLoad(`/api/v1/nodes/${encodeURIComponent(member)}`, 5), gaps = useLoad(`/api/v1/nodes/${encodeURIComponent(member)}/gaps`, 60), refused = useLoad(me.gateway_role === "centre" ? `/api/v1/nodes/${encodeURIComponent(member)}/refused` : "/api/v1/uplink/refused", 15);
  const node = row.data;
  const expel = () => show({ title: t("expelNode"), consequence: t("expelHelp", member), danger: true, action: t("expelNode"), fields: [{ name: "note", label: t("column.note") }], submit: async (values) => { await call("POST", `/api/v1/nodes/${encodeURIComponent(member)}/expel`, values); row.reload(); } });
  return html`${dialog}<div class="headline"><h1>${member}</h1>${node && html`<${Badge} value=${node.state} />`}<span class="space"></span>${node && node.role !== "centre" && me.gateway_role === "centre" && may("change_nodes") && html`<button type="button" onClick=${expel}>${t("expelNode")}</button>`}</div>
    <${Problem} error=${row.error} retry=${row.reload} />
    ${node && html`${node.problems?.length > 0 && html`<${Card} title=${t("needsYou")}><ul class="needs">${node.problems.map((problem) => html`<li key=${problem}>${sentence(problem)}</li>`)}</ul><//>`}
      <${Card} title=${t("stateWord")}><${Facts} rows=${[["column.lag_entries", number(node.lag_entries)], ["column.last_commit", html`<${Time} value=${node.last_commit} />`], ["kind.forwarded", number(node.forwarded)], ["kind.withheld", number(node.withheld)], ["kind.refused_by_centre", number(node.refused)], ["column.devices", number(node.devices)], ["column.load", number(node.load)], ["column.rss_mb", number(node.rss_mb)], ["column.clock_offset_s", number(node.clock_offset_s, 3)], ["column.version", node.version], ["column.areas", (node.areas || []).join(", ")], ["column.membership", node.membership && html`<${Badge} value=${node.membership} />`], ["reported", html`<${Time} value=${node.reported} />`], node.detail && ["column.detail", node.detail.split("; ").map((text) => sentence(text)).join("; ")]]} /><//>
      <${Card} title=${t("counts")}>${Object.keys(node.counts || {}).length ? html`<div class="flow">${countsOf(node.counts).map(([kind, count]) => html`<div class="step" key=${kind}><span class="quiet">${t(`kind.${kind}`)}</span><strong>${number(count)}</strong></div>`)}</div>` : html`<${Empty} />`}<//>`}
    <div class="columns"><${Card} title=${t("refusedParts")}>${(refused.data?.rows || []).length ? html`<ul class="needs">${refused.data.rows.map((part) => html`<li key=${part.id}><div><strong>${part.reason}</strong> · ${t("rowsShown", number(part.rows))} · <${Time} value=${part.at} /><br /><span class="quiet">${part.detail}</span></div></li>`)}</ul>` : html`<${Absent} of=${refused} text=${t("noRefused")} />`}<//>
      <${Card} title=${t("gaps")}>${(gaps.data?.rows || []).length ? html`<ul class="needs">${gaps.data.rows.map((gap) => html`<li key=${gap.since}><div><${Time} value=${gap.since} /> – <${Time} value=${gap.until} />: ${t("missingMessages", number(gap.missing))}</div></li>`)}</ul>` : gaps.error?.status === 404 ? html`<${Empty} text=${t("gapsAtNode")} />` : html`<${Absent} of=${gaps} text=${t("noGaps")} />`}<//></div>`;
}
