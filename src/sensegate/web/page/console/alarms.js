// Alarms and their rules.
import { html, useState } from "./preact.js";
import { sentence } from "./sentences.js";
import { Absent, Badge, Card, Link, List, Property, Time, Who, call, device, may, number, revisionHeader, t, useDialog, useLoad } from "./lib.js";
import { Table } from "./more.js";

const ALARM_COLUMNS = [{ name: "title", show: (value, row) => sentence(value) || row.rule }, { name: "severity", badge: true }, { name: "state", show: (value, row) => html`<${Badge} value=${value} />${row.silenced_until && html`<br /><span class="quiet">${t("column.silenced_until")} <${Time} value=${row.silenced_until} /></span>`}` }, { name: "device", show: (value, row) => (value ? html`<${Link} to=${device(value)}>${value}<//>` : row.node) }, { name: "property", show: (value, row) => value && html`<${Property} name=${value} />${row.channel && ` · ${row.channel}`}` }, { name: "value", numeric: true }, { name: "opened", time: true }, { name: "closed", time: true }, { name: "reason", value: (row) => sentence(row.reason) }, { name: "acknowledged_by", show: (value, row) => value && html`<${Who} id=${value} />${row.acknowledged && html` · <${Time} value=${row.acknowledged} />`}${row.note && ": "}${row.note}` }];
// Numbers of a rule, each with its label.
const LIMITS = [["above", "above"], ["below", "below"], ["margin", "margin"], ["for_s", "forSeconds"], ["by", "changeBy"], ["after_s", "afterSeconds"]];
const INDICATORS = ["authenticity", "accuracy", "continuity", "completeness"];
const RULE_KINDS = ["threshold", "change", "silence", "gap", "quality", "quarantine_rate", "lag", "disk", "refused_spans", "store_missing"];
export function Alarms({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const renew = () => setStamp((before) => before + 1);
  const rules = useLoad("/api/v1/alarm-rules?limit=200", 30);
  const act = (row, verb, title, consequence, fields, bodyOf) => show({ title, consequence, action: title, fields, submit: async (values) => { await call("POST", `/api/v1/alarms/${encodeURIComponent(row.id)}/${verb}`, bodyOf(values)); renew(); } });
  const note = { name: "note", label: t("column.note") };
  const actions = { name: "actions", sort: false, show: (_, row) => row.state === "closed" || !may("change_alarms") ? "" : html`
    ${row.state === "open" && html`<button type="button" onClick=${() => act(row, "acknowledge", t("acknowledge"), t("acknowledgeHelp"), [note], (values) => values)}>${t("acknowledge")}</button>`}
    <button type="button" onClick=${() => act(row, "silence", t("silence"), t("silenceHelp"), [{ name: "hours", type: "number", min: 0, max: 720, label: t("hours"), help: t("silenceLimit"), value: "8", required: true }, note], (values) => ({ seconds: Number(values.hours) * 3600, note: values.note }))}>${t("silence")}</button>` };
  // A rule is written as a whole: what the form does not show stays as it was.
  const write = (rule) => show({
    title: rule ? `${t("changeRule")}: ${rule.name}` : t("addRule"), action: t(rule ? "save" : "add"), consequence: t("addRuleHelp"),
    fields: [...(rule ? [] : [{ name: "name", label: t("column.name"), required: true, hint: "water-high" }]), { name: "title", label: t("column.title"), value: rule?.title }, { name: "kind", label: t("column.kind"), value: rule?.kind, options: RULE_KINDS.map((kind) => [kind, t(`alarm.${kind}`)]) }, { name: "severity", label: t("column.severity"), options: ["info", "warning", "major", "critical"].map((word) => [word, t(`state.${word}`)]), value: rule?.severity || "warning" },
      { name: "place", label: t("column.place"), value: rule?.place || me.scope }, { name: "property", label: t("column.property"), hint: "water_level", value: rule?.property }, { name: "profile", label: t("column.profile"), value: rule?.profile }, { name: "device", label: t("column.device"), value: rule?.device }, ...LIMITS.map(([name, label]) => ({ name, label: t(label), type: "number", value: rule?.[name] || (rule?.[name] === 0 && ["above", "below"].includes(name) ? 0 : "") })),
      { name: "indicator", label: t("indicatorWord"), value: rule?.indicator, options: [["", "–"], ...INDICATORS.map((word) => [word, t(`column.${word}`)])] }, { name: "enabled", label: t("ruleEnabled"), type: "checkbox", value: rule ? rule.enabled : true }],
    submit: async ({ name, ...values }) => {
      const body = rule ? { domain: rule.domain, channel: rule.channel, equals: rule.equals } : {};
      for (const [key, value] of Object.entries(values)) if (value !== "") body[key] = LIMITS.some(([limit]) => limit === key) ? Number(value) : value;
      await call("PUT", `/api/v1/alarm-rules/${encodeURIComponent(rule?.name || name)}`, body, rule ? revisionHeader(rule) : {});
      rules.reload();
    },
  });
  const remove = (rule) => show({ title: t("deleteRule"), consequence: t("deleteRuleHelp", rule.name), danger: true, action: t("deleteRule"), submit: async () => { await call("DELETE", `/api/v1/alarm-rules/${encodeURIComponent(rule.name)}`); rules.reload(); } });
  const mayChange = may("change_alarms"), isOwn = (rule) => mayChange && !rule.name.includes(":");
  const ruleColumns = [{ name: "name", show: (value, rule) => html`${sentence(rule.title) || value}${!rule.enabled && html` <span class="badge">${t("ruleOff")}</span>`}` }, { name: "kind", show: (value) => t(`alarm.${value}`) }, { name: "severity", show: (value) => html`<${Badge} value=${value} />` }, { name: "place" }, { name: "condition", show: (_, rule) => conditionOf(rule) }, { name: "written_by", show: (value) => value && html`<${Who} id=${value} />` },
    ...(mayChange ? [{ name: "actions", show: (_, rule) => isOwn(rule) && html`<button type="button" onClick=${() => write(rule)}>${t("modify")}</button> <button type="button" onClick=${() => remove(rule)}>${t("deleteRule")}</button>` }] : [])];
  return html`${dialog}<h1>${t("page.alarms")}</h1>
    <section class="card"><${List} stamp=${stamp} path="/api/v1/alarms" scoped="within" columns=${[...ALARM_COLUMNS, actions]} defaults=${{ sort: "-opened" }} empty=${t("noAlarms")} interval_s=${5} filters=${[{ name: "state", options: ["open", "acknowledged", "closed"] }, { name: "severity", options: ["critical", "major", "warning", "info"] }]} /></section>
    <${Card} title=${t("rules")} actions=${mayChange && html`<button type="button" class="primary" onClick=${() => write(null)}>${t("addRule")}</button>`}>
      ${(rules.data?.rows || []).length ? html`<${Table} rows=${rules.data.rows} columns=${ruleColumns} />` : html`<${Absent} of=${rules} text=${t("noRules")} />`}<//>`;
}
const conditionOf = (rule) => html`${[rule.profile, rule.device].filter(Boolean).join(" ")} ${rule.property && html`<${Property} name=${rule.property} />`} ${[rule.indicator && t(`column.${rule.indicator}`), rule.above !== null && `> ${rule.above}`, rule.below !== null && `< ${rule.below}`, rule.equals !== null && `= ${rule.equals}`, rule.by ? `Δ > ${rule.by}` : "", rule.for_s ? t("forSecondsOf", number(rule.for_s)) : "", rule.after_s ? `${number(rule.after_s)} s` : ""].filter(Boolean).join(" ")}`;
