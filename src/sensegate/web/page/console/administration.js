// People, tokens, audit.
import { html, useState } from "./preact.js";
import { Link, List, Problem, Secret, Time, call, device, may, number, profile, t, useDialog, useLoad } from "./lib.js";
import { download } from "./more.js";
import "./history.texts.js";

const RANKS = { subscriber: 0, county_operator: 1, city_operator: 2, province_operator: 3, admin: 4 };
// The roles that the caller may give: an auditor those of auditors, others up to its own rank.
function roles(right, me, least) {
  const below = may(right) ? Object.keys(RANKS).filter((role) => RANKS[role] >= least && RANKS[role] <= (RANKS[me.role] ?? 0)) : [];
  return [...below, ...(may("change_auditors") ? ["auditor"] : [])].map((role) => [role, t(`role.${role}`)]);
}
export function People({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({ title: t("addPerson"), action: t("add"), fields: [{ name: "id", label: t("name"), required: true }, { name: "role", label: t("column.role"), options: roles("change_people", me, 1) }, { name: "scope", label: t("column.scope"), required: true }, { name: "department", label: t("column.department") }], submit: async (values) => {
    const made = await call("POST", "/api/v1/people", Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p><${Secret} value=${made.password} /></p>`;
  } });
  return html`${dialog}<h1>${t("page.people")}</h1><section class="card"><${List} stamp=${stamp} path="/api/v1/people" empty=${t("noPeople")} actions=${html`<button type="button" class="primary" onClick=${add}>${t("addPerson")}</button>`}
    columns=${[{ name: "id" }, { name: "title" }, { name: "role", show: (value) => t(`role.${value}`) }, { name: "duty" }, { name: "scope" }, { name: "department" }, { name: "disabled" }, { name: "external" }, { name: "created", time: true }]} /></section>`;
}
export function Tokens({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({ title: t("addToken"), action: t("add"), fields: [{ name: "name", label: t("column.name"), required: true }, { name: "role", label: t("column.role"), options: roles("change_tokens", me, 0) }, { name: "scope", label: t("column.scope"), required: true }], submit: async (values) => {
    const made = await call("POST", "/api/v1/tokens", values);
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p><${Secret} value=${made.token} /></p>`;
  } });
  const revoke = (row) => show({ title: t("revokeToken"), consequence: t("revokeTokenHelp", row.name || row.id), danger: true, action: t("revokeToken"), submit: async () => { await call("DELETE", `/api/v1/tokens/${encodeURIComponent(row.id)}`); setStamp(stamp + 1); } });
  return html`${dialog}<h1>${t("page.tokens")}</h1><section class="card"><${List} stamp=${stamp} path="/api/v1/tokens" actions=${html`<button type="button" class="primary" onClick=${add}>${t("addToken")}</button>`}
    columns=${[{ name: "name" }, { name: "role", show: (value) => t(`role.${value}`) }, { name: "scope" }, { name: "feeds" }, { name: "expires", time: true }, { name: "created", time: true }, { name: "created_by" }, { name: "suspended" }, { name: "revoked", show: (value, row) => (value ? html`<${Time} value=${value} />` : html`<button type="button" onClick=${() => revoke(row)}>${t("revokeToken")}</button>`) }]} /></section>`;
}
// The page of what was changed, where it has one.
const placeOf = ({ action, target }) => (action.startsWith("device.") && action !== "device.import" ? device(target) : action.startsWith("profile.") ? profile(target) : "");
const AUDIT_COLUMNS = [{ name: "time", time: true }, { name: "action", show: (value) => html`<span title=${value}>${t(`action.${value}`)}</span>` }, { name: "target", show: (value, row) => { const to = placeOf(row); return to ? html`<${Link} to=${to}>${value}<//>` : value; } }, { name: "actor" }, { name: "role", show: (value) => t(`role.${value}`) },
  { name: "detail", value: (row) => row.before || row.after, show: (value, row) => (value ? html`<details><summary class="quiet">${t("change")}</summary><pre>${JSON.stringify({ before: row.before, after: row.after }, null, 1)}</pre></details>` : "") }];
// Newest first; the filters search the trail from its end.
export function Audit() {
  const head = useLoad("/api/v1/audit/head", 30);
  const [error, setError] = useState(null);
  const save = () => download("/api/v1/audit/export", "application/x-ndjson", "audit.ndjson").catch(setError);
  return html`<div class="headline"><h1>${t("page.audit")}</h1><span class="space"></span><button type="button" onClick=${save}>${t("export")}</button></div><${Problem} error=${error} />
    ${head.data && html`<p class="quiet">${t("chainState", number(head.data.number))} <code>${head.data.hash.slice(0, 16)}…</code> · <${Time} value=${head.data.time} /></p>`}
    <section class="card"><${List} path="/api/v1/audit?newest=true" columns=${AUDIT_COLUMNS} search=${false} sortable=${false} interval_s=${15} filters=${["actor", "action", "target"].map((name) => ({ name, help: t("partOfIt") }))} /></section>`;
}
