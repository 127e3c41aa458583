// Settings as they are in force, with their origin.
import { html } from "./preact.js";
import { List, replaceSearch, searchValues, t } from "./lib.js";
import "./more.texts.js";

export function Settings() {
  const origin = searchValues().origin || "configuration";
  return html`<div class="headline"><h1>${t("page.settings")}</h1><span class="space"></span><div class="tabs">${[["configuration", "onlyChanged"], ["configuration,default", "allSettings"]].map(([choice, label]) => html`<button type="button" key=${label} aria-pressed=${choice === origin} onClick=${() => replaceSearch({ ...searchValues(), origin: choice, after: "", trail: "" })}>${t(label)}</button>`)}</div></div>
    <p class="quiet">${t("settingsHelp")}</p><section class="card"><${List} path="/api/v1/settings" defaults=${{ origin: "configuration" }} interval_s=${0} columns=${[{ name: "key" }, { name: "value" }, { name: "default" }, { name: "origin", label: "settingOrigin", show: (value) => t(`origin.${value}`) }, { name: "help" }]} /></section>`;
}
