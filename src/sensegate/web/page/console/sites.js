// Two sites: which centre is active, by which term, and who votes.
import { html } from "./preact.js";
import { Badge, Card, Empty, Facts, Loading, Problem, number, t, useLoad } from "./lib.js";
import { Table } from "./more.js";

export function Sites() {
  const { data, error, loading, reload } = useLoad("/api/v1/sites", 5);
  const missing = error?.status === 404;
  return html`<div class="headline"><h1>${t("page.sites")}</h1>${data && html`<${Badge} value=${data.state} />`}</div><p class="quiet">${t("sitesHelp")}</p>
    ${missing ? html`<${Empty} text=${t("noSites")} />` : html`<${Problem} error=${error} retry=${reload} />`}
    ${!data && loading ? html`<${Loading} />` : data && html`<${Card} title=${t("stateWord")}><${Facts} rows=${[["term", number(data.term)], ["otherSite", data.other], data.role === "centre" ? ["alone", data.unreplicated ? t("yes") : "–"] : ["followed", data.followed], data.role === "centre" ? ["voters", data.voters.join(", ")] : ["granted", data.granted ? number(data.granted) : ""]]} /><//>
      ${data.history.length > 0 && html`<${Card} title=${t("termHistory")}><${Table} rows=${data.history.map(([term, began]) => ({ term, began }))} columns=${[{ name: "term", label: t("term"), numeric: true }, { name: "began", label: t("column.entry"), numeric: true, show: (value) => number(value) }]} /><//>`}`}`;
}
