// The frame: sign-in, navigation, scope, language, theme, keyboard; the page that the address names.
import { html, render, useEffect, useState } from "./preact.js";
import { Link, Loading, Problem, call, go, language, session, t } from "./lib.js";
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

// The page of an address; its file is loaded the first time that it is opened.
const components = new Map();
function Shown({ page, parameters, me }) {
  const [, loaded] = useState(0);
  const [error, setError] = useState(null);
  const component = components.get(page);
  useEffect(() => {
    if (component) return;
    page.load().then((file) => { components.set(page, file[page.show]); loaded((before) => before + 1); }, setError);
  }, [page]);
  if (error) return html`<${Problem} error=${error} retry=${() => location.reload()} />`;
  return component ? html`<${component} ...${parameters} me=${me} />` : html`<${Loading} />`;
}

function Frame() {
  const [state, set] = useState({ entered: false, checked: false, methods: null });
  const [, move] = useState(0);
  const [theme, setTheme] = useState(themeNow());
  useEffect(() => {
    const moved = () => move((before) => before + 1);
    addEventListener("popstate", moved);
    const begin = async () => {
      const methods = await call("GET", "/api/v1/session/methods").catch(() => null);
      try {
        if (!session.token && methods?.password) session.csrf = (await call("GET", "/api/v1/session")).csrf;
        if (session.token || session.csrf) session.me = await call("GET", "/api/v1/me");
      } catch { session.token = ""; sessionStorage.removeItem("token"); }
      set({ entered: Boolean(session.me), checked: true, methods });
    };
    begin();
    let chord = 0;
    const key = (event) => {
      if (event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
      const now = performance.now();
      const page = now - chord < 1_500 && PAGES.find((candidate) => candidate.key === event.key);
      if (event.key === "/") { event.preventDefault(); document.getElementById("find")?.focus(); }
      else if (page) { chord = 0; go(page.path); }
      else if (event.key === "g") chord = now;
    };
    addEventListener("keydown", key);
    return () => { removeEventListener("popstate", moved); removeEventListener("keydown", key); };
  }, []);
  if (!state.checked) return html`<p class="quiet loading">${t("loading")}</p>`;
  if (!state.entered) return html`<${Entry} methods=${state.methods} entered=${() => set({ ...state, entered: true })} />`;
  const me = session.me;
  const { page, parameters } = pageOf(location.pathname);
  document.title = `${page ? t(page.title) : ""} · sensegate`;
  const signOut = async () => {
    if (session.csrf) await call("DELETE", "/api/v1/session").catch(() => null);
    sessionStorage.removeItem("token");
    location.assign("/console/");
  };
  const visible = PAGES.filter((candidate) => candidate.group && (!candidate.at || candidate.at === me.gateway_role));
  const groups = [...new Set(visible.map((candidate) => candidate.group))];
  return html`<div class="layout">
    <nav aria-label=${t("navigation")}><${Link} to="/console/" class="brand"><img src="/static/icon.svg" alt="" width="26" height="26" />sensegate<//>
      <details open=${!narrow.matches}><summary>${t("navigation")}</summary><div>
      ${groups.map((group) => html`<span class="group" key=${group}>${t(`group.${group}`)}</span>
        ${visible.filter((candidate) => candidate.group === group).map((candidate) => html`<${Link} key=${candidate.path} to=${candidate.path}
          aria-current=${page === candidate || page?.parent === candidate.path ? "page" : null} title=${candidate.key ? `g ${candidate.key}` : ""}>${t(candidate.title)}<//>`)}`)}
      <span class="group">${t("group.more")}</span><a href="/">${t("ledgerPage")}</a><a href="/sharing">${t("sharingDesk")}</a><a href="/docs">${t("docs")}</a></div></details></nav>
    <div><div class="top"><span class="scope">${t("youSee", [me.gateway_division, me.scope === me.gateway_division ? "" : me.scope, me.department].filter(Boolean).join(" › "))}</span>
      <span class="badge">${t(`role.${me.role}`)}</span><span class="quiet">${me.name}</span><span class="space"></span>
      <button type="button" onClick=${() => { const next = THEMES[(THEMES.indexOf(theme) + 1) % 3]; localStorage.setItem("theme", next); applyTheme(next); setTheme(next); }}>${t(`theme.${theme}`)}</button>
      <button type="button" lang=${language === "en" ? "zh-CN" : "en"} onClick=${switchLanguage}>${language === "en" ? "中文" : "English"}</button>
      <button type="button" onClick=${signOut}>${t("signOut")}</button></div>
      <main key=${location.pathname}>${page ? html`<${Shown} page=${page} parameters=${parameters} me=${me} />` : html`<h1>${t("http.404")}</h1><p><${Link} to="/console/">${t("page.overview")}<//></p>`}</main></div></div>`;
}
render(html`<${Frame} />`, document.getElementById("app"));
