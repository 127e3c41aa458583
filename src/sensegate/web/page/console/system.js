// State of this gateway.
import { html } from "./preact.js";
import { Card, Empty, Problem, t, useLoad } from "./lib.js";

export function System() {
  const ready = useLoad("/readyz", 5), unreadable = useLoad("/api/v1/log/unreadable", 30);
  return html`<div class="headline"><h1>${t("page.system")}</h1>${ready.data && html`<span class=${`badge ${ready.data.ready ? "good" : "bad"}`}>${t(ready.data.ready ? "ready" : "notReady")}</span>`}</div>
    <${Card} title=${t("readiness")}><ul class="needs">${[...(ready.data?.reasons || []).map((text) => ["worst", text]), ...(ready.data?.warnings || []).map((text) => ["", text])].map(([kind, text]) => html`<li class=${kind} key=${text}>${text}</li>`)}${ready.data?.ready && !ready.data.warnings.length && html`<li class="fine">${t("nothingNeeded")}</li>`}</ul>
      ${ready.data?.clock && html`<p class="quiet">${t("clock")}: ${ready.data.clock}</p>`}<//>
    <${Card} title=${t("unreadable")}><${Problem} error=${unreadable.error} />${(unreadable.data?.rows || []).length ? html`<pre>${JSON.stringify(unreadable.data.rows, null, 1)}</pre>` : html`<${Empty} text=${t("noUnreadable")} />`}<//>
    <p class="quiet"><a href="/metrics">/metrics</a> · <a href="/docs">${t("docs")}</a> · <a href="/openapi.json">openapi.json</a></p>`;
}
