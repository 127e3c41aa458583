// Devices: the list, and one device with its values.
import { html, useEffect, useMemo, useRef, useState } from "./preact.js";
import { Changes, Messages } from "./history.js";
import { sentence } from "./sentences.js";
import { Absent, Badge, Card, Chart, Empty, Facts, Link, List, Loading, Problem, ProblemText, Property, Quality, Secret, Time, Who, call, device, editorOf, emptyHere, flagWords, instant, localTime, may, number, prepareChart, profile, query, replaceSearch, revisionHeader, searchValues, t, titleOf, unitText, useDialog, useLoad, usePropertyNames } from "./lib.js";

const DEVICE_STATES = ["registered", "active", "silent", "disabled", "retired"];
const DEVICE_COLUMNS = [{ name: "id" }, { name: "name" }, { name: "state", badge: true }, { name: "last_seen", time: true }, { name: "division" }, { name: "profile", show: (value) => html`<${Link} to=${profile(value)}>${value}<//>` }, { name: "department" }, { name: "gateway" }, { name: "asset" }];

export function Devices() {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({
    title: t("addDevice"), action: t("add"), consequence: t("addDeviceHelp"),
    fields: [{ name: "id", label: t("column.id"), required: true }, { name: "division", label: t("column.division"), required: true, hint: "440106" }, { name: "profile", label: t("column.profile"), required: true, value: "sensegate/plain" }, { name: "name", label: t("column.name") }],
    submit: async (values) => {
      const made = await call("POST", "/api/v1/devices", Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
      setStamp(stamp + 1);
      return html`<p>${t("shownOnce")}</p><${Facts} rows=${[["username", made.username], ["password", html`<${Secret} value=${made.password} />`], ["column.topics", (made.topics || []).join(", ")]]} />${(made.warnings || []).map((warning) => html`<p class="quiet"><${ProblemText} text=${warning} /></p>`)}<p><${Link} to=${device(made.id)}>${made.id}<//></p>`;
    },
  });
  const bulk = () => show({
    title: t("importDevices"), action: t("check"), consequence: t("importHelp"),
    fields: [{ name: "csv", label: "CSV", rows: 10, required: true, value: "id,division,profile\n" }, { name: "really", label: t("importMode"), options: [["", t("dryRun")], ["yes", t("importNow")]] }],
    submit: async ({ csv, really }) => {
      const report = await call("POST", `/api/v1/devices/import${really ? "" : "?dry_run=true"}`, csv);
      setStamp(stamp + 1);
      return html`<p>${t(really ? "imported" : "wouldImport", number(report.rows.length))}</p>${report.rows.some((row) => row.password) && html`<p>${t("shownOnce")}</p>`}<div class="scroll" tabindex="0"><table><tbody>${report.rows.map((row) => html`<tr key=${row.line}><td>${row.line}</td><td>${row.id}</td><td>${t(`outcome.${row.outcome}`)}</td><td>${row.password ? html`<${Secret} value=${row.password} />` : html`<${ProblemText} text=${[row.problem, row.remedy].filter(Boolean).join("; ")} />`}</td></tr>`)}</tbody></table></div>`;
    },
  });
  return html`<h1>${t("page.devices")}</h1>${dialog}<section class="card"><${List} stamp=${stamp} path="/api/v1/devices" scoped="division" columns=${DEVICE_COLUMNS} link=${(row) => device(row.id)} empty=${emptyHere(t("noDevices"))}
    filters=${[{ name: "state", options: DEVICE_STATES }, { name: "division" }, { name: "profile" }, { name: "domain" }]}
    actions=${may("change_devices") && html`<button type="button" onClick=${bulk}>${t("importDevices")}</button><button type="button" class="primary" onClick=${add}>${t("addDevice")}</button>`} /></section>`;
}
const LATEST_COLUMNS = [{ name: "property" }, { name: "channel" }, { name: "value", numeric: true }, { name: "unit" }, { name: "time", time: true }, { name: "quality", badge: true }, { name: "flags" }];
// What of a registration its form changes.
const CHANGED = [["name", {}], ["division", { required: true }], ["profile", { required: true }], ["department", {}], ["owner", {}], ["domain", {}], ["asset", {}], ["alias", {}], ["gateway", {}], ["grade", { options: ["1", "2", "3", "4"].map((grade) => [Number(grade), grade]) }], ["lon", { type: "number", min: -180, max: 180 }], ["lat", { type: "number", min: -90, max: 90 }], ["interval_s", { type: "number", min: 0 }]];
const ALARMS_SHOWN = 20;
const SPANS = ["1h", "24h", "7d", "30d"];

export function Device({ id, me }) {
  const names = usePropertyNames();
  const [dialog, show] = useDialog();
  const [chosen, choose] = useState("");
  useEffect(prepareChart, []);
  const span = searchValues().span || "24h";
  const row = useLoad(`/api/v1/devices/${encodeURIComponent(id)}`, 15);
  // A centre knows the readings of its nodes' devices, not their registration.
  const isOfNode = row.error?.status === 404 && me.gateway_role === "centre";
  const latest = useLoad(isOfNode ? `/api/v1/feeds/all/latest${query({ device: id, limit: 500 })}` : row.data && may("read_readings") ? `/api/v1/devices/${encodeURIComponent(id)}/latest?limit=500` : "", 5);
  const placeOf = (value) => `${value.property}#${value.channel || ""}`;
  const values = [...(latest.data?.rows || latest.data?.records || [])].sort((left, right) => (placeOf(left) < placeOf(right) ? -1 : 1));
  const [traced, trace] = useState("");
  const quarantine = useLoad(row.data && may("read_quarantine") ? `/api/v1/quarantine${query({ device: id, since: "24h", order: "desc", limit: 20 })}` : "", 5), tasks = useLoad(row.data ? `/api/v1/tasks${query({ device: id })}` : "", 15);
  const series = values.filter((value) => typeof value.value === "number");
  const property = chosen || (series[0] ? `${series[0].property}${series[0].channel ? `#${series[0].channel}` : ""}` : "");
  const act = (path, title, consequence, danger, method = "POST", withRevision = false) => show({
    title, consequence, danger, action: title, submit: async () => {
      const answer = await call(method, `/api/v1/devices/${encodeURIComponent(id)}${path}`, undefined, withRevision ? revisionHeader(row.data) : {});
      row.reload();
      return answer.password ? html`<p>${t("shownOnce")}</p><p><${Secret} value=${answer.password} /></p>` : null;
    },
  });
  const facts = row.data;
  // Only what was changed is sent, with the revision that was read: a change by somebody else is not overwritten.
  const change = () => show({
    title: t("changeDevice"), action: t("save"), consequence: t("changeDeviceHelp"),
    fields: CHANGED.map(([name, more]) => ({ name, label: t(name === "lon" || name === "lat" ? name : `column.${name}`), value: facts[name] ?? "", ...more })),
    submit: async (values) => {
      const body = {};
      for (const [name, { type }] of CHANGED) {
        const value = type === "number" ? (values[name] === "" ? null : Number(values[name])) : name === "grade" ? Number(values[name]) : values[name].trim();
        if (value !== (facts[name] ?? (type === "number" ? null : ""))) body[name] = name === "interval_s" ? value || 0 : value;
      }
      if (Object.keys(body).length) await call("PATCH", `/api/v1/devices/${encodeURIComponent(id)}`, body, revisionHeader(facts));
      row.reload();
    },
  });
  const model = useLoad(facts ? `/api/v1/profiles/${facts.profile.split("@")[0]}` : "");
  return html`${dialog}<div class="headline"><h1>${id}</h1>${facts && html`<${Badge} value=${facts.state} />`}<span class="space"></span>
      ${facts && facts.state !== "retired" && may("change_devices") && html`<button type="button" onClick=${change}>${t("modify")}</button><button type="button" onClick=${() => act("/rotate", t("rotate"), t("rotateHelp"))}>${t("rotate")}</button>
        ${facts.state === "disabled" ? html`<button type="button" onClick=${() => act("/enable", t("enable"), t("enableHelp"))}>${t("enable")}</button>` : html`<button type="button" onClick=${() => act("/disable", t("disable"), t("disableHelp"), true)}>${t("disable")}</button>`}
        <button type="button" onClick=${() => act("", t("retire"), t("retireHelp"), true, "DELETE", true)}>${t("retire")}</button>`}</div>
    ${isOfNode && values.length ? html`<p class="quiet">${t("deviceOfNode", values[0].division)} <${Link} to="/console/nodes">${t("page.nodes")}<//></p>` : html`<${Problem} error=${row.error} retry=${row.reload} />`}
    ${facts && html`<${Card} title=${t("registration")}><${Facts} rows=${[["column.name", facts.name], ["column.division", facts.division], ["column.profile", html`${model.data && `${titleOf(model.data)} `}<${Link} to=${profile(facts.profile)}>${facts.profile}<//>`], ["column.last_seen", html`<${Time} value=${facts.last_seen} />`], facts.silent_since && ["silentSince", html`<${Time} value=${facts.silent_since} />`], facts.last_refused && ["lastRefused", html`<${Refusal} of=${facts.last_refused} />`], ["column.department", facts.department], ["column.owner", facts.owner], ["column.gateway", facts.gateway], ["column.alias", facts.alias], ["column.asset", facts.asset], ["place", facts.lon === null || facts.lon === undefined ? "" : `${+facts.lon.toFixed(6)}, ${+facts.lat.toFixed(6)}`], ["column.grade", facts.grade], ["column.interval_s", facts.interval_s || ""], ["column.clock_lag_s", facts.clock_lag_s === null ? "" : number(facts.clock_lag_s)]]} /><//>`}
    ${(facts || isOfNode) && may("read_alarms") && html`<${OpenAlarms} id=${id} />`}
    <${Card} title=${t("lastValues")}>${values.length ? html`<div class="scroll" tabindex="0"><table class="list"><thead><tr>${LATEST_COLUMNS.map((column) => html`<th key=${column.name} class=${column.numeric ? "number" : ""}>${t(`column.${column.name}`)}</th>`)}<th></th></tr></thead>
      <tbody>${values.map((value) => html`<tr key=${value.id || value.property + value.channel}><td data-label=${t("column.property")}>${typeof value.value === "number" ? html`<button type="button" class="plain" onClick=${() => choose(`${value.property}${value.channel ? `#${value.channel}` : ""}`)}><u><${Property} name=${value.property} /></u></button>` : html`<${Property} name=${value.property} />`}</td><td class=${value.channel ? "" : "none"} data-label=${t("column.channel")}>${value.channel || ""}</td><td data-label=${t("column.value")} class="number">${typeof value.value === "number" ? number(value.value, 6) : String(value.value).slice(0, 120)}</td><td data-label=${t("column.unit")} class=${unitText(value.unit) ? "" : "none"}>${unitText(value.unit)}</td><td data-label=${t("column.time")}><${Time} value=${value.time} /></td><td data-label=${t("column.quality")}><${Quality} value=${value.quality} /></td><td class=${value.flags?.length ? "" : "none"} data-label=${t("column.flags")}>${flagWords(value.flags)}</td><td class="actions">${value.id && may("read_ledger") && html`<button type="button" onClick=${() => trace(traced === value.id ? "" : value.id)} aria-expanded=${traced === value.id}>${t("wayOf")}</button>`}</td></tr>`)}</tbody></table></div>` : html`<${Absent} of=${row.data || row.error ? latest : row} text=${t("noValues")} />`}${traced && html`<${Way} key=${traced} record=${traced} />`}<//>
    ${property && html`<${Card} title=${property.split("#").map((part, index) => (index ? part : names.get(part) || part)).join(" · ")} actions=${html`<div class="tabs">${SPANS.map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === span} onClick=${() => replaceSearch({ span: choice })}>${choice}</button>`)}</div>`}><${Series} key=${property + span} id=${id} property=${property} span=${span} /><//>`}
    ${facts && may("read_quarantine") && html`<${Messages} key=${id} id=${id} profile=${facts.profile.split("@")[0]} />`}
    ${facts && html`<div class="columns">
      <${Card} title=${t("quarantined24h")} actions=${html`<${Link} to=${`/console/quarantine${query({ device: id, since: "24h" })}`}>${t("page.quarantine")}<//>`}>${(quarantine.data?.rows || []).length ? html`<ul class="needs">${quarantine.data.rows.map((message) => html`<li key=${message.entry}><div><strong>${t(`reason.${message.reason}`)}</strong> · <${Time} value=${message.received} /><br /><span class="quiet">${sentence(message.detail)}</span><pre>${message.payload}</pre>${facts && html`<${Link} to=${editorOf(facts.profile.split("@")[0], { topic: message.topic, payload: message.payload.slice(0, 1_500), device: id })}>${t("tryInEditor")}<//>`}</div></li>`)}</ul>` : html`<${Absent} of=${quarantine} text=${t("noneQuarantined")} />`}${quarantine.data?.searched_to && html`<p class="quiet">${t("searchedTo")} <${Time} value=${quarantine.data.searched_to} /></p>`}<//>
      <${Card} title=${t("page.tasks")}>${(tasks.data?.rows || []).length ? html`<ul class="needs">${tasks.data.rows.slice(0, 20).map((task) => html`<li key=${task.id}><div>${task.task} <${Badge} value=${task.state} /> <${Time} value=${task.created} /></div></li>`)}</ul>` : html`<${Absent} of=${tasks} text=${t("noTasks")} />`}<//></div>
      <${Changes} path=${`/api/v1/devices/${encodeURIComponent(id)}`} target=${id} />`}`;
}
// Why the broker let it not in, or what it may not send: the first thing to know of a device that is not heard.
const Refusal = ({ of }) => html`<${Time} value=${of.time} /> · ${t(`operation.${of.operation}`)}: ${sentence(of.detail)}${of.address && html` <span class="quiet">${of.address}</span>`} <span class="quiet">${t("timesRefused", number(of.count))}</span>`;
// What is open of a device; closed alarms are on the page of alarms.
function OpenAlarms({ id }) {
  const alarms = useLoad(`/api/v1/alarms${query({ device: id, state: "open,acknowledged", sort: "-opened", limit: ALARMS_SHOWN })}`, 5), rows = alarms.data?.rows || [];
  return html`<${Card} title=${t("openAlarms")} actions=${html`<${Link} to=${`/console/alarms${query({ device: id })}`}>${t("allAlarms")}<//>`}>${rows.length ? html`<ul class="needs">${rows.map((alarm) => html`<li key=${alarm.id} class=${alarm.state === "acknowledged" ? "taken" : alarm.severity === "critical" || alarm.severity === "major" ? "worst" : ""}><div><${Badge} value=${alarm.severity} /> <strong>${sentence(alarm.title) || alarm.rule}</strong>${alarm.property && html` · <${Property} name=${alarm.property} />${alarm.channel && ` · ${alarm.channel}`}`}${alarm.value !== null && html` · ${typeof alarm.value === "number" ? number(alarm.value) : alarm.value}`} · <${Time} value=${alarm.opened} />${alarm.state === "acknowledged" && html` · <${Badge} value=${alarm.state} /> <${Who} id=${alarm.acknowledged_by} />${alarm.acknowledged && html` · <${Time} value=${alarm.acknowledged} />`}${alarm.note && `: ${alarm.note}`}`}${alarm.silenced_until && html` · <span class="quiet">${t("column.silenced_until")} <${Time} value=${alarm.silenced_until} /></span>`}</div></li>`)}</ul>${alarms.data.next && html`<p class="quiet">${t("moreOfThem")}</p>`}` : html`<${Absent} of=${alarms} text=${t("noOpenAlarms")} />`}<//>`;
}
// The way of one reading, stage by stage: the same as `sensegate explain`.
function Way({ record }) {
  const { data, error, loading } = useLoad(`/api/v1/trace${query({ record })}`);
  if (error || loading) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  return html`<h3>${t("wayOf")}: <${Property} name=${data.property} /></h3><ol class="stages">${data.steps.map((step, index) => html`<li key=${index}><strong>${t(`step.${step.step}`)}</strong> ${step.at && html`<${Time} value=${step.at} />`} <span class="quiet">${[step.sequence ? t("entryOf", number(step.sequence)) : "", step.detail].filter(Boolean).join(" · ")}</span></li>`)}</ol>`;
}
// A series, thinned out by the gateway to two points a pixel that keep every peak; without a history the gateway reads the log.
function Series({ id, property, span }) {
  const [points] = useState(() => Math.min(Math.round(1.2 * innerWidth), 4_000));
  const [begin, setBegin] = useState(""), [readFrom, setReadFrom] = useState(""), [isStopped, stop] = useState(false), judged = useRef(null);
  const [name, channel = ""] = property.split("#");
  const { data, error } = useLoad(isStopped ? "" : `/api/v1/feeds/all/history${query({ device: id, property: name, from: readFrom || begin || span, max_points: points, limit: 4_000, fields: "time,value,unit,quality,channel" })}`, 30);
  const drawn = useMemo(() => {
    const latest = Date.now() + 60_000;  // a clock that is ahead would stretch the axis
    const records = [...(data?.records || [])].filter((record) => typeof record.value === "number" && (record.channel || "") === channel && instant(record.time) <= latest).sort((left, right) => instant(left.time) - instant(right.time));
    const times = [], values = [], flagged = [];
    const steps = records.slice(1).map((record, index) => instant(record.time) - instant(records[index].time)).sort((left, right) => left - right);
    // Of a thinned series the two points of a pixel are nearer than the pixels: what three quarters keep is usual.
    const usual = steps[Math.floor((steps.length * 3) / 4)] || 0;
    records.forEach((record, index) => {
      const at = instant(record.time) / 1000;
      // Three times the usual step without a value is a gap, and is drawn as one.
      if (index && usual && at - times.at(-1) > (3 * usual) / 1000) { times.push(times.at(-1) + usual / 1000); values.push(null); flagged.push(null); }
      times.push(at);
      values.push(record.value);
      flagged.push(record.quality === "good" ? null : record.value);
    });
    return { times, values, flagged, unit: unitText(records[0]?.unit) };
  }, [data]);
  // A young gateway without a history has less than was asked for: it names where its log begins, and that is drawn.
  const held = error?.status === 400 && /before (\d{4}-\d\d-\d\dT[\d:.]+Z)/.exec(error.message)?.[1];
  useEffect(() => { if (held) setBegin(held); }, [held]);
  // One whose log is too much to read in time names from where it can be read. Such reads are dear: none is repeated unasked.
  useEffect(() => {
    if (readFrom && data) stop(true);
    if (error?.status !== 413 || judged.current === error) return;
    judged.current = error;
    const later = !readFrom && /after (\d{4}-\d\d-\d\dT[\d:.]+Z)/.exec(error.message)?.[1];
    if (later) setReadFrom(later); else stop(true);
  }, [error, data, readFrom]);
  const again = () => { setReadFrom(""); stop(false); };
  if (error && !held && (error.status !== 413 || isStopped)) return html`<${Problem} error=${error} retry=${isStopped && again} />`;
  if (!data) return html`<${Loading} />`;
  const limit = readFrom ? html`${t("readFrom", localTime(readFrom))} <button type="button" class="plain" onClick=${again}>${t("retry")}</button>` : begin && t("logBegins", localTime(begin));
  return drawn.times.length ? html`<${Chart} ...${drawn} /><p class="quiet">${t("pointsShown", number(drawn.times.length))} ${limit}</p>` : html`<${Empty} text=${t("noValues")} />${limit && html`<p class="quiet">${limit}</p>`}`;
}
