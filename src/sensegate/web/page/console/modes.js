// Emergency modes: plans that one writes and another approves; orders by them, with their steps, until they end.
import { html, useState } from "./preact.js";
import { Badge, Card, Empty, Link, List, Problem, Time, Who, call, go, may, number, revisionHeader, searchValues, t, useDialog, useLoad } from "./lib.js";
import { Table } from "./more.js";

const planPath = (plan) => `/api/v1/emergency-plans/${encodeURIComponent(plan.id)}`;
const words = (text) => text.split(/[,;\s]+/).filter(Boolean);

export function Modes({ me }) {
  const [dialog, show] = useDialog();
  const [stamp, setStamp] = useState(0);
  const plans = useLoad("/api/v1/emergency-plans?limit=200", 15);
  const chosen = searchValues().order || "";
  const renew = () => { plans.reload(); setStamp((before) => before + 1); };
  const write = (plan) => show({
    title: t(plan ? "changePlan" : "addPlan"), action: t(plan ? "save" : "add"), consequence: t("planHelp"),
    fields: [...(plan ? [] : [{ name: "name", label: t("column.name"), required: true, hint: "flood" }]), { name: "title", label: t("column.title"), value: plan?.title, required: true }, { name: "place", label: t("column.place"), value: plan?.place || me.scope, required: true }, { name: "hours_max", label: t("hoursMax"), type: "number", min: "0", value: plan?.hours_max || 24 }, { name: "shed", label: t("shedWord"), help: t("shedHelp"), value: (plan?.shed || []).join(", ") }],
    submit: async ({ name, hours_max, shed, ...values }) => {
      const body = { ...values, hours_max: Number(hours_max), shed: words(shed), grants: plan?.grants || [], tasks: plan?.tasks || [] };
      await call("PUT", `/api/v1/emergency-plans/${encodeURIComponent(plan ? plan.name : name)}`, body, plan ? revisionHeader(plan) : {});
      renew();
    },
  });
  const approve = (plan) => show({ title: t("approvePlan"), action: t("approvePlan"), consequence: t("approvePlanHelp", plan.title || plan.name, plan.written_by), submit: async () => { await call("POST", `${planPath(plan)}/approval`, undefined, revisionHeader(plan)); renew(); } });
  const forget = (plan) => show({ title: t("forgetPlan"), danger: true, action: t("forgetPlan"), consequence: t("forgetPlanHelp", plan.title || plan.name), submit: async () => { await call("DELETE", planPath(plan)); renew(); } });
  const give = (plan) => show({
    title: t("giveOrder"), action: t("giveOrder"), danger: true, consequence: t("giveOrderHelp", plan.title || plan.name, number(plan.grants.length), number(plan.tasks.length), plan.shed.join(", ") || "–"),
    fields: [{ name: "hours", label: t("hours"), type: "number", min: "0", value: Math.min(plan.hours_max, 8), required: true }, { name: "reason", label: t("column.reason"), required: true }, { name: "place", label: t("column.place"), value: plan.place }, { name: "drill", label: t("drill"), type: "checkbox" }],
    submit: async ({ hours, ...values }) => { await call("POST", "/api/v1/mode-orders", { ...values, plan: plan.id, hours: Number(hours) }); renew(); },
  });
  const act = may("change_mode");
  const columns = [{ name: "title", show: (value, plan) => value || plan.name }, { name: "place" }, { name: "hours_max", label: t("hoursMax"), numeric: true }, { name: "makes", label: t("planMakes"), show: (_, plan) => t("planMakesOf", number(plan.grants.length), number(plan.tasks.length), number(plan.shed.length)) }, { name: "written_by", label: t("planAuthor"), show: (value) => html`<${Who} id=${value} />` }, { name: "approved_by", label: t("approvedBy"), show: (value) => (value ? html`<${Who} id=${value} />` : html`<span class="badge warn">${t("draftPlan")}</span>`) },
    { name: "actions", show: (_, plan) => act && html`<span class="row">${plan.approved_by ? html`<button type="button" onClick=${() => give(plan)}>${t("giveOrder")}</button>` : html`<button type="button" onClick=${() => approve(plan)}>${t("approvePlan")}</button>`}<button type="button" onClick=${() => write(plan)}>${t("modify")}</button><button type="button" onClick=${() => forget(plan)}>${t("forgetPlan")}</button></span>` }];
  return html`${dialog}<h1>${t("page.modes")}</h1>
    ${chosen && html`<${Order} key=${chosen} id=${chosen} show=${show} renew=${renew} />`}
    <${Card} title=${t("orders")}><${List} stamp=${stamp} path="/api/v1/mode-orders" columns=${[{ name: "id" }, { name: "plan" }, { name: "place" }, { name: "state", badge: true }, { name: "drill" }, { name: "by", who: true }, { name: "since", time: true }, { name: "until", time: true }, { name: "reason" }]} empty=${t("noModes")} search=${false} sortable=${false} defaults=${{ sort: "-id" }} hide=${["order"]} link=${(row) => `/console/modes?order=${row.id}`} /><//>
    <${Card} title=${t("plans")} actions=${act && html`<button type="button" class="primary" onClick=${() => write(null)}>${t("addPlan")}</button>`}><${Problem} error=${plans.error} retry=${plans.reload} />${(plans.data?.rows || []).length ? html`<${Table} rows=${plans.data.rows} columns=${columns} />` : plans.data && html`<${Empty} text=${t("noPlans")} />`}<//>`;
}
// One order: each thing that it did, and the end that undoes them.
function Order({ id, show, renew }) {
  const { data, error, reload } = useLoad(`/api/v1/mode-orders/${encodeURIComponent(id)}`, 5);
  const end = () => show({ title: t("endOrder"), action: t("endOrder"), consequence: t("endOrderHelp"), submit: async () => { await call("DELETE", `/api/v1/mode-orders/${encodeURIComponent(id)}`); reload(); renew(); } });
  return html`<${Card} title=${t("orderOf", data?.plan || id)} actions=${html`${data?.state === "active" && may("change_mode") && html`<button type="button" onClick=${end}>${t("endOrder")}</button>`}<button type="button" onClick=${() => go("/console/modes")}>${t("close")}</button>`}><${Problem} error=${error} retry=${reload} />
    ${data && html`<p><${Badge} value=${data.state} /> ${data.place} · ${data.reason} · <${Time} value=${data.since} /> – <${Time} value=${data.ended || data.until} />${data.drill && ` · ${t("drill")}`}</p>
      ${data.steps.length ? html`<${Table} rows=${data.steps} columns=${[{ name: "step" }, { name: "target" }, { name: "at", label: t("column.time"), show: (value) => html`<${Time} value=${value} />` }, { name: "count", numeric: true, label: t("column.records") }, { name: "problem" }]} />` : html`<${Empty} text=${t("noSteps")} />`}`}<//>`;
}
