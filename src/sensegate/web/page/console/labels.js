// Sheet of labels with QR codes, made to be printed: three a row, ten rows a sheet of A4.
import { html } from "./preact.js";
import { Empty, Loading, Problem, query, replaceSearch, searchValues, t, useLoad } from "./lib.js";
import "./more.texts.js";

export function Labels() {
  const values = searchValues();
  const { data, error, loading, reload } = useLoad(`/api/v1/device-labels${query({ limit: 60, ...values })}`);
  const set = (changes) => replaceSearch({ ...values, after: "", ...changes });
  return html`<div class="headline noprint"><h1>${t("page.labels")}</h1><span class="space"></span><button type="button" class="primary" onClick=${() => print()} disabled=${!data?.rows.length}>${t("print")}</button></div>
    <p class="quiet noprint">${t("labelsHelp")}</p>
    <div class="tools"><input id="find" type="search" placeholder=${t("find")} aria-label=${t("find")} value=${values.q || ""} onChange=${(event) => set({ q: event.target.value.trim() })} />${["division", "profile", "domain"].map((name) => html`<label class="filter" key=${name}>${t(`column.${name}`)}<input value=${values[name] || ""} onChange=${(event) => set({ [name]: event.target.value.trim() })} /></label>`)}</div>
    <${Problem} error=${error} retry=${reload} />
    ${!data && loading ? html`<${Loading} />` : data?.rows.length ? html`<div class="labels">${data.rows.map((label) => html`<figure key=${label.id}><svg viewBox=${`0 0 ${label.size} ${label.size}`} role="img" aria-label=${t("labelOf", label.id)} shape-rendering="crispEdges"><rect width=${label.size} height=${label.size} fill="#fff" /><path d=${label.path} fill="#000" /></svg>
      <figcaption><strong>${label.id}</strong>${label.name && html`<span>${label.name}</span>`}<span>${label.division} ${label.profile}</span></figcaption></figure>`)}</div>` : !error && html`<${Empty} text=${t("noLabels")} />`}
    <div class="pager">${data?.next && html`<button type="button" onClick=${() => replaceSearch({ ...values, after: data.next })}>${t("next")} →</button>`}</div>`;
}
