// What all pages share: calls of the public API, texts, time, lists, dialogs. Texts of the gateway are never interpreted as HTML.
import { html, useCallback, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";
import { TEXTS } from "./texts.js";

// ── language ────────────────────────────────────────────────────────────────────────────────────────────
export const language = localStorage.getItem("language") || (navigator.language.toLowerCase().startsWith("zh") ? "zh-CN" : "en");
export function t(key, ...values) {
  const text = known(key) || fallback(key);
  return values.reduce((result, value, index) => result.replace(`{${index}}`, value), text);
}
// Adds texts that some pages need: `NAME.texts.js` calls it with a table as that of `texts.js`.
export const addTexts = (table) => Object.assign(TEXTS, table);
export const known = (key) => TEXTS[key]?.[language === "en" ? 0 : 1] || TEXTS[key]?.[0] || "";
// A word of the gateway without a text of its own: each part of `duplicate.repeat` that is known is translated.
function fallback(key) {
  const [head, ...parts] = key.split(".");
  const word = (part) => known(`${head}.${part}`) || known(`reason.${part}`) || part.replaceAll("_", " ");
  return parts.length ? parts.map(word).join(": ") : key.replaceAll("_", " ");
}
export const number = (value, digits = 2) =>
  value === null || value === undefined ? "–" : new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

// ── calls ───────────────────────────────────────────────────────────────────────────────────────────────
export const session = { token: sessionStorage.getItem("token") || "", csrf: "", me: null };
// Whether the caller has a right somewhere in its scope; what it may never do is not offered.
export const may = (right) => Boolean(session.me?.rights.includes(right));

// Whether the last call reached the gateway; the frame shows it over every page.
function setAway(isAway) {
  if (session.isAway === isAway) return;
  session.isAway = isAway;
  dispatchEvent(new Event("moved"));
}

export class CallError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || String(status));
    this.status = status;
    this.problem = problem;
  }
}
// A body is sent as JSON, a text as CSV.
export async function call(method, path, body, headers = {}) {
  const sent = { ...headers }, isText = typeof body === "string";
  if (session.token) sent.Authorization = `Bearer ${session.token}`;
  else if (method === "GET") sent["X-Background"] = "1";
  else sent["X-CSRF-Token"] = session.csrf;
  if (body !== undefined) sent["Content-Type"] = isText ? "text/csv" : "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body: body === undefined || isText ? body : JSON.stringify(body), cache: "no-store" });
  } catch (why) {
    setAway(true);
    throw why;
  }
  setAway(false);
  const text = response.status === 204 ? "" : await response.text();
  let answer = {};
  try { answer = text ? JSON.parse(text) : {}; } catch { answer = { detail: text.slice(0, 300) }; }
  if (!response.ok && path !== "/readyz") throw new CallError(response.status, answer);
  return answer;
}
export function query(values) {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    for (const item of Array.isArray(value) ? value : [value]) if (item !== "" && item !== undefined && item !== null) search.append(key, item);
  }
  const text = search.toString();
  return text ? `?${text}` : "";
}

// Reads a path now and every `interval_s` seconds while the tab is seen; the last answer stays while the gateway is away.
// An answer is that of its path: of another path there is none yet, unless `keep` says that both answers have one form.
// Without a path nothing is read, and the last answer stays.
export function useLoad(path, interval_s = 0, keep = false) {
  const [state, set] = useState({ path, data: null, error: null, loading: Boolean(path) });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return undefined;
    let ended = false, timer = 0;
    const read = async () => {
      try {
        const data = await call("GET", path);
        if (!ended) set({ path, data, error: null, loading: false });
      } catch (error) {
        if (!ended) set((before) => ({ path, data: error.status === undefined && (keep || before.path === path) ? before.data : null, error, loading: false }));
      }
      if (!ended && interval_s) timer = setTimeout(read, interval_s * (document.hidden ? 10_000 : 1_000));
    };
    set((before) => ({ ...before, loading: true }));
    read();
    return () => { ended = true; clearTimeout(timer); };
  }, [path, turn]);
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  const shown = keep || !path || state.path === path ? state : { data: null, error: null, loading: Boolean(path) };
  return { ...shown, reload };
}

// ── address: the URL is the state ───────────────────────────────────────────────────────────────────────
// The scope that is looked at: a division below that of the caller; it stands in the address and goes along with links.
export const scopeNow = () => new URLSearchParams(location.search).get("scope") || "";
function withScope(path) {
  const scope = scopeNow();
  return !scope || /[?&]scope=/.test(path) || !path.startsWith("/console") ? path : `${path}${path.includes("?") ? "&" : "?"}scope=${scope}`;
}
export function go(path) {
  history.pushState({}, "", withScope(path));
  dispatchEvent(new Event("moved"));
  scrollTo(0, 0);
}
export function replaceSearch(values) {
  history.replaceState(history.state, "", `${location.pathname}${query({ ...values, scope: values.scope ?? scopeNow() })}`);
  dispatchEvent(new Event("moved"));
}
export const searchValues = () => Object.fromEntries(new URLSearchParams(location.search));
export function Link({ to, children, ...others }) {
  const follow = (event) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(to);
  };
  return html`<a href=${withScope(to)} onClick=${follow} ...${others}>${children}</a>`;
}

export const device = (id) => `/console/devices/${encodeURIComponent(id)}`;
export const profile = (name) => `/console/profiles/${name.split("@")[0]}`;
// The editor of a profile; a text handed over is kept in this tab until a version is made of it.
export const editorOf = (name, values = {}) => `/console/editor${query({ profile: name, ...values })}`;
export const draftKey = (name) => `draft:${name}`;
export const revisionHeader = (row) => ({ "If-Match": `"${row.revision}"` });

// ── small parts ─────────────────────────────────────────────────────────────────────────────────────────
const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];
export function instant(value) {
  if (value === "" || value === null || value === undefined || value === 0) return null;
  const at = typeof value === "number" ? new Date(value > 1e14 ? value / 1e3 : value) : new Date(value);
  return Number.isNaN(at.getTime()) ? null : at;
}
// A moment in the reader's own time, with its zone.
const DAY_AND_CLOCK = new Intl.DateTimeFormat(language, { dateStyle: "short", timeStyle: "medium", hourCycle: "h23" });
const ZONE = new Intl.DateTimeFormat(language, { timeZoneName: "short" });
export function localTime(value) {
  const at = instant(value);
  return at ? `${DAY_AND_CLOCK.format(at)} ${ZONE.formatToParts(at).find((part) => part.type === "timeZoneName").value}` : "–";
}
export function Time({ value }) {
  const at = instant(value);
  if (!at) return html`<span class="quiet">–</span>`;
  const seconds = (at - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, least]) => Math.abs(seconds) >= least) || UNITS[3];
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(Math.round(seconds / size), unit);
  return html`<time datetime=${at.toISOString()} title=${localTime(value)}>${relative}</time>`;
}
// ── names for people: of properties, units and models, in the language of the page ──────────────────────
const inLanguage = (zh, en) => (language === "en" ? en || zh : zh || en);
export const titleOf = (row) => inLanguage(row.title_zh, row.title);
let propertyNames = new Map(), namesRead = null;
// The table of properties is read once. A property without a name there (or before it is read) stands as it is.
function readNames() {
  namesRead ??= everyRow("/api/v1/properties").then((rows) => { propertyNames = new Map(rows.map((row) => [row.name, inLanguage(row.label_zh, row.label_en)])); }, () => { namesRead = null; });
  return namesRead;
}
export function usePropertyNames() {
  const [names, set] = useState(propertyNames);
  useEffect(() => {
    let ended = false;
    readNames().then(() => !ended && set(propertyNames));
    return () => { ended = true; };
  }, []);
  return names;
}
// Its standard name, by which it is asked for, is the tip.
export function Property({ name }) {
  const names = usePropertyNames();
  return html`<span title=${name}>${names.get(name) || name}</span>`;
}
// Tokens are named by their id everywhere; whoever may list them reads the name, with the id as the tip. People are named by themselves.
let tokenNames = new Map(), tokensRead = null;
function readTokens() {
  if (!may("change_tokens") && !may("change_auditors")) return Promise.resolve();
  tokensRead ??= everyRow("/api/v1/tokens").then((rows) => { tokenNames = new Map(rows.filter((row) => row.name).map((row) => [row.id, row.name])); }, () => { tokensRead = null; });
  return tokensRead;
}
const TOKEN_ID = /^[0-9a-f]{16}$/;
export function Who({ id }) {
  const [names, set] = useState(tokenNames), isToken = TOKEN_ID.test(id || "");
  useEffect(() => {
    let ended = false;
    // A token that was created since the table was read is not in it.
    if (isToken && tokensRead && !tokenNames.has(id) && !unknownTokens.has(id)) tokensRead = null;
    if (isToken) readTokens().then(() => { if (!tokenNames.has(id)) unknownTokens.add(id); if (!ended) set(tokenNames); });
    return () => { ended = true; };
  }, [id]);
  return names.has(id) ? html`<span title=${id}>${names.get(id)}</span>` : id || "–";
}
const unknownTokens = new Set();
// A unit of UCUM as people write it: `ug/m3` is µg/m³.
const SIGNS = { 1: "", Cel: "°C", deg: "°", By: "B", unit: "unit" };
export const unitText = (unit) => SIGNS[unit] ?? (unit || "").replace(/[[\]{}]/g, "").replace("Ohm", "Ω").replace(/\bu(?=[A-Za-z])/g, "µ").replace(/(?<=[a-z])[23]\b/gi, (power) => (power === "2" ? "²" : "³")).replaceAll(".", "·");
const GOOD = new Set(["active", "up", "released", "joined", "configured", "closed", "done", "good"]);
const BAD = new Set(["silent", "disabled", "expelled", "open", "failed", "critical"]);
// Quality of a value in the language of the page: `uncertain_step`.
export function Quality({ value }) {
  const [grade, ...rest] = String(value || "").split("_"), reason = rest.join("_");
  return value ? html`<span class=${`badge ${grade === "good" ? "good" : grade === "bad" ? "bad" : "warn"}`}>${t(`quality.${grade}`)}${reason && ` · ${t(`quality.${reason}`)}`}</span>` : html`<span class="quiet">–</span>`;
}
export const flagWords = (flags) => (flags || []).map((flag) => t(`flag.${flag}`)).join(", ");
export function Badge({ value }) {
  const kind = GOOD.has(String(value)) ? "good" : value === "warning" || value === "major" ? value : BAD.has(String(value)) ? "bad" : "";
  return value === "" || value === undefined ? html`<span class="quiet">–</span>` : html`<span class=${`badge ${kind}`}>${t(`state.${value}`)}</span>`;
}
// What the gateway says to a caller, in the language of the page; its Chinese is fetched with the first such text.
let inChinese = null;
export function useProblemText() {
  const [, setRead] = useState(Boolean(inChinese));
  useEffect(() => {
    if (language !== "en" && !inChinese) import("./problems.js").then((file) => { ({ inChinese } = file); setRead(true); }, () => null);
  }, []);
  return (text) => (language === "en" || !inChinese || !text ? text : inChinese(text));
}
// A text of the gateway about what somebody asked for.
export function ProblemText({ text }) {
  return useProblemText()(text);
}
export function Problem({ error, retry }) {
  if (!error) return null;
  const away = error.status === undefined;
  return html`<div class="problem" role="alert"><strong>${away ? t("away") : t(`http.${error.status}`)}</strong>
    <span>${away ? t("awayHelp") : html`<${ProblemText} text=${error.message} />`}</span>${retry && html`<button type="button" onClick=${retry}>${t("retry")}</button>`}</div>`;
}
export const Loading = () => html`<p class="quiet loading" role="status">${t("loading")}</p>`;
// A centre has devices of its own only where some are registered there: what lies at the nodes is said instead of "none".
export const isCentre = () => session.me?.gateway_role === "centre";
// Whether the caller's level decides an application, or decides first; the same is offered on the overview and in the list.
export const mayDecide = (row, me) => may("decide_grants") && [row.level, row.owner].some((level) => (level || "").startsWith(me.scope));
export const emptyHere = (text, figure) => html`<${EmptyHere} text=${text} figure=${figure} />`;
const EmptyHere = ({ text, figure }) => (isCentre() ? html`${t("noneAtCentre")} <${AtNodes} figure=${figure} />` : text);
// Links to the nodes in scope, each with a number: of its devices, or that which `figure` makes of its row.
export function AtNodes({ figure = (node) => t("devicesOf", number(node.devices)) }) {
  const scope = scopeNow(), { data } = useLoad("/api/v1/nodes", 30);
  const nodes = (data?.rows || []).filter((node) => node.role !== "centre" && (node.division.startsWith(scope) || scope.startsWith(node.division)));
  return data && html`${t("atNodes")} ${nodes.length ? nodes.map((node, index) => html`${index > 0 && " · "}<${Link} key=${node.member} to=${`/console/nodes/${node.member}`}>${node.member}<//> (${figure(node)})`) : t("noNodes")}`;
}
// What stands in the place of rows: that they are read, why they cannot be, or that there are none.
export const Absent = ({ of, text }) => (of.error ? html`<${Problem} error=${of.error} retry=${of.reload} />` : of.loading && !of.data ? html`<${Loading} />` : html`<${Empty} text=${text} />`);
export const Empty = ({ text }) => html`<p class="quiet empty">${text || t("nothing")}</p>`;
export function Facts({ rows }) {
  return html`<dl class="facts">${rows.filter(Boolean).map(([name, value]) => html`<div key=${name}><dt>${t(name)}</dt><dd>${value === "" || value === undefined || value === null ? "–" : value}</dd></div>`)}</dl>`;
}
export const Card = ({ title, actions, children }) => html`<section class="card"><div class="head"><h2>${title}</h2><span class="space"></span>${actions}</div>${children}</section>`;

// A field of a form: a text, a number, a choice, or (`checks`) several of some words.
export function Field({ name, label, help, type = "text", value = "", options, rows, required, hint, min, max, step }) {
  if (type === "checks") return html`<fieldset><legend>${label}</legend>${options.map(([word, text]) => html`<label class="check" key=${word}><input type="checkbox" name=${name} value=${word} defaultChecked=${value.includes(word)} /> ${text}</label>`)}${help && html`<small>${help}</small>`}</fieldset>`;
  if (type === "checkbox") return html`<label class="check"><input type="checkbox" name=${name} defaultChecked=${Boolean(value)} /> ${label}</label>`;
  return html`<label>${label}
    ${options ? html`<select name=${name} required=${required}>${options.map((option) => html`<option value=${option[0]} selected=${option[0] === value}>${option[1]}</option>`)}</select>`
      : rows ? html`<textarea name=${name} rows=${rows} required=${required} spellcheck="false">${value}</textarea>`
      : html`<input name=${name} type=${type} defaultValue=${value} required=${required} placeholder=${hint || ""} min=${min} max=${max} step=${type === "number" ? step || "any" : undefined} autocomplete="off" spellcheck="false" />`}${help && html`<small>${help}</small>`}</label>`;
}

// A password, token or code that is shown only now; a dialog with one is closed by its button alone.
export function Secret({ value }) {
  const place = useRef(null);
  const [copied, setCopied] = useState(false);
  const copy = () => {
    getSelection().selectAllChildren(place.current);
    // Over HTTP there is no navigator.clipboard; what cannot be copied stays selected.
    setCopied(document.execCommand("copy"));
  };
  return html`<span class="once"><span class="secret" ref=${place}>${value}</span> <button type="button" onClick=${copy}>${t("copy")}</button> <span class="quiet" role="status">${copied && t("copied")}</span></span>`;
}

// ── dialogs: a form, or a confirmation that names the consequence ───────────────────────────────────────
export function Dialog({ title, consequence, fields = [], action, danger, submit, close }) {
  const dialog = useRef(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [outcome, setOutcome] = useState(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  // On a phone a long form hides what stands below it.
  useEffect(() => { if (error) dialog.current.querySelector(".problem")?.scrollIntoView({ block: "nearest" }); }, [error]);
  const ended = () => { if (dialog.current.returnValue !== "kept" && dialog.current.querySelector(".secret")) dialog.current.showModal(); else close(); };
  const send = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target), values = Object.fromEntries(form);
    for (const field of fields) {
      if (field.type === "checks") values[field.name] = form.getAll(field.name);
      if (field.type === "checkbox") values[field.name] = form.has(field.name);
    }
    setBusy(true);
    setError(null);
    try {
      const shown = await submit(values);
      if (shown) setOutcome(shown); else dialog.current.close();
    } catch (why) { setError(why); } finally { setBusy(false); }
  };
  return html`<dialog ref=${dialog} onClose=${ended} aria-labelledby="dialogTitle"><h2 id="dialogTitle">${title}</h2>
    ${outcome ? html`<div class="outcome">${outcome}</div><div class="buttons"><button type="button" class="primary" onClick=${() => dialog.current.close("kept")}>${t("close")}</button></div>`
      : html`<form onSubmit=${send} class=${fields.length > FIELDS_OF_A_COLUMN ? "many" : ""}>
        ${consequence && html`<p>${consequence}</p>`}
        ${fields.map((field) => html`<${Field} key=${field.name} ...${field} />`)}
        <${Problem} error=${error} />
        <div class="buttons"><button type="button" onClick=${() => dialog.current.close()}>${t("cancel")}</button>
          <button type="submit" class=${danger ? "danger" : "primary"} disabled=${busy}>${action}</button></div></form>`}
  </dialog>`;
}
// More fields than these stand in two columns where there is room.
const FIELDS_OF_A_COLUMN = 8;
export function useDialog() {
  const [shown, show] = useState(null);
  const close = () => show(null);
  return [shown ? html`<${Dialog} key=${shown.title} ...${shown} close=${close} />` : null, show];
}

// ── lists: search, filters, order, pages by key; all of it in the URL ──────────────────────────────────
// A page that has changed something passes another `stamp`: the list is read anew, and is not built anew, which would lose the focus.
export function List({ path, columns, stamp = 0, filters = [], link, actions, empty, defaults = {}, interval_s = 10, search = true, sortable = true, scoped = "", hide = [] }) {
  const values = { ...defaults, ...searchValues() };
  const [hidden, setHidden] = useState(() => new Set(JSON.parse(localStorage.getItem(`columns:${path}`) || "[]")));
  const separator = path.includes("?") ? "&" : "?";
  const scope = scopeNow(), byScope = scoped && scope ? { [scoped]: values[scoped] || scope } : {};
  const wanted = query({ limit: 50, ...values, ...byScope, trail: "", scope: "", ...Object.fromEntries(hide.map((name) => [name, ""])) });
  const { data, error, loading, reload } = useLoad(path + (wanted ? separator + wanted.slice(1) : ""), interval_s, true);
  const place = useRef(null), first = useRef(stamp);
  useEffect(() => { if (stamp !== first.current) { first.current = stamp; reload(); } }, [stamp]);
  useFocusKept(place);
  const set = (changes) => replaceSearch({ ...values, after: "", trail: "", ...changes });
  const trail = values.trail ? values.trail.split("|") : [];
  // What the address filters by without a field of its own; it can be seen, and removed.
  const others = Object.keys(searchValues()).filter((name) => values[name] && !filters.some((filter) => filter.name === name) && !NO_FILTERS.has(name) && !(name in defaults) && !hide.includes(name));
  const shownColumns = columns.filter((column) => !hidden.has(column.name));
  const toggle = (name) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    setHidden(next);
    localStorage.setItem(`columns:${path}`, JSON.stringify([...next]));
  };
  const order = (name) => set({ sort: values.sort === name ? `-${name}` : values.sort === `-${name}` ? "" : name });
  const rows = data?.rows || [];
  return html`
    <div class="tools">
      ${search && html`<input id="find" type="search" placeholder=${t("find")} aria-label=${t("find")} title="/" value=${values.q || ""} onInput=${debounced((event) => set({ q: event.target.value }))} />`}
      ${filters.map((filter) => html`<${filter.options ? "span" : "label"} class="filter" key=${filter.name}>${t(filter.label || `column.${filter.name}`)}
        ${filter.options ? html`<${Choice} filter=${filter} value=${values[filter.name] || ""} set=${set} />`
          : html`<input value=${values[filter.name] || ""} title=${filter.help || t("filterHelp")} onChange=${(event) => set({ [filter.name]: event.target.value.trim() })} />`}<//>`)}
      ${others.map((name) => html`<button type="button" key=${name} class="chip" title=${t("removeFilter")} onClick=${() => set({ [name]: "" })}>${t(`column.${name}`)}: ${values[name]} ✕</button>`)}
      <span class="space"></span>
      <details class="menu"><summary>${t("columns")}</summary><div>${columns.map((column) => html`<label key=${column.name}><input type="checkbox" checked=${!hidden.has(column.name)} onChange=${() => toggle(column.name)} /> ${heading(column)}</label>`)}</div></details>
      <button type="button" onClick=${async () => saveCsv(await everyRow(path + separator + wanted.slice(1)), shownColumns)} disabled=${!rows.length}>CSV</button>
      ${actions}
    </div>
    <${Problem} error=${error} retry=${reload} />
    ${!data && loading ? html`<${Loading} />` : rows.length === 0 ? !error && html`<${Empty} text=${empty} />` : html`
    <div class="scroll" tabindex="0" ref=${place}><table class="list"><thead><tr>${shownColumns.map((column) => html`<th key=${column.name} class=${column.name === "actions" ? "actions" : column.numeric ? "number" : ""}
        aria-sort=${values.sort === column.name ? "ascending" : values.sort === `-${column.name}` ? "descending" : "none"}>
        ${sortable && column.sort !== false ? html`<button type="button" class="plain" onClick=${() => order(column.name)}>${heading(column)}${values.sort === column.name ? " ▲" : values.sort === `-${column.name}` ? " ▼" : ""}</button>` : heading(column)}</th>`)}</tr></thead>
      <tbody>${rows.map((row, index) => html`<tr key=${row.id || row.name || index}>${shownColumns.map((column, place) => html`<td key=${column.name} class=${column.name === "actions" ? "actions" : `${column.numeric ? "number" : ""} ${isNone(column, row) ? "none" : ""}`} data-label=${heading(column)}>
        ${place === 0 && link ? html`<${Link} to=${link(row)}>${cell(column, row)}<//>` : cell(column, row)}</td>`)}</tr>`)}</tbody></table></div>`}
    <div class="pager">
      ${trail.length > 0 && html`<button type="button" onClick=${() => set({ after: trail.at(-1) === "^" ? "" : trail.at(-1), trail: trail.slice(0, -1).join("|") })}>← ${t("previous")}</button>`}
      <span class="quiet">${data?.total !== undefined ? t("total", number(data.total)) : rows.length ? t("rowsShown", number(rows.length)) : ""}</span>
      ${data?.next && html`<button type="button" onClick=${() => set({ after: data.next, trail: [...trail, values.after || "^"].join("|") })}>${t("next")} →</button>`}
    </div>`;
}
// Where the button that had the focus is gone with what it did, the table around it has the focus: who uses the keyboard goes on from there.
function useFocusKept(place) {
  const held = useRef(false);
  held.current = Boolean(place.current?.contains(document.activeElement));
  useLayoutEffect(() => { if (held.current && document.activeElement === document.body) place.current?.focus({ preventScroll: true }); });
}
const NO_FILTERS = new Set(["q", "sort", "order", "after", "trail", "limit", "scope"]);
// Returns a page that is one list.
export const listPage = (title, path, columns, more = {}) => function ListPage() { return html`<h1>${t(title)}</h1><section class="card"><${List} path=${path} columns=${columns} ...${more} /></section>`; };
const heading = (column) => t(column.label || `column.${column.name}`);
// A phone leaves out what is empty.
const NONE = [undefined, null, "", false, "–"];
const isNone = (column, row) => NONE.includes(column.show && !column.who ? cell(column, row) : column.value ? column.value(row) : row[column.name]?.length === 0 ? "" : row[column.name]);
function cell(column, row) {
  const value = column.value ? column.value(row) : row[column.name];
  if (column.show) return column.show(value, row);
  if (column.who) return html`<${Who} id=${value} />`;
  if (column.time) return html`<${Time} value=${value} />`;
  if (column.badge) return html`<${Badge} value=${value} />`;
  if (typeof value === "number") return number(value, column.digits ?? 3);
  if (typeof value === "boolean") return value ? t("yes") : "";
  return Array.isArray(value) ? value.join(", ") || "–" : value || (value === 0 ? 0 : "–");
}
// Several words of one filter: any of those chosen, or with "not" none of them.
function Choice({ filter, value, set }) {
  const chosen = new Set(value.split(",").filter(Boolean));
  const change = (next) => set({ [filter.name]: next.size && next.size < filter.options.length ? filter.options.filter((option) => next.has(option)).join(",") : "" });
  const toggle = (option) => { const next = new Set(chosen); if (!next.delete(option)) next.add(option); change(next); };
  const word = (option) => t(`${filter.word || "state"}.${option}`);
  return html`<details class="menu choice"><summary>${chosen.size ? [...chosen].map(word).join(` ${t("or")} `) : t("any")}</summary><div>
    ${filter.options.map((option) => html`<label key=${option}><input type="checkbox" name=${filter.name} value=${option} checked=${chosen.has(option)} onChange=${() => toggle(option)} /> ${word(option)}</label>`)}
    ${chosen.size > 0 && html`<button type="button" onClick=${() => change(new Set(filter.options.filter((option) => !chosen.has(option))))}>${t("notThese")}</button>`}</div></details>`;
}
const CSV_ROWS_MAX = 100_000;
async function everyRow(path) {
  const rows = [];
  const base = path.replace(/([?&])(limit|after)=[^&]*&?/g, "$1").replace(/[?&]$/, "");
  let after = "";
  do {
    const page = await call("GET", `${base}${base.includes("?") ? "&" : "?"}limit=1000${after ? `&after=${encodeURIComponent(after)}` : ""}`);
    rows.push(...page.rows);
    after = page.next;
  } while (after && rows.length < CSV_ROWS_MAX);
  return rows;
}
let debounceTimer = 0;
function debounced(action) {
  return (event) => {
    clearTimeout(debounceTimer);
    debounceTimer = setTimeout(() => action(event), 250);
  };
}
export function saveCsv(rows, columns) {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    // A spreadsheet would take such a cell for a formula.
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = [columns.map((column) => column.name), ...rows.map((row) => columns.map((column) => (column.value ? column.value(row) : row[column.name])))];
  const blob = new Blob(["\ufeff", lines.map((line) => line.map(quoted).join(",")).join("\r\n"), "\r\n"], { type: "text/csv" });
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = `${location.pathname.split("/").filter(Boolean).join("-")}.csv`;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 1_000);
}

// ── series ──────────────────────────────────────────────────────────────────────────────────────────────
let uplot = null;
function loadUplot() {
  uplot ??= new Promise((resolve, reject) => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = "/static/console/uplot.css";
    const script = document.createElement("script");
    script.src = "/static/console/uplot.js";
    script.onload = () => resolve(globalThis.uPlot);
    script.onerror = reject;
    document.head.append(sheet, script);
  });
  return uplot;
}
// Times of an axis by the 24 hours of a day; the date where a day begins.
function axisTimes(times, step_s) {
  const two = (count) => String(count).padStart(2, "0");
  let day = "";
  return times.map((at) => {
    const time = new Date(at * 1000), date = `${two(time.getMonth() + 1)}-${two(time.getDate())}`;
    const clock = `${two(time.getHours())}:${two(time.getMinutes())}${step_s < 60 ? `:${two(time.getSeconds())}` : ""}`;
    const shown = step_s >= 86_400 ? date : date === day ? clock : `${clock}\n${date}`;
    day = date;
    return shown;
  });
}
// Draws one series: times in s, values (null: a gap), and the colour of each point by its quality.
// Fetches what a chart is drawn with, so that it is there when the values come.
export const prepareChart = () => { loadUplot().catch(() => null); };
export function Chart({ times, values, unit, flagged }) {
  const place = useRef(null);
  useEffect(() => {
    let chart = null, ended = false;
    const draw = async () => {
      const Plot = await loadUplot();
      if (ended || !place.current) return;
      const style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
      chart = new Plot({
        width: place.current.clientWidth, height: 240, legend: { show: true }, cursor: { drag: { x: true, y: false } },
        axes: [{ ...axis, values: (_, at, axisIndex, space, step) => axisTimes(at, step) }, { ...axis, size: 60, label: unit, labelSize: 18 }],
        series: [{ label: t("column.time"), value: (_, at) => localTime(at && new Date(at * 1000)) }, { label: unit || t("column.value"), stroke: colour("--brand"), width: 1.5, spanGaps: false, points: { size: 4 } },
          { label: t("flagged"), stroke: colour("--bad"), width: 0, points: { show: true, size: 7, fill: colour("--bad") } }],
      }, [times, values, flagged], place.current);
    };
    draw();
    const observer = new ResizeObserver(() => chart && chart.setSize({ width: place.current.clientWidth, height: 240 }));
    observer.observe(place.current);
    return () => { ended = true; observer.disconnect(); chart?.destroy(); };
  }, [times, values, flagged, unit]);
  return html`<div class="chart" ref=${place} role="img" aria-label=${t("chartOf", unit || "", times.length)}></div>`;
}
