// Profiles: the list, and one profile with its versions.
import { html, useState } from "./preact.js";
import { Absent, Badge, Card, Facts, Link, List, Problem, Property, Time, Who, call, editorOf, may, number, profile, replaceSearch, searchValues, t, titleOf, useDialog, useLoad } from "./lib.js";
import { Changes } from "./history.js";
import { Table, download } from "./more.js";
import { CanaryFigures, Comparison } from "./comparison.js";
import "./editor.texts.js";


export function Profiles() {
  return html`<div class="headline"><h1>${t("page.profiles")}</h1><span class="space"></span><${Link} to="/console/editor" class="button primary">${t("newProfile")}<//></div><section class="card"><${List} path="/api/v1/profiles" interval_s=${30} link=${(row) => profile(row.id)}
    columns=${[{ name: "id" }, { name: "version", numeric: true }, { name: "title", value: titleOf }, { name: "format" }, { name: "problem" }]} /></section>`;
}
export function Profile({ vendor, model, me }) {
  const base = `/api/v1/profiles/${encodeURIComponent(vendor)}/${encodeURIComponent(model)}`;
  const [dialog, show] = useDialog();
  const [content, setContent] = useState(null), [packError, setPackError] = useState(null);
  const facts = useLoad(base, 30), versions = useLoad(`${base}/versions?limit=100&sort=-version`, 10), jobs = useLoad(`${base}/jobs?limit=10`, 10), orders = useLoad(`${base}/redecode?limit=10`, 10), life = useLoad(`${base}/history`, 5);
  const compared = searchValues().job;
  const name = `${vendor}/${model}`, canary = life.data?.canary;
  const act = (title, consequence, path, body = {}, method = "POST", fields = [], danger = false) => show({ title, consequence, action: title, fields, danger, submit: async (values) => {
    const sent = { ...body };
    for (const [key, value] of Object.entries(values)) if (value !== "") sent[key] = key === "share" ? Number(value) : key === "devices" ? value.split(/[\s,;]+/).filter(Boolean) : value;
    if (sent.devices) delete sent.share;
    await call(method, `${base}${path}`, method === "DELETE" ? undefined : sent);
    versions.reload(); facts.reload(); orders.reload();
  } });
  const note = { name: "note", label: t("column.note") };
  const open = async (version) => setContent(await call("GET", `${base}/versions/${version}`).catch((why) => ({ error: why })));
  const columns = [{ name: "version", show: (value) => html`<button type="button" class="plain" onClick=${() => open(value)}><u>${value}</u></button>` }, { name: "state", show: (value) => html`<${Badge} value=${value} />` }, { name: "in_force", show: (value) => (value || []).join(", ") }, { name: "trial", show: (value) => value && t(`trial.${value}`) }, { name: "created", show: (value) => html`<${Time} value=${value} />` }, { name: "made_by", show: (value) => value && html`<${Who} id=${value} />` }, { name: "note" },
    { name: "actions", show: (_, row) => html`${row.state === "draft" && html`<${Link} to=${editorOf(name, { version: row.version })} class="button">${t("editProfile")}<//><button type="button" onClick=${() => act(t("propose"), t("proposeHelp"), `/versions/${row.version}/propose`, {}, "POST", [note])}>${t("propose")}</button>`}
      ${row.state === "proposed" && html`<button type="button" onClick=${() => act(t("release"), t("releaseHelp"), `/versions/${row.version}/release`, { target: me.scope }, "POST", [note])}>${t("release")}</button>
        ${!canary && html`<button type="button" onClick=${() => act(t("canary"), t("canaryHelp"), `/versions/${row.version}/canary`, { target: me.scope }, "POST", [{ name: "devices", label: t("canaryDevices") }, { name: "share", label: t("canaryShare"), value: "0.1" }, note])}>${t("canary")}</button>`}`}
      ${row.trial === "canary" && html`<button type="button" onClick=${() => act(t("endCanary"), t("endCanaryHelp"), `/canary`, {}, "DELETE")}>${t("endCanary")}</button>`}` }];
  return html`${dialog}<div class="headline"><h1>${vendor}/${model}</h1>${facts.data && html`<span class="badge">v${facts.data.version}</span>`}<span class="space"></span>
      <${Link} to=${editorOf(name)} class="button primary">${t("editProfile")}<//>
      <button type="button" onClick=${() => act(t("rollback"), t("rollbackHelp"), "/rollback", { target: me.scope }, "POST", [note], true)}>${t("rollback")}</button>
      <button type="button" onClick=${() => act(t("redecode"), t("redecodeHelp"), "/redecode?since=24h", { selection: "both" }, "POST", [note])}>${t("redecode")}</button>
      ${may("read_quarantine") && html`<button type="button" onClick=${() => download(`${base}/pack?since=7d`, "application/zip", `${vendor}-${model}.zip`).catch(setPackError)}>${t("makerPack")}</button>`}</div>
    <${Problem} error=${packError} />
    <${Problem} error=${facts.error} retry=${facts.reload} />
    ${facts.data && html`<${Card} title=${titleOf(facts.data)}><${Facts} rows=${[["column.format", facts.data.format], ["column.topics", (facts.data.topics || []).join(", ")], facts.data.properties?.length && ["column.properties", facts.data.properties.map((name, index) => html`${index > 0 && ", "}<${Property} key=${name} name=${name} />`)], facts.data.problem && ["column.problem", facts.data.problem]]} /><//>`}
    ${canary && html`<${Card} title=${t("canaryOf", canary.version)}><${CanaryFigures} canary=${canary} /><//>`}
    <${Card} title=${t("versions")}>${(versions.data?.rows || []).length ? html`<${Table} rows=${versions.data.rows} columns=${columns} />` : html`<${Absent} of=${versions} text=${t("noVersions")} />`}<//>
    ${content && html`<${Card} title=${t("contentOf", content.version?.version ?? "")} actions=${content.text !== undefined && html`<${Link} to=${editorOf(name, { version: content.version.version })} class="button">${t("editAsNew")}<//>`}><${Problem} error=${content.error} />${content.text !== undefined ? html`<pre>${content.text}</pre>` : !content.error && html`<pre>${JSON.stringify(content, null, 2)}</pre>`}<//>`}
    <div class="columns"><${Card} title=${t("reprocessing")}>${(orders.data?.rows || []).length ? html`<ul class="needs">${orders.data.rows.map((order) => html`<li key=${order.id}><div><${Badge} value=${order.state} /> ${number(order.share * 100, 0)} % · ${t("recovered", number(order.recovered), number(order.revised))} <${Time} value=${order.created} /> ${order.problem}</div></li>`)}</ul>` : html`<${Absent} of=${orders} />`}<//>
      <${Card} title=${t("jobs")}>${(jobs.data?.rows || []).length ? html`<ul class="needs">${jobs.data.rows.map((job) => html`<li key=${job.id}><div><button type="button" class="plain" onClick=${() => replaceSearch({ job: compared === job.id ? "" : job.id })}><u>${t(`job.${job.kind}`)}</u></button> <${Badge} value=${job.state} /> <${Time} value=${job.started} /> ${job.problem}</div></li>`)}</ul>` : html`<${Absent} of=${jobs} />`}<//></div>
    <${Changes} path=${base} target=${name} />
    ${compared && html`<${Comparison} name=${name} job=${compared} />`}`;
}
