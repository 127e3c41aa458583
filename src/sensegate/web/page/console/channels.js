// Where alarms are delivered: webhooks, robots of WeCom and DingTalk, mail; with the on-call note of each.
import { html, useState } from "./preact.js";
import { Badge, List, call, revisionHeader, t, useDialog } from "./lib.js";
import "./more.texts.js";

const KINDS = ["webhook", "wecom", "dingtalk", "mail"];
const SEVERITIES = ["info", "warning", "major", "critical"];
const path = (row) => `/api/v1/alarm-channels/${encodeURIComponent(row.name)}`;

export function Channels({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const renew = () => setStamp((before) => before + 1);
  const write = (row) => show({
    title: row ? row.name : t("addChannel"), action: t(row ? "save" : "add"), consequence: row ? "" : t("addChannelHelp"),
    fields: [...(row ? [] : [{ name: "name", label: t("column.name"), required: true, hint: "duty" }]), { name: "kind", label: t("column.kind"), value: row?.kind, options: KINDS.map((kind) => [kind, t(`channel.${kind}`)]) }, { name: "url", label: t("address"), hint: row?.url || "" }, { name: "secret", label: t("secretWord"), type: "password", hint: row?.has_secret ? "•••" : "" }, { name: "recipients", label: t("recipientsWord"), value: (row?.recipients || []).join(", ") }, { name: "place", label: t("column.place"), value: row?.place || me.scope }, { name: "severity", label: t("column.severity"), value: row?.severity || "warning", options: SEVERITIES.map((word) => [word, t(`state.${word}`)]) }, { name: "on_call", label: t("onCall"), value: row?.on_call }, { name: "language", label: t("language"), value: row?.language || "zh", options: [["zh", "中文"], ["en", "English"]] }],
    submit: async ({ name, recipients, ...values }) => {
      await call("PUT", path(row || { name }), { ...values, events: row?.events || ["opened", "closed"], recipients: recipients.split(/[,;\s]+/).filter(Boolean) }, row ? revisionHeader(row) : {});
      renew();
    },
  });
  const trial = (row) => show({ title: t("trial"), action: t("trial"), consequence: t("trialHelp"), submit: async () => { const result = await call("POST", `${path(row)}/trial`); return html`<p>${result.accepted ? t("trialDone") : t("trialFailed", result.reason)}</p>`; } });
  const remove = (row) => show({ title: t("deleteChannel"), danger: true, action: t("deleteChannel"), consequence: t("deleteChannelHelp", row.name), submit: async () => { await call("DELETE", path(row)); renew(); } });
  const actions = { name: "actions", sort: false, show: (_, row) => html`<button type="button" onClick=${() => trial(row)}>${t("trial")}</button> <button type="button" onClick=${() => write(row)}>${t("modify")}</button> <button type="button" onClick=${() => remove(row)}>${t("deleteChannel")}</button>` };
  return html`${dialog}<h1>${t("page.channels")}</h1><p class="quiet">${t("channelsHelp")}</p><section class="card"><${List} stamp=${stamp} path="/api/v1/alarm-channels" empty=${t("noChannels")} interval_s=${10} actions=${html`<button type="button" class="primary" onClick=${() => write(null)}>${t("addChannel")}</button>`}
    columns=${[{ name: "name" }, { name: "kind", show: (value) => t(`channel.${value}`) }, { name: "place" }, { name: "severity", show: (value) => html`<${Badge} value=${value} />` }, { name: "url", show: (value, row) => value || row.recipients.join(", ") }, { name: "on_call" }, { name: "delivered", numeric: true }, { name: "failures", numeric: true }, { name: "reason" }, { name: "last", time: true }, actions]} /></section>`;
}
