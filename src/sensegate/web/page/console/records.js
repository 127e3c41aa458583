// Records of a feed: last values, or the newest.
import { html } from "./preact.js";
import { Empty, Link, Loading, Problem, Property, Quality, Time, device, number, query, replaceSearch, saveCsv, scopeNow, searchValues, t, unitText, useLoad, usePropertyNames } from "./lib.js";

const CSV_COLUMNS = ["device", "property", "channel", "value", "unit", "time", "received", "quality", "flags", "division", "profile", "id"].map((name) => ({ name }));

const ROWS = 100;

export function Records() {
  const names = usePropertyNames();
  const feeds = useLoad("/api/v1/feeds?limit=200");
  const values = searchValues();
  const feed = values.feed || "all", form = values.form || "latest";
  const filters = { device: values.device, property: values.property, channel: values.channel, division: values.division || scopeNow(), after: values.after, limit: ROWS };
  const path = form === "latest" ? `/api/v1/feeds/${encodeURIComponent(feed)}/latest${query(filters)}` : `/api/v1/feeds/${encodeURIComponent(feed)}/records${query({ ...filters, since: "24h", order: "desc" })}`;
  const { data, error, loading, reload } = useLoad(path, values.after ? 0 : 5);
  const set = (changes) => replaceSearch({ ...values, after: "", trail: "", ...changes });
  const trail = values.trail ? values.trail.split("|") : [];
  return html`<div class="headline"><h1>${t("page.records")}</h1><span class="space"></span><div class="tabs">${["latest", "newest"].map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === form} onClick=${() => set({ form: choice })}>${t(`form.${choice}`)}</button>`)}</div></div>
    <section class="card"><div class="tools"><label class="filter">${t("feed")}<select value=${feed} onChange=${(event) => set({ feed: event.target.value })}>${(feeds.data?.rows || [{ name: "all" }]).map((row) => html`<option key=${row.name} value=${row.name} selected=${row.name === feed}>${row.name}</option>`)}</select></label>
      ${["device", "property", "channel", "division"].map((name) => html`<label class="filter" key=${name}>${t(`column.${name}`)}<input value=${values[name] || ""} list=${name === "property" ? "properties" : undefined} onChange=${(event) => set({ [name]: event.target.value.trim() })} /></label>`)}<datalist id="properties">${[...names].map(([name, label]) => html`<option key=${name} value=${name}>${label}</option>`)}</datalist>
      <span class="space"></span><button type="button" onClick=${() => saveCsv(data.records, CSV_COLUMNS)} disabled=${!data?.records?.length}>CSV</button></div>
      <${Problem} error=${error} retry=${values.after ? () => set({}) : reload} />${!data && loading ? html`<${Loading} />` : (data?.records || []).length ? html`<div class="scroll" tabindex="0"><table class="list"><thead><tr>${["device", "property", "channel", "value", "unit", "time", "quality", "division", "profile"].map((name) => html`<th key=${name} class=${name === "value" ? "number" : ""}>${t(`column.${name}`)}</th>`)}</tr></thead><tbody>
      ${data.records.map((record) => html`<tr key=${record.id}><td data-label=${t("column.device")}>${record.device && html`<${Link} to=${device(record.device)}>${record.device}<//>`}</td><td class="property" data-label=${t("column.property")}><${Property} name=${record.property} /></td><td class=${record.channel ? "" : "none"} data-label=${t("column.channel")}>${record.channel}</td><td data-label=${t("column.value")} class=${typeof record.value === "number" ? "number" : ""}>${typeof record.value === "number" ? number(record.value, 6) : html`<span class="text" title=${String(record.value)}>${String(record.value)}</span>`}</td><td class=${unitText(record.unit) ? "" : "none"} data-label=${t("column.unit")}>${unitText(record.unit)}</td><td data-label=${t("column.time")}><${Time} value=${record.time} /></td><td data-label=${t("column.quality")}><${Quality} value=${record.quality} /></td><td data-label=${t("column.division")}>${record.division}</td><td data-label=${t("column.profile")}>${record.profile}</td></tr>`)}</tbody></table></div>` : !error && html`<${Empty} text=${t("noValues")} />`}
      <div class="pager">${trail.length > 0 && html`<button type="button" onClick=${() => set({ after: trail.at(-1) === "^" ? "" : trail.at(-1), trail: trail.slice(0, -1).join("|") })}>← ${t("previous")}</button>`}
        <span class="quiet">${data?.records?.length ? t("rowsShown", number(data.records.length)) : ""}</span>
        ${data?.next && html`<button type="button" onClick=${() => set({ after: data.next, trail: [...trail, values.after || "^"].join("|") })}>${t("next")} →</button>`}</div></section>`;
}
