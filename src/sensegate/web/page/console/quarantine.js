// Quarantine: grouped by shape, with a draft for each.
import { html, useState } from "./preact.js";
import { Card, Empty, Link, Loading, Problem, Time, call, device, number, query, replaceSearch, searchValues, t, useLoad } from "./lib.js";

export function Quarantine() {
  const [draft, setDraft] = useState(null);
  const since = searchValues().since || "24h";
  const shapes = useLoad(`/api/v1/profiles/unknown?since=${since}`, 20);
  const rows = useLoad(`/api/v1/quarantine${query({ since, limit: 100, reason: searchValues().reason })}`, 10);
  const learn = async (shape) => {
    setDraft({ loading: true });
    setDraft(await call("POST", `/api/v1/profiles/learn?since=${since}`, { shape: shape.id }).catch((error) => ({ error })));
  };
  const reasons = {};
  for (const row of rows.data?.rows || []) reasons[row.reason] = (reasons[row.reason] || 0) + 1;
  return html`<div class="headline"><h1>${t("page.quarantine")}</h1><span class="space"></span><div class="tabs">${["1h", "24h", "7d"].map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === since} onClick=${() => replaceSearch({ since: choice })}>${choice}</button>`)}</div></div>
    <${Card} title=${t("byShape")}>${shapes.error ? html`<${Problem} error=${shapes.error} />` : (shapes.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr><th>${t("column.pattern")}</th><th>${t("column.format")}</th><th class="number">${t("column.messages")}</th><th>${t("column.reason")}</th><th>${t("recognised")}</th><th>${t("column.last")}</th><th></th></tr></thead><tbody>
      ${shapes.data.rows.map((shape, index) => html`<tr key=${shape.id + index}><td>${shape.pattern || shape.name}</td><td>${shape.format}</td><td class="number">${number(shape.messages)}</td><td>${Object.keys(shape.reasons || {}).map((reason) => t(`reason.${reason}`)).join(", ")}</td><td>${(shape.recognised || []).slice(0, 5).join(", ")}</td><td><${Time} value=${shape.last} /></td><td><button type="button" onClick=${() => learn(shape)}>${t("draft")}</button></td></tr>`)}</tbody></table></div>` : shapes.loading ? html`<${Loading} />` : html`<${Empty} text=${t("noShapes")} />`}<//>
    ${draft && html`<${Card} title=${t("draftOf", draft.profile || "")}>${draft.loading ? html`<${Loading} />` : draft.error ? html`<${Problem} error=${draft.error} />` : html`<p class="quiet">${t("draftHelp")}</p><pre>${draft.text}</pre>`}<//>`}
    <${Card} title=${t("messages")}><div class="tabs">${Object.entries(reasons).map(([reason, count]) => html`<button type="button" key=${reason} aria-pressed=${searchValues().reason === reason} onClick=${() => replaceSearch({ since, reason: searchValues().reason === reason ? "" : reason })}>${t(`reason.${reason}`)} ${number(count)}</button>`)}</div>
      <${Problem} error=${rows.error} retry=${rows.reload} />
      ${(rows.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${["received", "reason", "topic", "device", "detail"].map((name) => html`<th key=${name}>${t(`column.${name}`)}</th>`)}</tr></thead><tbody>
        ${rows.data.rows.map((row) => html`<tr key=${row.entry}><td><${Time} value=${row.received} /></td><td>${t(`reason.${row.reason}`)}</td><td>${row.topic}</td><td>${row.device && html`<${Link} to=${device(row.device)}>${row.device}<//>`}</td><td>${row.detail}<details><summary class="quiet">${number(row.bytes)} B</summary><pre>${row.payload}</pre></details></td></tr>`)}</tbody></table></div>` : !rows.loading && html`<${Empty} text=${t("noneQuarantined")} />`}<//>`;
}
