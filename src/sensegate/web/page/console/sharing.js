// Sharing: feeds, the catalogue with its form, applications, grants, subscribers, bundles.
import { html, useState } from "./preact.js";
import { Absent, Badge, Card, Empty, Facts, Field, Link, List, Loading, Problem, Time, Who, call, instant, language, localTime, may, mayDecide, number, query, session, t, useDialog, useLoad } from "./lib.js";
import { Table } from "./more.js";
import { maskFields, maskOf, maskText } from "./mask.js";
import "./sharing.texts.js";

const entryPath = (feed) => `/console/feeds/${encodeURIComponent(feed)}`;
const titleOf = (entry) => (language === "en" ? entry.title_en || entry.title : entry.title || entry.title_en) || entry.feed;
const words = (text) => text.split(/[\s,;，；]+/).filter(Boolean);
const DELIVERIES = ["http", "sse", "ws", "mqtt", "webhook", "nats", "influx"];

// ── feeds and the catalogue ─────────────────────────────────────────────────────────────────────────────
const FEED_COLUMNS = [{ name: "name" }, { name: "description" }, { name: "divisions" }, { name: "domains" }, { name: "properties" }, { name: "kinds" }, { name: "grade_max", numeric: true }];
export function Feeds({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const add = () => show({
    title: t("addFeed"), action: t("add"), consequence: t("addFeedHelp"),
    fields: [{ name: "name", label: t("column.name"), required: true, hint: "air-guangzhou" }, { name: "description", label: t("column.description") }, { name: "divisions", label: t("column.divisions"), value: me.scope }, { name: "domains", label: t("column.domains") }, { name: "properties", label: t("column.properties"), hint: "air_temperature" }, { name: "departments", label: t("column.department") },
      { name: "grade_max", label: t("column.grade_max"), options: ["1", "2", "3", "4"].map((grade) => [grade, grade]), value: "3" }],
    submit: async ({ name, description, grade_max, ...lists }) => {
      await call("POST", "/api/v1/feeds", { name, description, grade_max: Number(grade_max), ...Object.fromEntries(Object.entries(lists).map(([key, value]) => [key, words(value)])) });
      setStamp(stamp + 1);
    },
  });
  return html`${dialog}<h1>${t("page.feeds")}</h1><section class="card"><${List} stamp=${stamp} path="/api/v1/feeds" columns=${FEED_COLUMNS} link=${(row) => entryPath(row.name)} empty=${t("noFeeds")}
    actions=${may("change_feeds") && html`<button type="button" class="primary" onClick=${add}>${t("addFeed")}</button>`} /></section>`;
}
const SHARING = ["unconditional", "conditional", "not_shared"], KINDS = ["base", "theme", "department"], CADENCES = ["realtime", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "irregular"];
export const Catalogue = () => html`<div class="headline"><h1>${t("page.catalogue")}</h1><span class="space"></span><a href="/console/bundles">${t("page.bundles")}</a></div><section class="card"><${List} path="/api/v1/catalogue" link=${(row) => entryPath(row.feed)} empty=${t("noEntries")} interval_s=${30}
  columns=${[{ name: "title", value: titleOf }, { name: "state", badge: true }, { name: "sharing", show: (value) => t(`sharing.${value}`) }, { name: "grade", numeric: true }, { name: "domain" }, { name: "department" }, { name: "cadence", show: (value) => (value ? t(`cadence.${value}`) : "–") }, { name: "code" }, { name: "level" }, { name: "origin" }]}
  filters=${[{ name: "state", options: ["published", "draft"] }, { name: "sharing", options: SHARING, word: "sharing" }]} /></section>`;

const FIELDS = [
  ["title", {}], ["title_en", {}], ["summary", { rows: 2 }], ["summary_en", { rows: 2 }], ["department", {}], ["source", {}], ["update", {}], ["quality", {}], ["usage", {}], ["domain", {}],
  ["sharing", { options: () => SHARING.map((word) => [word, t(`sharing.${word}`)]) }], ["conditions", {}], ["legal_basis", {}], ["grade", { type: "number", min: 0, step: 1 }], ["grade_reason", {}],
  ["kind", { options: () => [["", "–"], ...KINDS.map((word) => [word, t(`dataset.${word}`)])] }], ["cadence", { options: () => [["", "–"], ...CADENCES.map((word) => [word, t(`cadence.${word}`)])] }],
  ["provider", { options: () => ["government", "public", "enterprise", "social"].map((word) => [word, t(`provider.${word}`)]) }], ["provider_name", {}], ["provider_code", {}], ["coverage", {}],
];
export function Feed({ name }) {
  const [dialog, show] = useDialog();
  const [editing, edit] = useState(false);
  const path = `/api/v1/catalogue/${encodeURIComponent(name)}`;
  const entry = useLoad(path, 5), feed = useLoad(`/api/v1/feeds/${encodeURIComponent(name)}`, 60), readers = useLoad(`/api/v1/subscribers${query({ feed: name })}`, 10);
  const facts = entry.data;
  const isOwner = may("change_feeds");
  const sample = () => show({
    title: t("takeSample"), action: t("takeSample"), consequence: t("takeSampleHelp"), fields: [{ name: "rows", type: "number", min: 1, step: 1, label: t("column.rows"), value: 5 }, ...maskFields({ drop: ["place"], hash: ["device"], time_s: 3600 }, facts.columns)],
    submit: async ({ rows, ...mask }) => { await call("POST", `${path}/sample`, { rows: Number(rows), mask: maskOf(mask) }); entry.reload(); },
  });
  const remove = () => show({ title: t("deleteFeed"), consequence: t("deleteFeedHelp", name), danger: true, action: t("deleteFeed"), submit: async () => { await call("DELETE", `/api/v1/feeds/${encodeURIComponent(name)}`); history.back(); } });
  return html`${dialog}<div class="headline"><h1>${facts ? titleOf(facts) : name}</h1>${facts && html`<${Badge} value=${facts.state} /><span class="badge">${t(`sharing.${facts.sharing}`)}</span>`}<span class="space"></span>
      ${facts?.can_read ? html`<${Link} to=${`/console/records?feed=${encodeURIComponent(name)}`} class="button">${t("readData")}<//>` : facts?.state === "published" && may("apply_grants") && html`<button type="button" class="primary" onClick=${() => apply(show, { feeds: [name] })}>${t("applyFor")}</button>`}
      ${facts && isOwner && html`<button type="button" onClick=${() => edit(!editing)}>${t(editing ? "cancel" : "editEntry")}</button><button type="button" onClick=${sample}>${t("takeSample")}</button><button type="button" onClick=${remove}>${t("deleteFeed")}</button>`}</div>
    <${Problem} error=${entry.error} retry=${entry.reload} />${!facts && entry.loading && html`<${Loading} />`}
    ${facts && facts.missing.length > 0 && html`<${Card} title=${t("missing")}><ul class="needs">${facts.missing.map((text) => html`<li key=${text}><${MissingText} text=${text} /></li>`)}</ul><//>`}
    ${facts && editing && html`<${EntryForm} key=${facts.revision} facts=${facts} path=${path} done=${() => { edit(false); entry.reload(); }} />`}
    ${facts && !editing && html`<${Card} title=${t("entry")}><${Facts} rows=${[["entry.summary", (language === "en" ? facts.summary_en : facts.summary) || facts.summary], ["column.department", facts.department], ["entry.source", facts.source], ["entry.update", facts.update], ["entry.quality", facts.quality], ["entry.usage", facts.usage], ["entry.conditions", facts.conditions], ["entry.legal_basis", facts.legal_basis], ["column.grade", facts.grade], ["column.code", facts.code], ["entry.cadence", facts.cadence && t(`cadence.${facts.cadence}`)], ["column.divisions", facts.divisions.join(", ")], ["column.level", facts.level], facts.published && ["published", html`<${Time} value=${facts.published} />`]]} /><//>
      <div class="columns"><${Card} title=${t("promised")}><table><tbody>${["authenticity", "accuracy", "continuity", "completeness"].map((key) => html`<tr key=${key}><td>${t(`column.${key}`)}</td><td class="number">${percent(facts.measured[key])} / ${percent(facts.promise[key])}</td><td>${facts.met[key] === false && html`<span class="badge bad">${t("notMet")}</span>`}</td></tr>`)}</tbody></table><//>
      <${Card} title=${t("dataItems")}>${facts.columns.length ? html`<table><tbody>${facts.columns.map((column) => html`<tr key=${column.name}><td><code>${column.name}</code></td><td>${language === "en" ? column.label_en : column.label_zh}</td><td>${column.unit}</td></tr>`)}</tbody></table>` : html`<${Empty} text=${t("noSample")} />`}<//></div>
      <${Card} title=${t("sample")} actions=${facts.sampled && html`<span class="quiet"><${Time} value=${facts.sampled} /></span>`}>${facts.sample.length ? html`<${SampleTable} rows=${facts.sample} />` : html`<${Empty} text=${t("noSample")} />`}<//>`}
    <${Card} title=${t("page.subscribers")}>${(readers.data?.rows || []).length ? html`<ul class="needs">${readers.data.rows.map((row) => html`<li key=${row.subscriber + row.delivery} class=${row.lag_entries ? "" : "fine"}><div><${Who} id=${row.subscriber} /> · ${row.delivery} · ${t("lagOf", number(row.lag_entries))} · ${number(row.records)} <${Badge} value=${row.state} /></div></li>`)}</ul>` : html`<${Absent} of=${readers} text=${t("noSubscribers")} />`}<//>
    ${feed.data && html`<${Card} title=${t("selection")}><${Facts} rows=${["divisions", "domains", "properties", "departments", "kinds", "grade_max"].map((key) => [`column.${key}`, Array.isArray(feed.data[key]) ? feed.data[key].join(", ") || t("any") : feed.data[key]])} /><//>`}`;
}
const percent = (value) => (value === null || value === undefined ? "–" : `${number(value * 100, 1)} %`);
function MissingText({ text }) {
  const [field, rest] = [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 1)];
  return html`<div><strong>${t(`entry.${field}`)}</strong>${language === "en" ? rest : `：${t("toBeWritten")}`}</div>`;
}
function SampleTable({ rows }) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => rows.some((row) => row[name] !== null && row[name] !== "" && !["cursor", "id"].includes(name)));
  return html`<${Table} rows=${rows} columns=${columns.map((name) => ({ name, show: (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : sampleText(name, value)) }))} />`;
}
const sampleText = (name, value) => (value === null || value === undefined ? "–" : ["time", "received"].includes(name) && instant(value) ? localTime(value) : String(value));
function EntryForm({ facts, path, done }) {
  const [error, setError] = useState(null);
  const missing = new Set(facts.missing.map((text) => text.split(":")[0]));
  const save = async (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(event.target));
    body.grade = Number(body.grade);
    body.kind ||= null;
    body.cadence ||= null;
    body.promise = {};
    for (const key of ["authenticity", "accuracy", "continuity", "completeness"]) {
      if (body[`promise_${key}`] !== "") body.promise[key] = Number(body[`promise_${key}`]) / 100;
      delete body[`promise_${key}`];
    }
    try { await call("PATCH", path, body, facts.revision ? { "If-Match": `"${facts.revision}"` } : {}); done(); } catch (why) { setError(why); }
  };
  return html`<${Card} title=${t("editEntry")}><form class="grid" onSubmit=${save}>
    ${FIELDS.map(([name, { options, ...more }]) => html`<div key=${name} class=${missing.has(name) ? "missing" : ""}><${Field} name=${name} label=${t(`entry.${name}`)} value=${facts[name] ?? ""} options=${options && options()} ...${more} help=${missing.has(name) ? t("toBeWritten") : ""} /></div>`)}
    ${["authenticity", "accuracy", "continuity", "completeness"].map((key) => html`<div key=${key}><${Field} name=${`promise_${key}`} type="number" min=${0} label=${`${t("promise")}: ${t(`column.${key}`)} %`} value=${facts.promise[key] === null ? "" : facts.promise[key] * 100} /></div>`)}
    <div class="wide"><${Problem} error=${error} /><div class="buttons"><button type="submit" class="primary">${t("saveEntry")}</button></div></div></form><//>`;
}

// ── applications: what is asked for, and the desk ───────────────────────────────────────────────────────
function apply(show, { feeds = [], bundle = "" }) {
  show({
    title: t("applyFor"), action: t("send"), consequence: t("applyHelp", bundle || feeds.join(", ")),
    fields: [{ name: "purpose", label: t("column.purpose"), required: true }, { name: "legal_basis", label: t("entry.legal_basis"), required: true }, { name: "days", type: "number", min: 1, label: t("column.days"), value: 365 }, { name: "properties", label: t("column.properties"), help: t("allIfEmpty") }, { name: "divisions", label: t("column.divisions"), help: t("allIfEmpty") },
      { name: "deliveries", type: "checks", label: t("column.deliveries"), options: DELIVERIES.map((word) => [word, word]), value: ["http", "sse"] }, { name: "volume", type: "number", min: 0, step: 1, label: t("column.volume"), value: 0 }, { name: "rate", type: "number", min: 0, label: t("column.rate"), value: 0 }, { name: "contact", label: t("column.contact") }],
    submit: async ({ days, volume, rate, properties, divisions, ...rest }) => {
      const made = await call("POST", "/api/v1/applications", { ...rest, ...(bundle ? { bundle } : { feeds }), days: Number(days), volume: Number(volume), rate: Number(rate), properties: words(properties), divisions: words(divisions) });
      return html`<p>${t("appliedFor", made.id)} <${Badge} value=${made.state} /></p>${made.deadline && html`<p class="quiet">${t("dueAt", made.level)} <${Time} value=${made.deadline} /></p>`}`;
    },
  });
}
function Due({ row }) {
  const at = instant(row.deadline);
  if (row.state !== "pending" || !at) return row.decided ? html`${t("decidedOn")} <${Time} value=${row.decided} />` : "–";
  const days = (at - Date.now()) / 86_400_000;
  return html`<span class=${`badge ${days < 0 ? "bad" : days < 2 ? "warn" : ""}`}>${row.level}</span> <${Time} value=${row.deadline} />`;
}
// What an approval made: the page of a grant shows its terms, and whether it is used.
const GrantLinks = ({ of }) => (of.grants || []).map((id, index) => html`${index > 0 && " "}<${Link} key=${id} to=${grantPath(id)}>${t("grantOf", id)}<//>`);
export function Applications({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const done = () => setStamp((before) => before + 1);
  const decide = async (row) => {
    const entry = await call("GET", `/api/v1/catalogue/${encodeURIComponent(row.feeds[0])}`).catch(() => ({ columns: [] }));
    show({
      title: t("approve"), action: t("approve"), consequence: t("approveHelp", row.applicant, row.feeds.join(", "), row.purpose),
      fields: [{ name: "reason", label: t("column.reason") }, { name: "days", type: "number", min: 1, label: t("column.days"), value: row.days }, ...maskFields({}, entry.columns), { name: "grade_max", label: t("column.grade_max"), options: ["1", "2", "3", "4"].map((grade) => [grade, grade]), value: "3" }, { name: "volume", type: "number", min: 0, step: 1, label: t("column.volume"), value: row.volume }, { name: "rate", type: "number", min: 0, label: t("column.rate"), value: row.rate }],
      submit: async ({ reason, days, volume, rate, grade_max, ...mask }) => {
        const made = await call("POST", `/api/v1/applications/${row.id}/decision`, { approve: true, reason, days: Number(days), volume: Number(volume), rate: Number(rate), grade_max: Number(grade_max), mask: maskOf(mask) }, { "If-Match": String(row.revision) });
        done();
        return made?.grants?.length ? html`<p>${t("grantsMade")} <${GrantLinks} of=${made} /></p>` : null;
      },
    });
  };
  const refuse = (row) => show({ title: t("refuse"), action: t("refuse"), danger: true, consequence: t("refuseHelp", row.applicant), fields: [{ name: "reason", label: t("column.reason"), required: true }], submit: async ({ reason }) => { await call("POST", `/api/v1/applications/${row.id}/decision`, { approve: false, reason }, { "If-Match": String(row.revision) }); done(); } });
  const withdraw = (row) => show({ title: t("withdraw"), action: t("withdraw"), consequence: t("withdrawHelp"), submit: async () => { await call("POST", `/api/v1/applications/${row.id}/withdraw`, {}); done(); } });
  const actions = { name: "actions", sort: false, show: (_, row) => !["pending", "lapsed"].includes(row.state) ? (row.grants?.length || row.reason) && html`<${GrantLinks} of=${row} />${row.grants?.length > 0 && row.reason && ": "}${row.reason}` : html`<span class="row">
    ${mayDecide(row, me) && html`<button type="button" class="primary" onClick=${() => decide(row)}>${t("approve")}</button><button type="button" onClick=${() => refuse(row)}>${t("refuse")}</button>`}
    ${[row.by, row.subscriber].includes(me.id) && html`<button type="button" onClick=${() => withdraw(row)}>${t("withdraw")}</button>`}</span>` };
  return html`${dialog}<h1>${t("page.applications")}</h1><section class="card"><${List} stamp=${stamp} path="/api/v1/applications" defaults=${{ sort: "-created" }} empty=${t("noApplications")} filters=${[{ name: "state", options: ["pending", "approved", "refused", "withdrawn", "lapsed"] }]}
    columns=${[{ name: "feeds", show: (value) => value.map((feed) => html`<${Link} key=${feed} to=${entryPath(feed)}>${feed}<//> `) }, { name: "state", badge: true }, { name: "deadline", show: (_, row) => html`<${Due} row=${row} />` }, { name: "applicant" }, { name: "purpose" }, { name: "legal_basis" }, { name: "days", numeric: true }, { name: "escalated", numeric: true }, actions]} /></section>`;
}

// ── grants ──────────────────────────────────────────────────────────────────────────────────────────────
const grantPath = (id) => `/console/grants/${encodeURIComponent(id)}`;
const used = (row) => html`${number(row.used)}${row.volume ? ` / ${number(row.volume)}` : ""}${row.volume > 0 && html` <progress value=${row.used} max=${row.volume} aria-label=${t("column.used")}></progress>`}`;
export const Grants = () => html`<h1>${t("page.grants")}</h1><section class="card"><${List} path="/api/v1/grants" link=${(row) => grantPath(row.id)} empty=${t("noGrants")} filters=${[{ name: "state", options: ["active", "waiting", "expired", "revoked"] }, { name: "feed" }]}
  columns=${[{ name: "id" }, { name: "feed", show: (value) => html`<${Link} to=${entryPath(value)}>${value}<//>` }, { name: "state", badge: true }, { name: "applicant" }, { name: "purpose" }, { name: "mask", value: (row) => maskText(row.mask), show: (value) => value || t("unmasked") }, { name: "used", numeric: true, show: (_, row) => used(row) }, { name: "expires", time: true }]} /></section>`;
const USE_COLUMNS = [{ name: "delivery" }, ...["requests", "records", "scanned", "bytes"].map((name) => ({ name, numeric: true, show: (value) => number(value) })), { name: "last", show: (value) => html`<${Time} value=${value} />` }];
export function Grant({ id }) {
  const [dialog, show] = useDialog();
  const path = `/api/v1/grants/${encodeURIComponent(id)}`;
  const row = useLoad(path, 10), usage = useLoad(`${path}/usage`, 15), readers = useLoad(row.data && `/api/v1/subscribers${query({ feed: row.data.feed, subscriber: row.data.subscriber })}`, 5);
  const grant = row.data;
  const isLive = grant && ["active", "waiting"].includes(grant.state);
  const revoke = () => show({ title: t("revokeGrant"), danger: true, action: t("revokeGrant"), consequence: t("revokeGrantHelp", grant.applicant), fields: [{ name: "reason", label: t("column.reason"), required: true }], submit: async ({ reason }) => { await call("DELETE", `${path}${query({ reason })}`); row.reload(); } });
  const renew = () => show({ title: t("renew"), action: t("send"), consequence: t("renewHelp"), fields: [{ name: "days", type: "number", min: 1, label: t("column.days"), value: 365 }], submit: async ({ days }) => { const made = await call("POST", `${path}/renew`, { days: Number(days) }); row.reload(); return html`<p>${t("appliedFor", made.id)} <${Badge} value=${made.state} /></p>`; } });
  const change = async () => {
    const entry = await call("GET", `/api/v1/catalogue/${encodeURIComponent(grant.feed)}`).catch(() => ({ columns: [] }));
    show({ title: t("changeMask"), action: t("changeMask"), consequence: t("changeMaskHelp"), fields: maskFields(grant.mask, entry.columns), submit: async (values) => { await call("PATCH", path, { mask: maskOf(values) }, { "If-Match": `"${grant.revision}"` }); row.reload(); } });
  };
  const receipt = async () => {
    const headers = session.token ? { Authorization: `Bearer ${session.token}` } : {};
    const answer = await fetch(`${path}/statements/${usage.data.month}`, { headers, cache: "no-store" });
    const anchor = document.createElement("a");
    // Byte for byte as signed.
    anchor.href = URL.createObjectURL(await answer.blob());
    anchor.download = `statement-${id}-${usage.data.month}.json`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 1_000);
  };
  return html`${dialog}<div class="headline"><h1>${t("grantOf", id)}</h1>${grant && html`<${Badge} value=${grant.state} />`}<span class="space"></span>
      ${isLive && html`${may("decide_grants") && html`<button type="button" onClick=${change}>${t("changeMask")}</button>`}${may("apply_grants") && html`<button type="button" onClick=${renew}>${t("renew")}</button><button type="button" class="danger" onClick=${revoke}>${t("revokeGrant")}</button>`}`}</div>
    <${Problem} error=${row.error} retry=${row.reload} />
    ${grant && html`<${Card} title=${t("terms")}><${Facts} rows=${[["column.feed", html`<${Link} to=${entryPath(grant.feed)}>${grant.feed}<//>`], ["column.applicant", grant.applicant], ["column.subscriber", html`<${Who} id=${grant.subscriber} />`], ["column.purpose", grant.purpose], ["column.mask", maskText(grant.mask) || t("unmasked")], ["column.deliveries", grant.deliveries.join(", ") || t("any")], ["column.properties", grant.properties.join(", ") || t("any")], ["column.divisions", grant.divisions.join(", ") || t("any")], ["column.grade_max", grant.grade_max], ["column.rate", grant.rate || t("unlimited")], ["column.used", used(grant)], ["column.expires", html`<${Time} value=${grant.expires} />`], grant.revoked && ["column.revoked", html`<${Time} value=${grant.revoked} />`], grant.reason && ["column.reason", grant.reason], ["column.created_by", html`<${Who} id=${grant.created_by} />`]]} /><//>
      <div class="columns"><${Card} title=${t("useOf", usage.data?.month || "")} actions=${usage.data && html`<button type="button" onClick=${receipt}>${t("receipt")}</button>`}>${(usage.data?.rows || []).length ? html`<${Table} rows=${usage.data.rows} columns=${USE_COLUMNS} />` : html`<${Absent} of=${usage} text=${t("notUsed")} />`}<//>
      <${Card} title=${t("readsNow")}>${(readers.data?.rows || []).length ? html`<ul class="needs">${readers.data.rows.map((reader) => html`<li key=${reader.delivery} class=${reader.lag_entries ? "" : "fine"}><div>${reader.delivery}: ${t("lagOf", number(reader.lag_entries))} <${Badge} value=${reader.state} /></div></li>`)}</ul>` : html`<${Absent} of=${readers} text=${t("noSubscribers")} />`}<//></div>`}`;
}
// Who reads what now, how far behind; how much of each grant is used this month.
export const Subscribers = () => html`<h1>${t("page.subscribers")}</h1><section class="card"><${List} path="/api/v1/subscribers" empty=${t("noSubscribers")} interval_s=${5}
    columns=${[{ name: "subscriber", who: true }, { name: "feed", show: (value) => html`<${Link} to=${entryPath(value)}>${value}<//>` }, { name: "delivery" }, { name: "state", badge: true }, { name: "lag_entries", numeric: true }, { name: "lag_s", numeric: true }, { name: "records", numeric: true }, { name: "failures", numeric: true }, { name: "last", time: true }, { name: "reason" }]} /></section>
  <${UseOfGrants} /><${UseByToken} />`;
function UseOfGrants() {
  const answer = useLoad("/api/v1/grants?state=active&limit=200", 15), { data } = answer;
  return html`<${Card} title=${t("useThisMonth")}>${(data?.rows || []).length ? html`<${Table} rows=${data.rows} columns=${[{ name: "subscriber", show: (_, row) => html`<${Link} to=${grantPath(row.id)}>${row.applicant} (<${Who} id=${row.subscriber} />)<//>` }, { name: "feed" }, { name: "used", numeric: true, show: (_, row) => used(row) }, { name: "expires", show: (value) => html`<${Time} value=${value} />` }]} />` : html`<${Absent} of=${answer} text=${t("noGrants")} />`}<//>`;
}

// All that was delivered since the first start, with and without a grant, also to who reads page by page and keeps the position itself.
function UseByToken() {
  const answer = useLoad("/api/v1/usage?limit=200&sort=-records", 15), { data } = answer;
  return html`<${Card} title=${t("useByToken")}>${(data?.rows || []).length ? html`<${Table} rows=${data.rows} columns=${[{ name: "token", show: (value) => html`<${Who} id=${value} />` }, { name: "feed" }, { name: "delivery" }, ...["requests", "records", "bytes"].map((name) => ({ name, numeric: true, show: (value) => number(value) })), { name: "last", show: (value) => html`<${Time} value=${value} />` }]} />` : html`<${Absent} of=${answer} text=${t("noUse")} />`}
    ${session.me.gateway_role !== "centre" && html`<p class="quiet">${t("useAtCentre")}</p>`}
    <p class="quiet">${t("useByHour")} ${may("read_audit") && html`<${Link} to="/console/audit?action=delivery.counts">${t("page.audit")}<//>`}</p><//>`;
}

// ── bundles ─────────────────────────────────────────────────────────────────────────────────────────────
export function Bundles() {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const done = () => setStamp((before) => before + 1);
  const add = () => show({
    title: t("addBundle"), action: t("add"), consequence: t("addBundleHelp"),
    fields: [{ name: "name", label: t("column.name"), required: true }, { name: "feeds", label: t("column.feeds"), required: true, hint: "air-guangzhou, water-guangzhou" }, { name: "title", label: t("entry.title") }, { name: "title_en", label: t("entry.title_en") }, { name: "applicants", label: t("preApproved"), hint: "440106, 4401/水务局", help: t("preApprovedHelp") }, { name: "until", type: "date", label: t("preApprovedUntil") }, { name: "days", type: "number", min: 1, label: t("column.days"), value: 365 }, ...maskFields({})],
    submit: async ({ name, feeds, title, title_en, applicants, until, days, ...mask }) => {
      const pre_approvals = applicants ? [{ applicants: words(applicants), until: Date.parse(until || "2100-01-01") * 1000, terms: { approve: true, days: Number(days), mask: maskOf(mask) } }] : [];
      await call("POST", "/api/v1/bundles", { name, feeds: words(feeds), title, title_en, pre_approvals });
      done();
    },
  });
  const remove = (row) => show({ title: t("deleteBundle"), danger: true, action: t("deleteBundle"), consequence: t("deleteBundleHelp", row.name), submit: async () => { await call("DELETE", `/api/v1/bundles/${encodeURIComponent(row.name)}`); done(); } });
  return html`${dialog}<h1>${t("page.bundles")}</h1><p class="quiet">${t("bundlesHelp")} <${Link} to="/console/catalogue">${t("page.catalogue")}<//></p><section class="card"><${List} stamp=${stamp} path="/api/v1/bundles" empty=${t("noBundles")} actions=${may("decide_grants") && html`<button type="button" class="primary" onClick=${add}>${t("addBundle")}</button>`}
    columns=${[{ name: "name" }, { name: "title", value: (row) => (language === "en" ? row.title_en || row.title : row.title || row.title_en) }, { name: "feeds" }, { name: "pre_approvals", value: (row) => row.pre_approvals.flatMap((approval) => approval.applicants).join(", ") }, { name: "by" }, { name: "actions", sort: false, show: (_, row) => html`<span class="row">${may("apply_grants") && html`<button type="button" onClick=${() => apply(show, { bundle: row.name })}>${t("applyFor")}</button>`}${may("decide_grants") && html`<button type="button" onClick=${() => remove(row)}>${t("deleteBundle")}</button>`}</span>` }]} /></section>`;
}
