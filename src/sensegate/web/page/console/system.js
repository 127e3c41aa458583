// State of this gateway: what hinders it, its store and disk, who is connected.
import { html } from "./preact.js";
import { sentence } from "./sentences.js";
import { Card, Empty, Facts, Problem, Time, number, t, useLoad } from "./lib.js";
import { Table, bytes } from "./more.js";

const share = (row) => (row.bytes_max ? row.bytes / row.bytes_max : 0);
// A share of a limit as a bar with its number.
const Fill = ({ used, limit }) => (limit ? html`<span class="fill"><meter min="0" max=${limit} high=${limit * 0.8} optimum="0" value=${used} aria-label=${t("usedShare")}></meter> ${number((100 * used) / limit, 1)} %</span>` : "–");

export function System() {
  const ready = useLoad("/readyz", 5), unreadable = useLoad("/api/v1/log/unreadable", 30), system = useLoad("/api/v1/system", 10);
  const state = system.data, disk = state?.disk;
  return html`<div class="headline"><h1>${t("page.system")}</h1>${ready.data && html`<span class=${`badge ${ready.data.ready ? "good" : "bad"}`}>${t(ready.data.ready ? "ready" : "notReady")}</span>`}</div>
    <${Card} title=${t("readiness")}><ul class="needs">${[...(ready.data?.reasons || []).map((text) => ["worst", text]), ...(ready.data?.warnings || []).map((text) => ["", text])].map(([kind, text]) => html`<li class=${kind} key=${text}>${sentence(text)}</li>`)}${ready.data?.ready && !ready.data.warnings.length && html`<li class="fine">${t("nothingNeeded")}</li>`}</ul>
      ${ready.data?.clock && html`<p class="quiet">${t("clock")}: ${sentence(ready.data.clock)}</p>`}<//>
    ${system.error?.status !== 403 && html`<${Problem} error=${system.error} retry=${system.reload} />`}
    ${state && html`<${Card} title=${t("machine")}><${Facts} rows=${[["diskFree", `${bytes(disk.free_bytes)} / ${bytes(disk.total_bytes)}`], ["diskReserve", html`<span>${bytes(disk.reserve_bytes)} ${!disk.has_room && html`<span class="badge bad">${t("diskFull")}</span>`}</span>`], ["memoryMost", bytes(state.memory_bytes)], ["mqttConnections", number(state.mqtt_connections)], ["mqttQueued", bytes(state.mqtt_queued_bytes)], ["feedReaders", number(state.consumers)], ["peopleSignedIn", number(state.sessions)]]} /><//>
      <${Card} title=${t("streams")}><${Table} rows=${[...state.streams].sort((left, right) => share(right) - share(left))} columns=${[{ name: "name" }, { name: "messages", numeric: true, show: (value) => number(value) }, { name: "bytes", numeric: true, show: bytes }, { name: "bytes_max", label: t("limit"), numeric: true, show: (value) => (value ? bytes(value) : "–") }, { name: "used", label: t("usedShare"), numeric: true, show: (_, row) => html`<${Fill} used=${row.bytes} limit=${row.bytes_max} />` }, { name: "consumers", label: t("readersWord"), numeric: true, show: (value) => number(value) }, { name: "last", label: t("lastMessage"), show: (value) => html`<${Time} value=${value} />` }]} /><//>`}
    ${unreadable.error?.status !== 403 && html`<${Card} title=${t("unreadable")}><${Problem} error=${unreadable.error} />${(unreadable.data?.rows || []).length ? html`<pre>${JSON.stringify(unreadable.data.rows, null, 1)}</pre>` : html`<${Empty} text=${t("noUnreadable")} />`}<//>`}
    <p class="quiet"><a href="/metrics">/metrics</a> · <a href="/docs">${t("docs")}</a> · <a href="/openapi.json">openapi.json</a></p>`;
}
