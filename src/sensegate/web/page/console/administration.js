// People, tokens, audit.
import { html, useState } from "./preact.js";
import { Link, List, Problem, Secret, Time, call, device, may, number, profile, revisionHeader, t, useDialog, useLoad } from "./lib.js";
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
  const add = () => show({ title: t("addPerson"), action: t("add"), fields: [{ name: "id", label: t("name"), required: true }, { name: "role", label: t("column.role"), options: roles("change_people", me, 1) }, { name: "scope", label: t("column.scope"), required: true }, { name: "department", label: t("column.department") }, { name: "title", label: t("fullName") }], submit: async (values) => {
    const made = await call("POST", "/api/v1/people", Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
    setStamp(stamp + 1);
    return html`<p>${t("shownOnce")}</p><p><${Secret} value=${made.password} /></p>`;
  } });
  const path = (row) => `/api/v1/people/${encodeURIComponent(row.id)}`;
  const write = (row) => {
    // Rights of somebody above the caller are not in its choice; the gateway refuses what the caller may not do.
    const choice = roles("change_people", me, 1), rights = choice.some(([role]) => role === row.role) ? choice : [[row.role, t(`role.${row.role}`)], ...choice];
    show({
      title: `${t("changePerson")}: ${row.id}`, action: t("save"), consequence: t("changePersonHelp"),
      fields: [{ name: "title", label: t("fullName"), value: row.title }, { name: "role", label: t("column.role"), options: rights, value: row.role }, { name: "scope", label: t("column.scope"), value: row.scope, required: true }, { name: "department", label: t("column.department"), value: row.department }, { name: "disabled", label: t("personDisabled"), type: "checkbox", value: row.disabled }],
      submit: async (values) => {
        const body = Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== row[name]));
        if (Object.keys(body).length) await call("PATCH", path(row), body, revisionHeader(row));
        setStamp(stamp + 1);
      },
    });
  };
  const reset = (row) => show({ title: t("resetPassword"), action: t("resetPassword"), consequence: t("resetPasswordHelp", row.id), submit: async () => { const made = await call("POST", `${path(row)}/password`); setStamp(stamp + 1); return html`<p>${t("shownOnce")}</p><p><${Secret} value=${made.password} /></p>`; } });
  const remove = (row) => show({ title: t("removePerson"), action: t("removePerson"), danger: true, consequence: t("removePersonHelp", row.id), submit: async () => { await call("DELETE", path(row)); setStamp(stamp + 1); } });
  const actions = { name: "actions", sort: false, show: (_, row) => html`<button type="button" onClick=${() => write(row)}>${t("modify")}</button> ${!row.external && html`<button type="button" onClick=${() => reset(row)}>${t("resetPassword")}</button>`} ${row.id !== me.id && html`<button type="button" onClick=${() => remove(row)}>${t("removePerson")}</button>`}` };
  return html`${dialog}<h1>${t("page.people")}</h1><section class="card"><${List} stamp=${stamp} path="/api/v1/people" empty=${t("noPeople")} actions=${html`<button type="button" class="primary" onClick=${add}>${t("addPerson")}</button>`}
    columns=${[{ name: "id" }, { name: "title", label: "fullName" }, { name: "role", show: (value) => t(`role.${value}`) }, { name: "duty" }, { name: "scope" }, { name: "department" }, { name: "disabled" }, { name: "external" }, { name: "created", time: true }, actions]} /></section>`;
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
    columns=${[{ name: "name" }, { name: "role", show: (value) => t(`role.${value}`) }, { name: "scope" }, { name: "feeds" }, { name: "expires", time: true }, { name: "created", time: true }, { name: "created_by", who: true }, { name: "suspended" }, { name: "revoked", show: (value, row) => (value ? html`<${Time} value=${value} />` : html`<button type="button" onClick=${() => revoke(row)}>${t("revokeToken")}</button>`) }]} /></section>`;
}
// The page of what was changed, where it has one.
const placeOf = ({ action, target }) => (action.startsWith("device.") && action !== "device.import" ? device(target) : action.startsWith("profile.") ? profile(target) : "");
const AUDIT_COLUMNS = [{ name: "time", time: true }, { name: "action", show: (value) => html`<span title=${value}>${t(`action.${value}`)}</span>` }, { name: "target", show: (value, row) => { const to = placeOf(row); return to ? html`<${Link} to=${to}>${value}<//>` : value; } }, { name: "actor", who: true }, { name: "role", show: (value) => t(`role.${value}`) },
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
