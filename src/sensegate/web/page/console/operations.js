// Tasks, moves of devices.
import { html, useState } from "./preact.js";
import { Link, List, call, device, may, t, listPage, useDialog } from "./lib.js";

export const Tasks = listPage("page.tasks", "/api/v1/tasks", [{ name: "id" }, { name: "device", show: (value) => html`<${Link} to=${device(value)}>${value}<//>` }, { name: "task" }, { name: "state", badge: true }, { name: "created", time: true }, { name: "by", who: true }, { name: "sends", numeric: true }, { name: "note" }], { empty: t("noTasks") });
const MOVE_COLUMNS = [{ name: "device", show: (value) => html`<${Link} to=${device(value)}>${value}<//>` }, { name: "stage", badge: true }, { name: "source" }, { name: "target" }, { name: "division" }, { name: "requested", time: true }, { name: "by", who: true }, { name: "reason" }, { name: "id" }];
const ENDED = new Set(["done", "cancelled", "refused", "sent_back", "recalled"]);
export function Moves({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const renew = () => setStamp((before) => before + 1);
  const mayMove = me.gateway_role === "centre" && may("change_devices");
  const start = () => show({ title: t("startMove"), action: t("startMove"), consequence: t("startMoveHelp"),
    fields: [{ name: "device", label: t("column.device"), required: true }, { name: "source", label: t("moveSource"), hint: "4401" }, { name: "target", label: t("moveTarget"), required: true, hint: "4403" }, { name: "division", label: t("moveDivision"), required: true, hint: "440305" }],
    submit: async ({ source, ...values }) => { await call("POST", "/api/v1/moves", source ? { ...values, source } : values); renew(); } });
  const cancel = (row) => show({ title: t("cancelMove"), action: t("cancelMove"), danger: true, consequence: t("cancelMoveHelp", row.device), submit: async () => { await call("POST", `/api/v1/moves/${encodeURIComponent(row.id)}/cancellation`, {}); renew(); } });
  const actions = { name: "actions", sort: false, show: (_, row) => (mayMove && !ENDED.has(row.stage) ? html`<button type="button" onClick=${() => cancel(row)}>${t("cancelMove")}</button>` : "") };
  return html`${dialog}<h1>${t("page.moves")}</h1><section class="card"><${List} stamp=${stamp} path="/api/v1/moves" columns=${[...MOVE_COLUMNS, actions]} empty=${t("noMoves")} search=${false} sortable=${false} interval_s=${5}
    actions=${mayMove && html`<button type="button" class="primary" onClick=${start}>${t("startMove")}</button>`} /></section>`;
}
