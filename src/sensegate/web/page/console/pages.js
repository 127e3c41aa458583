// The pages of the console: what each shows and what it can do. All of them call the public API only.
import { html, useMemo, useState } from "./preact.js";
import { Badge, Card, Chart, Empty, Facts, Link, List, Loading, Problem, Time, call, instant, language, number, query, replaceSearch, searchValues, t, useDialog, useLoad } from "./lib.js";

const device = (id) => `/console/devices/${encodeURIComponent(id)}`;
const profile = (name) => `/console/profiles/${name.split("@")[0]}`;
const revisionHeader = (row) => ({ "If-Match": `"${row.revision}"` });

// ── overview ────────────────────────────────────────────────────────────────────────────────────────────
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
// Where the 21 cities of Guangdong stand on a map of tiles: [column, row]. Boundaries are drawn nowhere: they need an approval.
const TILES = { 4402: [5, 1], 4414: [7, 1], 4418: [4, 2], 4416: [6, 2], 4451: [8, 2], 4412: [3, 3], 4401: [4, 3], 4413: [6, 3], 4452: [7, 3], 4405: [8, 3], 4453: [2, 4], 4406: [3, 4], 4419: [5, 4], 4403: [6, 4], 4415: [7, 4], 4409: [1, 5], 4417: [2, 5], 4407: [3, 5], 4420: [4, 5], 4404: [5, 5], 4408: [1, 6] };
function Cities({ nodes, home }) {
  const divisions = useLoad(`/api/v1/divisions${query({ level: "prefecture", parent: home, limit: 100 })}`);
  const byDivision = {};
  for (const node of nodes) (byDivision[node.division] ??= []).push(node);
  const rows = (divisions.data?.rows || []).map((row) => ({ ...row, nodes: byDivision[row.code] || [] }));
  const isMap = rows.length > 0 && rows.every((row) => TILES[row.code]);
  if (!rows.length) return html`<${Empty} text=${t("noNodes")} />`;
  return html`<div class=${isMap ? "tilemap" : "tiles"}>${rows.map((row) => {
    const lag = row.nodes.reduce((sum, node) => sum + (node.lag_entries || 0), 0), devices = row.nodes.reduce((sum, node) => sum + (node.devices || 0), 0);
    const kind = !row.nodes.length ? "absent" : row.nodes.some((node) => node.state !== "up") ? "bad" : lag > 1000 || row.nodes.some((node) => node.problems?.length) ? "warn" : "good";
    const inside = html`<strong>${language === "en" ? row.name_en : row.name_zh}</strong>${row.nodes.length ? html`${t("lagOf", number(lag))}<br />${t("devicesOf", number(devices))}` : html`<span class="quiet">${t("notJoined")}</span>`}`;
    const place = isMap ? { gridColumn: TILES[row.code][0], gridRow: TILES[row.code][1] } : {};
    return row.nodes.length ? html`<${Link} key=${row.code} to=${`/console/nodes/${row.nodes[0].member}`} class=${`tile ${kind}`} style=${place}>${inside}<//>` : html`<div key=${row.code} class="tile absent" style=${place}>${inside}</div>`;
  })}</div>`;
}
function needs(ready, nodes, ledger, alarms) {
  const list = [];
  for (const reason of ready?.reasons || []) list.push([2, reason, null]);
  if (ledger && !ledger.balanced) list.push([2, t("unbalanced"), "/"]);
  for (const alarm of alarms || []) list.push([["critical", "major"].includes(alarm.severity) ? 2 : 1, [alarm.device || alarm.node, alarm.title || alarm.rule, alarm.reason].filter(Boolean).join(": "), "/console/alarms?state=open"]);
  for (const node of nodes || []) {
    if (node.role !== "centre" && node.state !== "up") list.push([2, t("nodeSilent", node.member), `/console/nodes/${node.member}`]);
    for (const problem of node.problems || []) list.push([1, `${node.member}: ${problem}`, `/console/nodes/${node.member}`]);
    if (node.conflicts) list.push([1, t("nodeConflicts", node.member, number(node.conflicts)), `/console/nodes/${node.member}`]);
  }
  for (const warning of ready?.warnings || []) list.push([1, warning, null]);
  if (ready?.devices?.silent) list.push([1, t("devicesSilent", number(ready.devices.silent)), "/console/devices?state=silent"]);
  return list.sort((left, right) => right[0] - left[0]);
}
function Overview({ me }) {
  const ledger = useLoad("/api/v1/ledger?since=24h&limit=500", 5), ready = useLoad("/readyz", 5), nodes = useLoad("/api/v1/nodes", 5);
  const alarms = useLoad("/api/v1/alarms?state=open&limit=20", 10);
  const counts = sumByKind(ledger.data?.totals);
  const list = needs(ready.data, nodes.data?.rows, ledger.data, alarms.data?.rows);
  const cities = (nodes.data?.rows || []).filter((node) => node.role !== "centre");
  return html`<div class="headline"><h1>${t("page.overview")}</h1>${ready.data && html`<span class=${`badge ${ready.data.ready ? "good" : "bad"}`}>${t(ready.data.ready ? "ready" : "notReady")}</span>`}
      ${ledger.data && html`<span class=${`badge ${ledger.data.balanced ? "good" : "bad"}`}>${t(ledger.data.balanced ? "balanced" : "unbalanced")}</span>`}</div>
    <${Problem} error=${ledger.error} retry=${ledger.reload} />
    <${Card} title=${t("needsYou")}><ul class="needs" aria-live="polite">
      ${list.length ? list.map(([rank, text, path]) => html`<li class=${rank === 2 ? "worst" : ""} key=${text}>${path ? html`<${Link} to=${path}>${text}<//>` : text}</li>`) : html`<li class="fine">${t("nothingNeeded")}</li>`}</ul><//>
    <${Card} title=${t("flowOf24h")}>${ledger.data ? html`<div class="flow">${FLOW.filter(([kind]) => counts[kind] !== undefined || !SIDE.has(kind)).map(([kind, path]) => {
      const inside = html`<span class="quiet">${t(`kind.${kind}`)}</span><strong>${number(counts[kind] || 0)}</strong>`;
      return path ? html`<${Link} key=${kind} to=${path} class=${SIDE.has(kind) ? "side" : ""}>${inside}<//>` : html`<div key=${kind} class=${`step ${SIDE.has(kind) ? "side" : ""}`}>${inside}</div>`;
    })}<div class="step"><span class="quiet">${t("kind.delivered")}</span><strong>${number(ledger.data.delivered)}</strong></div></div>` : html`<${Loading} />`}<//>
    ${me.gateway_role === "centre" && html`<${Card} title=${t("cities")}><${Cities} nodes=${cities} home=${me.gateway_division} /><//>`}
    ${ready.data?.devices && html`<${Card} title=${t("page.devices")}><div class="flow">${Object.entries(ready.data.devices).map(([state, count]) => html`<${Link} key=${state} to=${`/console/devices?state=${state}`}><span class="quiet">${t(`state.${state}`)}</span><strong>${number(count)}</strong><//>`)}</div><//>`}`;
}

// ── devices ─────────────────────────────────────────────────────────────────────────────────────────────
const DEVICE_STATES = ["registered", "active", "silent", "disabled", "retired"];
const DEVICE_COLUMNS = [{ name: "id" }, { name: "name" }, { name: "state", badge: true }, { name: "last_seen", time: true }, { name: "division" }, { name: "profile", show: (value) => html`<${Link} to=${profile(value)}>${value}<//>` }, { name: "department" }, { name: "gateway" }, { name: "asset" }];

function Devices() {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({
    title: t("addDevice"), action: t("add"), consequence: t("addDeviceHelp"),
    fields: [{ name: "id", label: t("column.id"), required: true }, { name: "division", label: t("column.division"), required: true, hint: "440106" }, { name: "profile", label: t("column.profile"), required: true, value: "sensegate/plain" }, { name: "name", label: t("column.name") }],
    submit: async (values) => {
      const made = await call("POST", "/api/v1/devices", Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
      setStamp(stamp + 1);
      return html`<p>${t("shownOnce")}</p><${Facts} rows=${[["username", made.username], ["password", html`<span class="secret">${made.password}</span>`], ["column.topics", (made.topics || []).join(", ")]]} />${(made.warnings || []).map((warning) => html`<p class="quiet">${warning}</p>`)}<p><${Link} to=${device(made.id)}>${made.id}<//></p>`;
    },
  });
  const bulk = () => show({
    title: t("importDevices"), action: t("check"), consequence: t("importHelp"),
    fields: [{ name: "csv", label: "CSV", rows: 10, required: true, value: "id,division,profile\n" }, { name: "really", label: t("importMode"), options: [["", t("dryRun")], ["yes", t("importNow")]] }],
    submit: async ({ csv, really }) => {
      const report = await call("POST", `/api/v1/devices/import${really ? "" : "?dry_run=true"}`, csv);
      setStamp(stamp + 1);
      return html`<p>${t(really ? "imported" : "wouldImport", number(report.rows.length))}</p>${report.rows.some((row) => row.password) && html`<p>${t("shownOnce")}</p>`}<div class="scroll" tabindex="0"><table><tbody>${report.rows.map((row) => html`<tr key=${row.line}><td>${row.line}</td><td>${row.id}</td><td>${row.outcome}</td><td>${row.password ? html`<span class="secret">${row.password}</span>` : [row.problem, row.remedy].filter(Boolean).join("; ")}</td></tr>`)}</tbody></table></div>`;
    },
  });
  return html`<h1>${t("page.devices")}</h1>${dialog}<section class="card"><${List} key=${stamp} path="/api/v1/devices" columns=${DEVICE_COLUMNS} link=${(row) => device(row.id)} empty=${t("noDevices")}
    filters=${[{ name: "state", options: DEVICE_STATES }, { name: "division" }, { name: "profile" }, { name: "domain" }]}
    actions=${html`<button type="button" onClick=${bulk}>${t("importDevices")}</button><button type="button" class="primary" onClick=${add}>${t("addDevice")}</button>`} /></section>`;
}
const LATEST_COLUMNS = [{ name: "property" }, { name: "channel" }, { name: "value", numeric: true }, { name: "unit" }, { name: "time", time: true }, { name: "quality", badge: true }, { name: "flags" }];
const SPANS = ["1h", "24h", "3d"];

function Device({ id }) {
  const [dialog, show] = useDialog();
  const [chosen, choose] = useState("");
  const span = searchValues().span || "24h";
  const row = useLoad(`/api/v1/devices/${encodeURIComponent(id)}`, 15), latest = useLoad(`/api/v1/devices/${encodeURIComponent(id)}/latest?limit=500`, 5);
  const quarantine = useLoad(`/api/v1/quarantine${query({ device: id, since: "24h", limit: 20 })}`, 15), tasks = useLoad(`/api/v1/tasks${query({ device: id })}`, 15);
  const series = (latest.data?.rows || []).filter((value) => typeof value.value === "number");
  const property = chosen || (series[0] ? `${series[0].property}${series[0].channel ? `#${series[0].channel}` : ""}` : "");
  const act = (path, title, consequence, danger, method = "POST", withRevision = false) => show({
    title, consequence, danger, action: title, submit: async () => {
      const answer = await call(method, `/api/v1/devices/${encodeURIComponent(id)}${path}`, undefined, withRevision ? revisionHeader(row.data) : {});
      row.reload();
      return answer.password ? html`<p>${t("shownOnce")}</p><p class="secret">${answer.password}</p>` : null;
    },
  });
  const facts = row.data;
  return html`${dialog}<div class="headline"><h1>${id}</h1>${facts && html`<${Badge} value=${facts.state} />`}<span class="space"></span>
      ${facts && facts.state !== "retired" && html`<button type="button" onClick=${() => act("/rotate", t("rotate"), t("rotateHelp"))}>${t("rotate")}</button>
        ${facts.state === "disabled" ? html`<button type="button" onClick=${() => act("/enable", t("enable"), t("enableHelp"))}>${t("enable")}</button>` : html`<button type="button" onClick=${() => act("/disable", t("disable"), t("disableHelp"), true)}>${t("disable")}</button>`}
        <button type="button" onClick=${() => act("", t("retire"), t("retireHelp"), true, "DELETE", true)}>${t("retire")}</button>`}</div>
    <${Problem} error=${row.error} retry=${row.reload} />
    ${facts && html`<${Card} title=${t("registration")}><${Facts} rows=${[["column.name", facts.name], ["column.division", facts.division], ["column.profile", html`<${Link} to=${profile(facts.profile)}>${facts.profile}<//>`], ["column.last_seen", html`<${Time} value=${facts.last_seen} />`], facts.silent_since && ["silentSince", html`<${Time} value=${facts.silent_since} />`], ["column.department", facts.department], ["column.owner", facts.owner], ["column.gateway", facts.gateway], ["column.alias", facts.alias], ["column.asset", facts.asset], ["place", facts.lon === null || facts.lon === undefined ? "" : `${facts.lon}, ${facts.lat}`], ["column.grade", facts.grade], ["column.interval_s", facts.interval_s || ""], ["column.clock_lag_s", facts.clock_lag_s === null ? "" : number(facts.clock_lag_s)]]} /><//>`}
    <${Card} title=${t("lastValues")}>${latest.error ? html`<${Problem} error=${latest.error} />` : (latest.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${LATEST_COLUMNS.map((column) => html`<th key=${column.name} class=${column.numeric ? "number" : ""}>${t(`column.${column.name}`)}</th>`)}</tr></thead>
      <tbody>${latest.data.rows.map((value) => html`<tr key=${value.id || value.property + value.channel}><td>${typeof value.value === "number" ? html`<button type="button" class="plain" onClick=${() => choose(`${value.property}${value.channel ? `#${value.channel}` : ""}`)}><u>${value.property}</u></button>` : value.property}</td><td>${value.channel || ""}</td><td class="number">${typeof value.value === "number" ? number(value.value, 6) : String(value.value).slice(0, 120)}</td><td>${value.unit}</td><td><${Time} value=${value.time} /></td><td><${Badge} value=${value.quality} /></td><td>${(value.flags || []).join(", ")}</td></tr>`)}</tbody></table></div>` : html`<${Empty} text=${t("noValues")} />`}<//>
    ${property && html`<${Card} title=${property} actions=${html`<div class="tabs">${SPANS.map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === span} onClick=${() => replaceSearch({ span: choice })}>${choice}</button>`)}</div>`}><${Series} id=${id} property=${property} span=${span} /><//>`}
    <div class="columns">
      <${Card} title=${t("quarantined24h")}>${(quarantine.data?.rows || []).length ? html`<ul class="needs">${quarantine.data.rows.map((message) => html`<li key=${message.entry}><div><strong>${t(`reason.${message.reason}`)}</strong> · <${Time} value=${message.received} /><br /><span class="quiet">${message.detail}</span><pre>${message.payload}</pre></div></li>`)}</ul>` : html`<${Empty} text=${t("noneQuarantined")} />`}<//>
      <${Card} title=${t("page.tasks")}>${(tasks.data?.rows || []).length ? html`<ul class="needs">${tasks.data.rows.slice(0, 20).map((task) => html`<li key=${task.id}><div>${task.task} <${Badge} value=${task.state} /> <${Time} value=${task.created} /></div></li>`)}</ul>` : html`<${Empty} text=${t("noTasks")} />`}<//></div>`;
}
function Series({ id, property, span }) {
  const { data, error, loading } = useLoad(`/api/v1/feeds/all/records${query({ device: id, property, since: span, order: "desc", limit: 1000 })}`, 15);
  const drawn = useMemo(() => {
    const records = [...(data?.records || [])].filter((record) => typeof record.value === "number").sort((left, right) => instant(left.time) - instant(right.time));
    const times = [], values = [], flagged = [];
    const steps = records.slice(1).map((record, index) => instant(record.time) - instant(records[index].time)).sort((left, right) => left - right);
    const usual = steps[Math.floor(steps.length / 2)] || 0;
    records.forEach((record, index) => {
      const at = instant(record.time) / 1000;
      // Twice the usual step without a value is a gap, and is drawn as one.
      if (index && usual && at - times.at(-1) > (3 * usual) / 1000) { times.push(times.at(-1) + usual / 1000); values.push(null); flagged.push(null); }
      times.push(at);
      values.push(record.value);
      flagged.push(record.quality === "good" ? null : record.value);
    });
    return { times, values, flagged, unit: records[0]?.unit || "" };
  }, [data]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!data && loading) return html`<${Loading} />`;
  return drawn.times.length ? html`<${Chart} ...${drawn} /><p class="quiet">${t("pointsShown", number(drawn.times.length))}</p>` : html`<${Empty} text=${t("noValues")} />`;
}

// ── alarms ──────────────────────────────────────────────────────────────────────────────────────────────
const ALARM_COLUMNS = [{ name: "title", show: (value, row) => value || row.rule }, { name: "severity", badge: true }, { name: "state", badge: true }, { name: "device", show: (value, row) => (value ? html`<${Link} to=${device(value)}>${value}<//>` : row.node) }, { name: "property" }, { name: "value", numeric: true }, { name: "opened", time: true }, { name: "closed", time: true }, { name: "reason" }, { name: "acknowledged_by" }];
const RULE_KINDS = ["threshold", "change", "silence", "gap", "quality", "quarantine_rate", "lag", "disk", "refused_spans", "store_missing"];
function Alarms({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const renew = () => setStamp((before) => before + 1);
  const rules = useLoad("/api/v1/alarm-rules?limit=200", 30);
  const act = (row, verb, title, consequence, fields, bodyOf) => show({ title, consequence, action: title, fields, submit: async (values) => { await call("POST", `/api/v1/alarms/${encodeURIComponent(row.id)}/${verb}`, bodyOf(values)); renew(); } });
  const note = { name: "note", label: t("column.note") };
  const actions = { name: "actions", sort: false, show: (_, row) => row.state === "closed" ? "" : html`
    ${row.state === "open" && html`<button type="button" onClick=${() => act(row, "acknowledge", t("acknowledge"), t("acknowledgeHelp"), [note], (values) => values)}>${t("acknowledge")}</button>`}
    <button type="button" onClick=${() => act(row, "silence", t("silence"), t("silenceHelp"), [{ name: "hours", label: t("hours"), value: "8", required: true }, note], (values) => ({ seconds: Number(values.hours) * 3600, note: values.note }))}>${t("silence")}</button>` };
  const add = () => show({
    title: t("addRule"), action: t("add"), consequence: t("addRuleHelp"),
    fields: [{ name: "name", label: t("column.name"), required: true, hint: "water-high" }, { name: "kind", label: t("column.kind"), options: RULE_KINDS.map((kind) => [kind, t(`alarm.${kind}`)]) }, { name: "severity", label: t("column.severity"), options: ["info", "warning", "major", "critical"].map((word) => [word, t(`state.${word}`)]), value: "warning" },
      { name: "place", label: t("column.place"), value: me.scope }, { name: "property", label: t("column.property"), hint: "water_level" }, { name: "profile", label: t("column.profile") }, { name: "device", label: t("column.device") }, { name: "above", label: t("above") }, { name: "below", label: t("below") }, { name: "margin", label: t("margin") }, { name: "after_s", label: t("afterSeconds") }],
    submit: async ({ name, ...values }) => {
      const body = {};
      for (const [key, value] of Object.entries(values)) if (value !== "") body[key] = ["above", "below", "margin", "after_s"].includes(key) ? Number(value) : value;
      await call("PUT", `/api/v1/alarm-rules/${encodeURIComponent(name)}`, body);
      rules.reload();
    },
  });
  const remove = (rule) => show({ title: t("deleteRule"), consequence: t("deleteRuleHelp", rule.name), danger: true, action: t("deleteRule"), submit: async () => { await call("DELETE", `/api/v1/alarm-rules/${encodeURIComponent(rule.name)}`); rules.reload(); } });
  return html`${dialog}<h1>${t("page.alarms")}</h1>
    <section class="card"><${List} key=${stamp} path="/api/v1/alarms" columns=${[...ALARM_COLUMNS, actions]} defaults=${{ sort: "-opened" }} empty=${t("noAlarms")} interval_s=${5} filters=${[{ name: "state", options: ["open", "acknowledged", "closed"] }, { name: "severity", options: ["critical", "major", "warning", "info"] }]} /></section>
    <${Card} title=${t("rules")} actions=${html`<button type="button" class="primary" onClick=${add}>${t("addRule")}</button>`}><${Problem} error=${rules.error} />
      ${(rules.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${["name", "kind", "severity", "place", "condition", "written_by"].map((name) => html`<th key=${name}>${t(`column.${name}`)}</th>`)}<th></th></tr></thead><tbody>
        ${rules.data.rows.map((rule) => html`<tr key=${rule.name}><td>${rule.title || rule.name}</td><td>${t(`alarm.${rule.kind}`)}</td><td><${Badge} value=${rule.severity} /></td><td>${rule.place}</td><td>${[rule.profile, rule.device, rule.property, rule.above !== null && `> ${rule.above}`, rule.below !== null && `< ${rule.below}`, rule.after_s ? `${rule.after_s} s` : ""].filter(Boolean).join(" ")}</td><td>${rule.written_by}</td><td>${!rule.name.includes(":") && html`<button type="button" onClick=${() => remove(rule)}>${t("deleteRule")}</button>`}</td></tr>`)}</tbody></table></div>` : html`<${Empty} text=${t("noRules")} />`}<//>`;
}

// ── profiles ────────────────────────────────────────────────────────────────────────────────────────────
function Profiles() {
  return html`<h1>${t("page.profiles")}</h1><section class="card"><${List} path="/api/v1/profiles" interval_s=${30} link=${(row) => profile(row.id)}
    columns=${[{ name: "id" }, { name: "version", numeric: true }, { name: "title" }, { name: "format" }, { name: "properties", show: (value) => (value || []).slice(0, 6).join(", ") + ((value || []).length > 6 ? " …" : "") }, { name: "problem" }]} /></section>`;
}
const VERSION_COLUMNS = ["version", "state", "in_force", "trial", "created", "made_by", "note"];
function Profile({ vendor, model, me }) {
  const base = `/api/v1/profiles/${encodeURIComponent(vendor)}/${encodeURIComponent(model)}`;
  const [dialog, show] = useDialog();
  const [content, setContent] = useState(null);
  const facts = useLoad(base, 30), versions = useLoad(`${base}/versions?limit=100&sort=-version`, 10), jobs = useLoad(`${base}/jobs?limit=10`, 10), orders = useLoad(`${base}/redecode?limit=10`, 10);
  const act = (title, consequence, path, body = {}, method = "POST", fields = [], danger = false) => show({ title, consequence, action: title, fields, danger, submit: async (values) => {
    const sent = { ...body };
    for (const [key, value] of Object.entries(values)) if (value !== "") sent[key] = key === "share" ? Number(value) : value;
    await call(method, `${base}${path}`, method === "DELETE" ? undefined : sent);
    versions.reload(); facts.reload(); orders.reload();
  } });
  const note = { name: "note", label: t("column.note") };
  const create = async (text) => show({ title: t("newVersion"), action: t("saveDraft"), consequence: t("newVersionHelp"), fields: [{ name: "text", label: "YAML", rows: 20, required: true, value: text }, note], submit: async (values) => {
    await call("POST", `${base}/versions`, values);
    versions.reload();
  } });
  const open = async (version) => setContent(await call("GET", `${base}/versions/${version}`).catch((why) => ({ error: why })));
  return html`${dialog}<div class="headline"><h1>${vendor}/${model}</h1>${facts.data && html`<span class="badge">v${facts.data.version}</span>`}<span class="space"></span>
      <button type="button" onClick=${() => act(t("rollback"), t("rollbackHelp"), "/rollback", { target: me.scope }, "POST", [note], true)}>${t("rollback")}</button>
      <button type="button" onClick=${() => act(t("redecode"), t("redecodeHelp"), "/redecode?since=24h", { selection: "both" }, "POST", [note])}>${t("redecode")}</button></div>
    <${Problem} error=${facts.error} retry=${facts.reload} />
    ${facts.data && html`<${Card} title=${facts.data.title}><${Facts} rows=${[["column.format", facts.data.format], ["column.topics", (facts.data.topics || []).join(", ")], ["column.properties", (facts.data.properties || []).join(", ")], facts.data.problem && ["column.problem", facts.data.problem]]} /><//>`}
    <${Card} title=${t("versions")} actions=${html`<button type="button" onClick=${() => create("")}>${t("newVersion")}</button>`}>${versions.error ? html`<${Problem} error=${versions.error} />` : (versions.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${VERSION_COLUMNS.map((name) => html`<th key=${name}>${t(`column.${name}`)}</th>`)}<th></th></tr></thead><tbody>
      ${versions.data.rows.map((row) => html`<tr key=${row.version}><td><button type="button" class="plain" onClick=${() => open(row.version)}><u>${row.version}</u></button></td><td><${Badge} value=${row.state} /></td><td>${(row.in_force || []).join(", ")}</td><td>${row.trial}</td><td><${Time} value=${row.created} /></td><td>${row.made_by}</td><td>${row.note}</td>
        <td>${row.state === "draft" && html`<button type="button" onClick=${() => act(t("propose"), t("proposeHelp"), `/versions/${row.version}/propose`, {}, "POST", [note])}>${t("propose")}</button>`}
        ${row.state === "proposed" && html`<button type="button" onClick=${() => act(t("release"), t("releaseHelp"), `/versions/${row.version}/release`, { target: me.scope }, "POST", [note])}>${t("release")}</button>
          <button type="button" onClick=${() => act(t("canary"), t("canaryHelp"), `/versions/${row.version}/canary`, { target: me.scope }, "POST", [{ name: "share", label: t("canaryShare"), value: "0.1", required: true }, note])}>${t("canary")}</button>`}
        ${row.trial === "canary" && html`<button type="button" onClick=${() => act(t("endCanary"), t("endCanaryHelp"), `/canary`, {}, "DELETE")}>${t("endCanary")}</button>`}</td></tr>`)}</tbody></table></div>` : html`<${Empty} text=${t("noVersions")} />`}<//>
    ${content && html`<${Card} title=${t("contentOf", content.version?.version ?? "")} actions=${content.text !== undefined && html`<button type="button" onClick=${() => create(content.text)}>${t("editAsNew")}</button>`}><${Problem} error=${content.error} />${content.text !== undefined ? html`<pre>${content.text}</pre>` : !content.error && html`<pre>${JSON.stringify(content, null, 2)}</pre>`}<//>`}
    <div class="columns"><${Card} title=${t("reprocessing")}>${(orders.data?.rows || []).length ? html`<ul class="needs">${orders.data.rows.map((order) => html`<li key=${order.id}><div><${Badge} value=${order.state} /> ${number(order.share * 100, 0)} % · ${t("recovered", number(order.recovered), number(order.revised))} <${Time} value=${order.created} /> ${order.problem}</div></li>`)}</ul>` : html`<${Empty} />`}<//>
      <${Card} title=${t("jobs")}>${(jobs.data?.rows || []).length ? html`<ul class="needs">${jobs.data.rows.map((job) => html`<li key=${job.id}><div>${job.kind} <${Badge} value=${job.state} /> ${job.problem}</div></li>`)}</ul>` : html`<${Empty} />`}<//></div>`;
}

// ── quarantine: grouped by shape, with a draft for each ────────────────────────────────────────────────
function Quarantine() {
  const [draft, setDraft] = useState(null);
  const since = searchValues().since || "24h";
  const shapes = useLoad(`/api/v1/profiles/unknown?since=${since}`, 20);
  const rows = useLoad(`/api/v1/quarantine${query({ since, limit: 100, reason: searchValues().reason })}`, 10);
  const learn = async (shape) => {
    setDraft({ loading: true });
    setDraft(await call("POST", `/api/v1/profiles/learn?since=${since}`, { shape: shape.id }).catch((error) => ({ error })));
  };
  const reasons = {};
  for (const row of rows.data?.rows || []) reasons[row.reason] = (reasons[row.reason] || 0) + 1;
  return html`<div class="headline"><h1>${t("page.quarantine")}</h1><span class="space"></span><div class="tabs">${["1h", "24h", "7d"].map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === since} onClick=${() => replaceSearch({ since: choice })}>${choice}</button>`)}</div></div>
    <${Card} title=${t("byShape")}>${shapes.error ? html`<${Problem} error=${shapes.error} />` : (shapes.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr><th>${t("column.pattern")}</th><th>${t("column.format")}</th><th class="number">${t("column.messages")}</th><th>${t("column.reason")}</th><th>${t("recognised")}</th><th>${t("column.last")}</th><th></th></tr></thead><tbody>
      ${shapes.data.rows.map((shape, index) => html`<tr key=${shape.id + index}><td>${shape.pattern || shape.name}</td><td>${shape.format}</td><td class="number">${number(shape.messages)}</td><td>${Object.keys(shape.reasons || {}).map((reason) => t(`reason.${reason}`)).join(", ")}</td><td>${(shape.recognised || []).slice(0, 5).join(", ")}</td><td><${Time} value=${shape.last} /></td><td><button type="button" onClick=${() => learn(shape)}>${t("draft")}</button></td></tr>`)}</tbody></table></div>` : shapes.loading ? html`<${Loading} />` : html`<${Empty} text=${t("noShapes")} />`}<//>
    ${draft && html`<${Card} title=${t("draftOf", draft.profile || "")}>${draft.loading ? html`<${Loading} />` : draft.error ? html`<${Problem} error=${draft.error} />` : html`<p class="quiet">${t("draftHelp")}</p><pre>${draft.text}</pre>`}<//>`}
    <${Card} title=${t("messages")}><div class="tabs">${Object.entries(reasons).map(([reason, count]) => html`<button type="button" key=${reason} aria-pressed=${searchValues().reason === reason} onClick=${() => replaceSearch({ since, reason: searchValues().reason === reason ? "" : reason })}>${t(`reason.${reason}`)} ${number(count)}</button>`)}</div>
      <${Problem} error=${rows.error} retry=${rows.reload} />
      ${(rows.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${["received", "reason", "topic", "device", "detail"].map((name) => html`<th key=${name}>${t(`column.${name}`)}</th>`)}</tr></thead><tbody>
        ${rows.data.rows.map((row) => html`<tr key=${row.entry}><td><${Time} value=${row.received} /></td><td>${t(`reason.${row.reason}`)}</td><td>${row.topic}</td><td>${row.device && html`<${Link} to=${device(row.device)}>${row.device}<//>`}</td><td>${row.detail}<details><summary class="quiet">${number(row.bytes)} B</summary><pre>${row.payload}</pre></details></td></tr>`)}</tbody></table></div>` : !rows.loading && html`<${Empty} text=${t("noneQuarantined")} />`}<//>`;
}

// ── data ────────────────────────────────────────────────────────────────────────────────────────────────
function Records() {
  const feeds = useLoad("/api/v1/feeds?limit=200");
  const values = searchValues();
  const feed = values.feed || "all", form = values.form || "latest";
  const filters = { device: values.device, property: values.property, division: values.division };
  const path = form === "latest" ? `/api/v1/feeds/${encodeURIComponent(feed)}/latest${query({ ...filters, limit: 200 })}` : `/api/v1/feeds/${encodeURIComponent(feed)}/records${query({ ...filters, since: "24h", order: "desc", limit: 200 })}`;
  const { data, error, loading, reload } = useLoad(path, 5);
  const set = (changes) => replaceSearch({ ...values, ...changes });
  return html`<div class="headline"><h1>${t("page.records")}</h1><span class="space"></span><div class="tabs">${["latest", "newest"].map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === form} onClick=${() => set({ form: choice })}>${t(`form.${choice}`)}</button>`)}</div></div>
    <section class="card"><div class="tools"><label class="filter">${t("feed")}<select value=${feed} onChange=${(event) => set({ feed: event.target.value })}>${(feeds.data?.rows || [{ name: "all" }]).map((row) => html`<option key=${row.name} value=${row.name} selected=${row.name === feed}>${row.name}</option>`)}</select></label>
      ${["device", "property", "division"].map((name) => html`<label class="filter" key=${name}>${t(`column.${name}`)}<input value=${values[name] || ""} onChange=${(event) => set({ [name]: event.target.value.trim() })} /></label>`)}</div>
      <${Problem} error=${error} retry=${reload} />${!data && loading ? html`<${Loading} />` : (data?.records || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${["device", "property", "value", "unit", "time", "quality", "division", "profile"].map((name) => html`<th key=${name} class=${name === "value" ? "number" : ""}>${t(`column.${name}`)}</th>`)}</tr></thead><tbody>
      ${data.records.map((record) => html`<tr key=${record.id}><td>${record.device && html`<${Link} to=${device(record.device)}>${record.device}<//>`}</td><td>${record.property}</td><td class="number">${typeof record.value === "number" ? number(record.value, 6) : String(record.value).slice(0, 80)}</td><td>${record.unit}</td><td><${Time} value=${record.time} /></td><td><${Badge} value=${record.quality} /></td><td>${record.division}</td><td>${record.profile}</td></tr>`)}</tbody></table></div>` : html`<${Empty} text=${t("noValues")} />`}</section>`;
}
const list = (title, path, columns, more = {}) => function ListPage() { return html`<h1>${t(title)}</h1><section class="card"><${List} path=${path} columns=${columns} ...${more} /></section>`; };
const Feeds = list("page.feeds", "/api/v1/feeds", [{ name: "name", show: (value) => html`<${Link} to=${`/console/records?feed=${encodeURIComponent(value)}`}>${value}<//>` }, { name: "description" }, { name: "divisions" }, { name: "domains" }, { name: "properties" }, { name: "kinds" }, { name: "grade_max", numeric: true }]);
const Subscribers = list("page.subscribers", "/api/v1/subscribers", [{ name: "subscriber" }, { name: "feed" }, { name: "delivery" }, { name: "state", badge: true }, { name: "lag_entries", numeric: true }, { name: "lag_s", numeric: true }, { name: "records", numeric: true }, { name: "failures", numeric: true }, { name: "last", time: true }, { name: "reason" }], { empty: t("noSubscribers") });
const Quality = list("page.quality", "/api/v1/quality?since=24h", [{ name: "device", show: (value) => html`<${Link} to=${device(value)}>${value}<//>` }, { name: "hour", time: true }, { name: "received", numeric: true }, ...["authenticity", "accuracy", "continuity", "completeness"].map((name) => ({ name, numeric: true, show: (value) => (value === null ? "–" : `${number(value * 100, 1)} %`) }))], { interval_s: 60 });
const Tasks = list("page.tasks", "/api/v1/tasks", [{ name: "id" }, { name: "device", show: (value) => html`<${Link} to=${device(value)}>${value}<//>` }, { name: "task" }, { name: "state", badge: true }, { name: "created", time: true }, { name: "by" }, { name: "sends", numeric: true }, { name: "note" }], { empty: t("noTasks") });
const Modes = list("page.modes", "/api/v1/mode-orders", [{ name: "id" }, { name: "plan" }, { name: "place" }, { name: "state", badge: true }, { name: "by" }, { name: "since", time: true }, { name: "until", time: true }, { name: "reason" }], { empty: t("noModes"), search: false, sortable: false });
const Moves = list("page.moves", "/api/v1/moves", [{ name: "id" }, { name: "device" }, { name: "source" }, { name: "target" }, { name: "stage", badge: true }, { name: "requested", time: true }, { name: "by" }, { name: "reason" }], { empty: t("noMoves"), search: false, sortable: false });

// ── nodes ───────────────────────────────────────────────────────────────────────────────────────────────
const NODE_COLUMNS = [{ name: "member" }, { name: "role" }, { name: "state", badge: true }, { name: "lag_entries", numeric: true }, { name: "last_commit", time: true }, { name: "devices", numeric: true }, { name: "load", numeric: true }, { name: "clock_offset_s", numeric: true }, { name: "version" }, { name: "membership", badge: true }, { name: "problems" }];
function Nodes({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const invite = () => show({ title: t("inviteNode"), action: t("invite"), consequence: t("inviteHelp"), fields: [{ name: "member", label: t("column.member"), required: true, hint: "4406" }], submit: async (values) => {
    const made = await call("POST", "/api/v1/nodes", values);
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p class="secret">${made.code}</p>`;
  } });
  return html`${dialog}<h1>${t("page.nodes")}</h1><section class="card"><${List} key=${stamp} path="/api/v1/nodes" columns=${NODE_COLUMNS} search=${false} sortable=${false} interval_s=${5} link=${(row) => `/console/nodes/${row.member}`}
    actions=${me.gateway_role === "centre" && html`<button type="button" class="primary" onClick=${invite}>${t("inviteNode")}</button>`} /></section>`;
}
function Node({ member, me }) {
  const [dialog, show] = useDialog();
  const row = useLoad(`/api/v1/nodes/${encodeURIComponent(member)}`, 5), gaps = useLoad(`/api/v1/nodes/${encodeURIComponent(member)}/gaps`, 60), refused = useLoad(me.gateway_role === "centre" ? `/api/v1/nodes/${encodeURIComponent(member)}/refused` : "/api/v1/uplink/refused", 15);
  const node = row.data;
  const expel = () => show({ title: t("expelNode"), consequence: t("expelHelp", member), danger: true, action: t("expelNode"), fields: [{ name: "note", label: t("column.note") }], submit: async (values) => { await call("POST", `/api/v1/nodes/${encodeURIComponent(member)}/expel`, values); row.reload(); } });
  return html`${dialog}<div class="headline"><h1>${member}</h1>${node && html`<${Badge} value=${node.state} />`}<span class="space"></span>${node && node.role !== "centre" && me.gateway_role === "centre" && html`<button type="button" onClick=${expel}>${t("expelNode")}</button>`}</div>
    <${Problem} error=${row.error} retry=${row.reload} />
    ${node && html`${node.problems?.length > 0 && html`<${Card} title=${t("needsYou")}><ul class="needs">${node.problems.map((problem) => html`<li key=${problem}>${problem}</li>`)}</ul><//>`}
      <${Card} title=${t("stateWord")}><${Facts} rows=${[["column.lag_entries", number(node.lag_entries)], ["column.last_commit", html`<${Time} value=${node.last_commit} />`], ["kind.forwarded", number(node.forwarded)], ["kind.withheld", number(node.withheld)], ["kind.refused_by_centre", number(node.refused)], ["column.devices", number(node.devices)], ["column.load", number(node.load)], ["column.rss_mb", number(node.rss_mb)], ["column.clock_offset_s", number(node.clock_offset_s, 3)], ["column.version", node.version], ["column.areas", (node.areas || []).join(", ")], ["column.membership", node.membership], ["reported", html`<${Time} value=${node.reported} />`], ["column.detail", node.detail]]} /><//>
      <${Card} title=${t("counts")}>${Object.keys(node.counts || {}).length ? html`<div class="flow">${Object.entries(node.counts).sort().map(([kind, count]) => html`<div class="step" key=${kind}><span class="quiet">${t(`kind.${kind}`)}</span><strong>${number(count)}</strong></div>`)}</div>` : html`<${Empty} />`}<//>`}
    <div class="columns"><${Card} title=${t("refusedParts")}>${(refused.data?.rows || []).length ? html`<ul class="needs">${refused.data.rows.map((part) => html`<li key=${part.id}><div><strong>${part.reason}</strong> · ${t("rowsShown", number(part.rows))} · <${Time} value=${part.at} /><br /><span class="quiet">${part.detail}</span></div></li>`)}</ul>` : html`<${Empty} text=${t("noRefused")} />`}<//>
      <${Card} title=${t("gaps")}>${(gaps.data?.rows || []).length ? html`<ul class="needs">${gaps.data.rows.map((gap) => html`<li key=${gap.since}><div><${Time} value=${gap.since} /> – <${Time} value=${gap.until} />: ${t("missingMessages", number(gap.missing))}</div></li>`)}</ul>` : html`<${Empty} text=${t("noGaps")} />`}<//></div>`;
}

// ── people, tokens, audit, system ───────────────────────────────────────────────────────────────────────
const ROLES = ["subscriber", "county_operator", "city_operator", "province_operator", "auditor", "admin"];
function People() {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({ title: t("addPerson"), action: t("add"), fields: [{ name: "id", label: t("name"), required: true }, { name: "role", label: t("column.role"), options: ROLES.map((role) => [role, t(`role.${role}`)]) }, { name: "scope", label: t("column.scope"), required: true }, { name: "department", label: t("column.department") }], submit: async (values) => {
    const made = await call("POST", "/api/v1/people", Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p class="secret">${made.password}</p>`;
  } });
  return html`${dialog}<h1>${t("page.people")}</h1><section class="card"><${List} key=${stamp} path="/api/v1/people" empty=${t("noPeople")} actions=${html`<button type="button" class="primary" onClick=${add}>${t("addPerson")}</button>`}
    columns=${[{ name: "id" }, { name: "title" }, { name: "role", show: (value) => t(`role.${value}`) }, { name: "duty" }, { name: "scope" }, { name: "department" }, { name: "disabled" }, { name: "external" }, { name: "created", time: true }]} /></section>`;
}
function Tokens() {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({ title: t("addToken"), action: t("add"), fields: [{ name: "name", label: t("column.name"), required: true }, { name: "role", label: t("column.role"), options: ROLES.map((role) => [role, t(`role.${role}`)]) }, { name: "scope", label: t("column.scope"), required: true }], submit: async (values) => {
    const made = await call("POST", "/api/v1/tokens", values);
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p class="secret">${made.token}</p>`;
  } });
  const revoke = (row) => show({ title: t("revokeToken"), consequence: t("revokeTokenHelp", row.name || row.id), danger: true, action: t("revokeToken"), submit: async () => { await call("DELETE", `/api/v1/tokens/${encodeURIComponent(row.id)}`); setStamp(stamp + 1); } });
  return html`${dialog}<h1>${t("page.tokens")}</h1><section class="card"><${List} key=${stamp} path="/api/v1/tokens" actions=${html`<button type="button" class="primary" onClick=${add}>${t("addToken")}</button>`}
    columns=${[{ name: "name" }, { name: "role", show: (value) => t(`role.${value}`) }, { name: "scope" }, { name: "feeds" }, { name: "expires", time: true }, { name: "created", time: true }, { name: "created_by" }, { name: "revoked", show: (value, row) => (value ? html`<${Time} value=${value} />` : html`<button type="button" onClick=${() => revoke(row)}>${t("revokeToken")}</button>`) }]} /></section>`;
}
function Audit() {
  const after = searchValues().after || "";
  const { data, error, loading, reload } = useLoad(`/api/v1/audit${query({ after, limit: 100 })}`, after ? 0 : 15), head = useLoad("/api/v1/audit/head", 30);
  const rows = data?.rows || [];
  return html`<div class="headline"><h1>${t("page.audit")}</h1><span class="space"></span><a href="/api/v1/audit/export" download>${t("export")}</a></div><${Problem} error=${error} retry=${reload} />
    ${head.data && html`<p class="quiet">${t("chainHead")} ${head.data.hash.slice(0, 16)}…</p>`}
    <section class="card">${!data && loading ? html`<${Loading} />` : rows.length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${["time", "actor", "action", "target", "detail"].map((name) => html`<th key=${name}>${t(`column.${name}`)}</th>`)}</tr></thead><tbody>${rows.map((row, index) => html`<tr key=${row.number ?? index}><td><${Time} value=${row.time} /></td><td>${row.actor}</td><td>${row.action}</td><td>${row.target}</td><td>${(row.before || row.after) && html`<details><summary class="quiet">${t("change")}</summary><pre>${JSON.stringify({ before: row.before, after: row.after }, null, 1)}</pre></details>`}</td></tr>`)}</tbody></table></div>` : !error && html`<${Empty} />`}
    <div class="pager">${data?.next && html`<button type="button" onClick=${() => replaceSearch({ after: data.next })}>${t("next")} →</button>`}</div></section>`;
}
function System() {
  const ready = useLoad("/readyz", 5), unreadable = useLoad("/api/v1/log/unreadable", 30);
  return html`<div class="headline"><h1>${t("page.system")}</h1>${ready.data && html`<span class=${`badge ${ready.data.ready ? "good" : "bad"}`}>${t(ready.data.ready ? "ready" : "notReady")}</span>`}</div>
    <${Card} title=${t("readiness")}><ul class="needs">${[...(ready.data?.reasons || []).map((text) => ["worst", text]), ...(ready.data?.warnings || []).map((text) => ["", text])].map(([kind, text]) => html`<li class=${kind} key=${text}>${text}</li>`)}${ready.data?.ready && !ready.data.warnings.length && html`<li class="fine">${t("nothingNeeded")}</li>`}</ul>
      ${ready.data?.clock && html`<p class="quiet">${t("clock")}: ${ready.data.clock}</p>`}<//>
    <${Card} title=${t("unreadable")}><${Problem} error=${unreadable.error} />${(unreadable.data?.rows || []).length ? html`<pre>${JSON.stringify(unreadable.data.rows, null, 1)}</pre>` : html`<${Empty} text=${t("noUnreadable")} />`}<//>
    <p class="quiet"><a href="/metrics">/metrics</a> · <a href="/docs">${t("docs")}</a> · <a href="/openapi.json">openapi.json</a></p>`;
}

export const PAGES = [
  { path: "/console/", title: "page.overview", group: "now", key: "o", show: Overview },
  { path: "/console/devices", title: "page.devices", group: "now", key: "d", show: Devices },
  { path: "/console/devices/:id", title: "page.devices", parent: "/console/devices", show: Device },
  { path: "/console/alarms", title: "page.alarms", group: "now", key: "l", show: Alarms },
  { path: "/console/records", title: "page.records", group: "now", key: "r", show: Records },
  { path: "/console/quarantine", title: "page.quarantine", group: "now", key: "q", show: Quarantine },
  { path: "/console/profiles", title: "page.profiles", group: "now", key: "p", show: Profiles },
  { path: "/console/profiles/:vendor/:model", title: "page.profiles", parent: "/console/profiles", show: Profile },
  { path: "/console/feeds", title: "page.feeds", group: "sharing", key: "f", show: Feeds },
  { path: "/console/subscribers", title: "page.subscribers", group: "sharing", key: "s", show: Subscribers },
  { path: "/console/quality", title: "page.quality", group: "sharing", key: "i", show: Quality },
  { path: "/console/nodes", title: "page.nodes", group: "operations", key: "n", show: Nodes },
  { path: "/console/nodes/:member", title: "page.nodes", parent: "/console/nodes", show: Node },
  { path: "/console/moves", title: "page.moves", group: "operations", key: "m", at: "centre", show: Moves },
  { path: "/console/tasks", title: "page.tasks", group: "operations", key: "t", show: Tasks },
  { path: "/console/modes", title: "page.modes", group: "operations", key: "e", show: Modes },
  { path: "/console/people", title: "page.people", group: "administration", key: "u", show: People },
  { path: "/console/tokens", title: "page.tokens", group: "administration", key: "k", show: Tokens },
  { path: "/console/audit", title: "page.audit", group: "administration", key: "a", show: Audit },
  { path: "/console/system", title: "page.system", group: "administration", key: "y", show: System },
];
export function pageOf(path) {
  const parts = path.replace(/\/+$/, "").split("/");
  for (const page of PAGES) {
    const pattern = page.path.replace(/\/+$/, "").split("/");
    if (pattern.length !== parts.length || !pattern.every((part, index) => part.startsWith(":") || part === parts[index])) continue;
    return { page, parameters: Object.fromEntries(pattern.flatMap((part, index) => (part.startsWith(":") ? [[part.slice(1), decodeURIComponent(parts[index])]] : []))) };
  }
  return { page: null, parameters: {} };
}
