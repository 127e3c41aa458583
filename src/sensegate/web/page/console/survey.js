// Survey of components (城市部件摸查): what stands where, whose it is, and what the registry lacks.
import { html, useState } from "./preact.js";
import { Badge, Card, Empty, Link, List, Loading, Problem, device, emptyHere, number, query, searchValues, t, useLoad } from "./lib.js";
import { Table, download } from "./more.js";

const state = (word) => t(`state.${word}`);
const GAPS = ["place", "owner", "department", "domain", "asset", "name", "never_heard"];
const COLUMNS = [{ name: "id" }, { name: "name" }, { name: "domain" }, { name: "asset" }, { name: "place" }, { name: "department" }, { name: "owner" }, { name: "state", badge: true }, { name: "last_seen", time: true }, { name: "gaps", show: (gaps) => gaps.map((gap) => t(`gap.${gap}`)).join(", ") }];

export function Survey() {
  const [error, setError] = useState(null);
  const survey = useLoad("/api/v1/survey?limit=1000", 30);
  const save = (accept, suffix) => download(`/api/v1/survey/components${query({ ...searchValues(), q: "", after: "", trail: "", sort: "" })}`, accept, `components.${suffix}`).then(() => setError(null), setError);
  const rows = survey.data?.rows || [];
  const figure = (name) => ({ name, numeric: true, label: t(`survey.${name}`), show: (value) => number(value) });
  return html`<div class="headline"><h1>${t("page.survey")}</h1></div><p class="quiet">${t("surveyHelp")}</p><${Problem} error=${error || survey.error} />
    <${Card} title=${t("bySurvey")}>${!survey.data && survey.loading ? html`<${Loading} />` : rows.length ? html`<${Table} rows=${rows} columns=${[{ name: "domain" }, { name: "division" }, { name: "department" }, figure("components"), { name: "active", numeric: true, label: state("active") }, { name: "silent", numeric: true, label: state("silent") }, { name: "never_heard", numeric: true, label: t("gap.never_heard") }, { name: "disabled", numeric: true, label: state("disabled") }, { name: "without_place", numeric: true, label: t("gap.place") }, { name: "without_owner", numeric: true, label: t("gap.owner") }, { name: "without_asset", numeric: true, label: t("gap.asset") }]} />` : html`<${Empty} text=${emptyHere(t("noComponents"))} />`}<//>
    <${Card} title=${t("components")} actions=${html`<button type="button" onClick=${() => save("text/csv", "csv")}>${t("exportCsv")}</button><button type="button" onClick=${() => save("application/geo+json", "geojson")}>${t("exportGeojson")}</button>`}>
      <${List} path="/api/v1/survey/components" columns=${COLUMNS} sortable=${false} interval_s=${30} link=${(row) => device(row.id)} empty=${emptyHere(t("noComponents"))} filters=${[{ name: "domain" }, { name: "division" }, { name: "department" }, { name: "state", options: ["registered", "active", "silent", "disabled", "retired"] }, { name: "gap", label: "column.gaps", options: GAPS, word: "gap" }]} /><//>
    <p class="quiet"><${Link} to="/console/labels">${t("page.labels")}<//></p>`;
}
