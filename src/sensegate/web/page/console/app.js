// The frame: sign-in, navigation, scope, language, theme, keyboard; the page that the address names.
import { html, render, useEffect, useErrorBoundary, useState } from "./preact.js";
import { Link, Loading, Problem, call, go, language, may, query, replaceSearch, scopeNow, searchValues, session, t, useLoad } from "./lib.js";
import { PAGES, pageOf } from "./pages.js";

function applyTheme(theme) {
  const dark = theme === "dark" || (theme === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}
const THEMES = ["system", "light", "dark"];
const themeNow = () => localStorage.getItem("theme") || "system";
applyTheme(themeNow());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => applyTheme(themeNow()));
const narrow = matchMedia("(max-width: 800px)");
document.documentElement.lang = language;

function Entry({ methods, entered }) {
  const [error, setError] = useState(null);
  const withToken = async (event) => {
    event.preventDefault();
    session.token = new FormData(event.target).get("token").trim();
    try {
      session.me = await call("GET", "/api/v1/me");
      sessionStorage.setItem("token", session.token);
      entered();
    } catch (why) {
      session.token = "";
      setError(why);
    }
  };
  const asPerson = async (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(event.target));
    if (!body.new_password) delete body.new_password;
    try {
      const opened = await call("POST", "/api/v1/session", body);
      session.csrf = opened.csrf;
      session.me = await call("GET", "/api/v1/me");
      entered();
    } catch (why) { setError(why); }
  };
  return html`<div class="entry"><h1>${t("welcome")}</h1>
    ${methods?.password && html`<section class="card"><h2>${t("signIn")}</h2><form onSubmit=${asPerson}>
      <label>${t("name")}<input name="name" autocomplete="username" autocapitalize="none" spellcheck="false" required /></label>
      <label>${t("password")}<input name="password" type="password" autocomplete="current-password" required /></label>
      <label>${t("newPassword")}<input name="new_password" type="password" autocomplete="new-password" /></label>
      <button type="submit" class="primary">${t("signIn")}</button>
      ${methods.provider && html`<a href="/api/v1/session/oidc">${t("provider")}</a>`}</form></section>`}
    <section class="card"><h2>${t("token")}</h2><form id="tokenForm" onSubmit=${withToken}>
      <p class="quiet">${t("tokenHelp")}</p>
      <label>${t("token")}<input id="token" name="token" type="password" autocomplete="off" spellcheck="false" placeholder="sg_…" required /></label>
      <button type="submit" class="primary">${t("enter")}</button></form></section>
    <${Problem} error=${error} />
    <button type="button" onClick=${switchLanguage}>${language === "en" ? "中文" : "English"}</button></div>`;
}
function switchLanguage() {
  localStorage.setItem("language", language === "en" ? "zh-CN" : "en");
  location.reload();
}

// "You see: 44 › 4401 › 440106": each part leads up, the choice at the end leads down.
function ScopeSwitch({ me }) {
  const home = me.scope.length > me.gateway_division.length ? me.scope : me.gateway_division;
  const scope = scopeNow().startsWith(home) ? scopeNow() : home;
  const below = useLoad(`/api/v1/divisions${query({ parent: scope, limit: 200, sort: "code" })}`);
  const name = (row) => `${row.code} ${language === "en" ? row.name_en : row.name_zh}`;
  const parts = [2, 4, 6, 9, 12].filter((length) => length <= scope.length).map((length) => scope.slice(0, length));
  const choose = (code) => { const { after, trail, ...values } = searchValues(); replaceSearch({ ...values, scope: code === home ? "" : code }); };
  return html`<span class="scope">${t("youSee", "")}${parts.map((code, index) => html`${index > 0 && " › "}${code.length < home.length || code === scope ? html`<strong key=${code}>${code}</strong>` : html`<button type="button" class="plain" key=${code} onClick=${() => choose(code)}><u>${code}</u></button>`}`)}${me.department && ` › ${me.department}`}
    ${(below.data?.rows || []).length > 0 && html` › <select aria-label=${t("scopeBelow")} value="" onChange=${(event) => choose(event.target.value)}><option value="">${t("wholeScope")}</option>${below.data.rows.map((row) => html`<option key=${row.code} value=${row.code}>${name(row)}</option>`)}</select>`}</span>`;
}

// The page of an address; its file is loaded the first time that it is opened. A page that fails leaves the frame as it is.
const components = new Map();
function Shown({ page, parameters, me }) {
  const [, loaded] = useState(0);
  const [error, setError] = useState(null);
  const [failure, again] = useErrorBoundary((why) => console.error(why));
  const component = components.get(page);
  useEffect(() => {
    if (component) return;
    page.load().then((file) => { components.set(page, file[page.show]); loaded((before) => before + 1); }, setError);
  }, [page]);
  if (error) return html`<${Problem} error=${error} retry=${() => location.reload()} />`;
  if (failure) return html`<h1>${t(page.title)}</h1><div class="problem" role="alert"><strong>${t("pageFailed")}</strong><span>${failure.message}</span><button type="button" onClick=${again}>${t("retry")}</button></div>`;
  return component ? html`<${component} ...${parameters} me=${me} />` : html`<${Loading} />`;
}

function Frame({ methods }) {
  const [entered, enter] = useState(Boolean(session.me));
  const [, move] = useState(0);
  const [theme, setTheme] = useState(themeNow());
  useEffect(() => {
    const moved = () => move((before) => before + 1);
    for (const kind of ["popstate", "moved"]) addEventListener(kind, moved);
    let chord = 0;
    const key = (event) => {
      const menu = event.key === "Escape" && event.target.closest("details.menu[open]");
      if (menu) { menu.open = false; menu.querySelector("summary").focus(); return; }
      if (event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
      const now = performance.now();
      const page = now - chord < 1_500 && PAGES.find((candidate) => candidate.key === event.key);
      if (event.key === "/") { event.preventDefault(); document.getElementById("find")?.focus(); }
      else if (page) { chord = 0; go(page.path); }
      else if (event.key === "g") chord = now;
    };
    addEventListener("keydown", key);
    return () => { for (const kind of ["popstate", "moved"]) removeEventListener(kind, moved); removeEventListener("keydown", key); };
  }, []);
  if (!entered) return html`<${Entry} methods=${methods} entered=${() => enter(true)} />`;
  const me = session.me;
  const { page, parameters } = pageOf(location.pathname);
  document.title = `${page ? t(page.title) : ""} · sensegate`;
  const signOut = async () => {
    if (session.csrf) await call("DELETE", "/api/v1/session").catch(() => null);
    sessionStorage.removeItem("token");
    location.assign("/console/");
  };
  const visible = PAGES.filter((candidate) => candidate.group && (!candidate.at || candidate.at === me.gateway_role) && (!candidate.right || candidate.right.split(" ").some(may)));
  const groups = [...new Set(visible.map((candidate) => candidate.group))];
  const skip = (event) => { event.preventDefault(); document.querySelector("main").focus(); };
  return html`<div class="layout"><a class="skip" href="#main" onClick=${skip}>${t("skipToPage")}</a>
    <nav aria-label=${t("navigation")} onClick=${closeMenu}><${Link} to="/console/" class="brand"><img src="/static/icon.svg" alt="" width="26" height="26" />sensegate<//>
      <details open=${!narrow.matches}><summary>${t("navigation")}</summary><div>
      ${groups.map((group) => html`<span class="group" key=${group}>${t(`group.${group}`)}</span>
        ${visible.filter((candidate) => candidate.group === group).map((candidate) => html`<${Link} key=${candidate.path} to=${candidate.path}
          aria-current=${page === candidate || page?.parent === candidate.path ? "page" : null} title=${candidate.key ? `g ${candidate.key}` : ""}>${t(candidate.title)}<//>`)}`)}
      <span class="group">${t("group.more")}</span><a href="/">${t("ledgerPage")}</a><a href="/docs">${t("docs")}</a></div></details></nav>
    <div><div class="top"><${ScopeSwitch} me=${me} />
      <span class="badge">${t(`role.${me.role}`)}</span><span class="quiet">${me.name}</span><span class="space"></span>
      <button type="button" onClick=${() => { const next = THEMES[(THEMES.indexOf(theme) + 1) % 3]; localStorage.setItem("theme", next); applyTheme(next); setTheme(next); }}>${t(`theme.${theme}`)}</button>
      <button type="button" lang=${language === "en" ? "zh-CN" : "en"} onClick=${switchLanguage}>${language === "en" ? "中文" : "English"}</button>
      <button type="button" onClick=${signOut}>${t("signOut")}</button></div>
      ${session.isAway && html`<p class="away" role="status"><strong>${t("away")}</strong> ${t("awayHelp")}</p>`}
      <main id="main" tabindex="-1" key=${location.pathname}>${page?.unscoped && scopeNow() && html`<p class="quiet" role="note">${t("unscoped")}</p>`}${page ? html`<${Shown} page=${page} parameters=${parameters} me=${me} />` : html`<h1>${t("http.404")}</h1><p><${Link} to="/console/">${t("page.overview")}<//></p>`}</main></div></div>`;
}
// A choice closes the menu where it lies over the page.
function closeMenu(event) {
  if (narrow.matches && event.target.closest("a")) event.currentTarget.querySelector("details").open = false;
}
// Back leads to where the page was scrolled to, once it is as long as it was.
function keepScroll() {
  history.scrollRestoration = "manual";
  let timer = 0, wanted = 0, until = 0;
  addEventListener("scroll", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (!wanted) history.replaceState({ ...history.state, scroll: scrollY }, ""); }, 150);
  }, { passive: true });
  const restore = () => {
    if (!wanted || performance.now() > until) { wanted = 0; return; }
    scrollTo(0, wanted);
    if (Math.abs(scrollY - wanted) < 2) wanted = 0;
  };
  new ResizeObserver(restore).observe(document.body);
  addEventListener("popstate", () => { wanted = history.state?.scroll || 0; until = performance.now() + 5_000; requestAnimationFrame(restore); });
  addEventListener("wheel", () => { wanted = 0; }, { passive: true });
}
// What the server has drawn stays until it is known who asks.
async function begin() {
  const methods = await call("GET", "/api/v1/session/methods").catch(() => null);
  try {
    if (!session.token && methods?.password) session.csrf = (await call("GET", "/api/v1/session")).csrf;
    if (session.token || session.csrf) session.me = await call("GET", "/api/v1/me");
  } catch { session.token = ""; sessionStorage.removeItem("token"); }
  keepScroll();
  const place = document.getElementById("app");
  place.replaceChildren();
  render(html`<${Frame} methods=${methods} />`, place);
}
begin();
