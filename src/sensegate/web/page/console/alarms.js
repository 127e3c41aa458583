// Alarms and their rules.
import { html, useState } from "./preact.js";
import { sentence } from "./sentences.js";
import { Absent, Badge, Card, Link, List, Time, call, device, t, useDialog, useLoad } from "./lib.js";

const ALARM_COLUMNS = [{ name: "title", show: (value, row) => sentence(value) || row.rule }, { name: "severity", badge: true }, { name: "state", show: (value, row) => html`<${Badge} value=${value} />${row.silenced_until && html`<br /><span class="quiet">${t("column.silenced_until")} <${Time} value=${row.silenced_until} /></span>`}` }, { name: "device", show: (value, row) => (value ? html`<${Link} to=${device(value)}>${value}<//>` : row.node) }, { name: "property" }, { name: "value", numeric: true }, { name: "opened", time: true }, { name: "closed", time: true }, { name: "reason", value: (row) => sentence(row.reason) }, { name: "acknowledged_by", show: (value, row) => html`${value}${row.acknowledged && html` · <${Time} value=${row.acknowledged} />`}${value && row.note && ": "}${row.note}` }];
const RULE_KINDS = ["threshold", "change", "silence", "gap", "quality", "quarantine_rate", "lag", "disk", "refused_spans", "store_missing"];
export function Alarms({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const renew = () => setStamp((before) => before + 1);
  const rules = useLoad("/api/v1/alarm-rules?limit=200", 30);
  const act = (row, verb, title, consequence, fields, bodyOf) => show({ title, consequence, action: title, fields, submit: async (values) => { await call("POST", `/api/v1/alarms/${encodeURIComponent(row.id)}/${verb}`, bodyOf(values)); renew(); } });
  const note = { name: "note", label: t("column.note") };
  const actions = { name: "actions", sort: false, show: (_, row) => row.state === "closed" ? "" : html`
    ${row.state === "open" && html`<button type="button" onClick=${() => act(row, "acknowledge", t("acknowledge"), t("acknowledgeHelp"), [note], (values) => values)}>${t("acknowledge")}</button>`}
    <button type="button" onClick=${() => act(row, "silence", t("silence"), t("silenceHelp"), [{ name: "hours", type: "number", min: 0, max: 720, label: t("hours"), help: t("silenceLimit"), value: "8", required: true }, note], (values) => ({ seconds: Number(values.hours) * 3600, note: values.note }))}>${t("silence")}</button>` };
  const add = () => show({
    title: t("addRule"), action: t("add"), consequence: t("addRuleHelp"),
    fields: [{ name: "name", label: t("column.name"), required: true, hint: "water-high" }, { name: "kind", label: t("column.kind"), options: RULE_KINDS.map((kind) => [kind, t(`alarm.${kind}`)]) }, { name: "severity", label: t("column.severity"), options: ["info", "warning", "major", "critical"].map((word) => [word, t(`state.${word}`)]), value: "warning" },
      { name: "place", label: t("column.place"), value: me.scope }, { name: "property", label: t("column.property"), hint: "water_level" }, { name: "profile", label: t("column.profile") }, { name: "device", label: t("column.device") }, { name: "above", label: t("above") }, { name: "below", label: t("below") }, { name: "margin", label: t("margin") }, { name: "after_s", label: t("afterSeconds") }],
    submit: async ({ name, ...values }) => {
      const body = {};
      for (const [key, value] of Object.entries(values)) if (value !== "") body[key] = ["above", "below", "margin", "after_s"].includes(key) ? Number(value) : value;
      await call("PUT", `/api/v1/alarm-rules/${encodeURIComponent(name)}`, body);
      rules.reload();
    },
  });
  const remove = (rule) => show({ title: t("deleteRule"), consequence: t("deleteRuleHelp", rule.name), danger: true, action: t("deleteRule"), submit: async () => { await call("DELETE", `/api/v1/alarm-rules/${encodeURIComponent(rule.name)}`); rules.reload(); } });
  return html`${dialog}<h1>${t("page.alarms")}</h1>
    <section class="card"><${List} stamp=${stamp} path="/api/v1/alarms" scoped="within" columns=${[...ALARM_COLUMNS, actions]} defaults=${{ sort: "-opened" }} empty=${t("noAlarms")} interval_s=${5} filters=${[{ name: "state", options: ["open", "acknowledged", "closed"] }, { name: "severity", options: ["critical", "major", "warning", "info"] }]} /></section>
    <${Card} title=${t("rules")} actions=${html`<button type="button" class="primary" onClick=${add}>${t("addRule")}</button>`}>
      ${(rules.data?.rows || []).length ? html`<div class="scroll" tabindex="0"><table><thead><tr>${["name", "kind", "severity", "place", "condition", "written_by"].map((name) => html`<th key=${name}>${t(`column.${name}`)}</th>`)}<th></th></tr></thead><tbody>
        ${rules.data.rows.map((rule) => html`<tr key=${rule.name}><td>${sentence(rule.title) || rule.name}</td><td>${t(`alarm.${rule.kind}`)}</td><td><${Badge} value=${rule.severity} /></td><td>${rule.place}</td><td>${[rule.profile, rule.device, rule.property, rule.above !== null && `> ${rule.above}`, rule.below !== null && `< ${rule.below}`, rule.after_s ? `${rule.after_s} s` : ""].filter(Boolean).join(" ")}</td><td>${rule.written_by}</td><td>${!rule.name.includes(":") && html`<button type="button" onClick=${() => remove(rule)}>${t("deleteRule")}</button>`}</td></tr>`)}</tbody></table></div>` : html`<${Absent} of=${rules} text=${t("noRules")} />`}<//>`;
}
