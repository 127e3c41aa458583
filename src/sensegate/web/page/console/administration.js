// People, tokens, audit.
import { html, useState } from "./preact.js";
import { Empty, List, Loading, Problem, Time, call, query, replaceSearch, searchValues, t, useDialog, useLoad } from "./lib.js";

const ROLES = ["subscriber", "county_operator", "city_operator", "province_operator", "auditor", "admin"];
export function People() {
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
export function Tokens() {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({ title: t("addToken"), action: t("add"), fields: [{ name: "name", label: t("column.name"), required: true }, { name: "role", label: t("column.role"), options: ROLES.map((role) => [role, t(`role.${role}`)]) }, { name: "scope", label: t("column.scope"), required: true }], submit: async (values) => {
    const made = await call("POST", "/api/v1/tokens", values);
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p class="secret">${made.token}</p>`;
  } });
  const revoke = (row) => show({ title: t("revokeToken"), consequence: t("revokeTokenHelp", row.name || row.id), danger: true, action: t("revokeToken"), submit: async () => { await call("DELETE", `/api/v1/tokens/${encodeURIComponent(row.id)}`); setStamp(stamp + 1); } });
  return html`${dialog}<h1>${t("page.tokens")}</h1><section class="card"><${List} key=${stamp} path="/api/v1/tokens" actions=${html`<button type="button" class="primary" onClick=${add}>${t("addToken")}</button>`}
    columns=${[{ name: "name" }, { name: "role", show: (value) => t(`role.${value}`) }, { name: "scope" }, { name: "feeds" }, { name: "expires", time: true }, { name: "created", time: true }, { name: "created_by" }, { name: "suspended" }, { name: "revoked", show: (value, row) => (value ? html`<${Time} value=${value} />` : html`<button type="button" onClick=${() => revoke(row)}>${t("revokeToken")}</button>`) }]} /></section>`;
}
export function Audit() {
  const after = searchValues().after || "";
  const { data, error, loading, reload } = useLoad(`/api/v1/audit${query({ after, limit: 100 })}`, after ? 0 : 15), head = useLoad("/api/v1/audit/head", 30);
  const rows = data?.rows || [];
  return html`<div class="headline"><h1>${t("page.audit")}</h1><span class="space"></span><a href="/api/v1/audit/export" download>${t("export")}</a></div><${Problem} error=${error} retry=${reload} />
    ${head.data && html`<p class="quiet">${t("chainHead")} ${head.data.hash.slice(0, 16)}…</p>`}
    <section class="card">${!data && loading ? html`<${Loading} />` : rows.length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${["time", "actor", "action", "target", "detail"].map((name) => html`<th key=${name}>${t(`column.${name}`)}</th>`)}</tr></thead><tbody>${rows.map((row, index) => html`<tr key=${row.number ?? index}><td><${Time} value=${row.time} /></td><td>${row.actor}</td><td>${row.action}</td><td>${row.target}</td><td>${(row.before || row.after) && html`<details><summary class="quiet">${t("change")}</summary><pre>${JSON.stringify({ before: row.before, after: row.after }, null, 1)}</pre></details>`}</td></tr>`)}</tbody></table></div>` : !error && html`<${Empty} />`}
    <div class="pager">${data?.next && html`<button type="button" onClick=${() => replaceSearch({ after: data.next })}>${t("next")} →</button>`}</div></section>`;
}
