// Video: cameras by state, counts and flows by class, line and hour. Nothing personal is stored, so nothing personal is shown.
import { html } from "./preact.js";
import { Badge, Card, Empty, Link, Loading, Problem, Property, Quality, Time, device, emptyHere, number, query, searchValues, t, unitText, useLoad } from "./lib.js";
import { Table } from "./more.js";

const COUNTS = "vehicle_count,vehicle_count_total,people_count,people_count_total,traffic_flow,vehicle_speed,road_occupancy,motion_count";
const deviceLink = (value) => value && html`<${Link} to=${device(value)}>${value}<//>`;
const time = (value) => (value ? html`<${Time} value=${value} />` : "–");
const list = (value) => value.join(", ") || "–";
const yes = (value) => (value ? t("yes") : "");
const SUBSCRIPTION_STATES = ["active", "cancelled", "expired"];
// Parts of the answer of /api/v1/viid -> their columns.
const VIID = {
  registrations: [{ name: "device", show: deviceLink }, { name: "address" }, { name: "since", show: time }, { name: "last", show: time }, { name: "requests", numeric: true, show: (value) => number(value) }, { name: "objects", numeric: true, show: (value) => number(value) }, { name: "clock_behind_s", numeric: true, show: (value) => (value === null ? "–" : number(value, 2)) }],
  superiors: [{ name: "name" }, { name: "server_id" }, { name: "registered", show: yes }, { name: "problem" }],
  subscriptions: [{ name: "superior" }, { name: "kinds", show: list }, { name: "resources", show: list }, { name: "state", show: (_, row) => html`<${Badge} value=${SUBSCRIPTION_STATES[row.status]} />` }, { name: "until", show: time }, { name: "objects", numeric: true, show: (value) => number(value) }, { name: "notifications", numeric: true, show: (value) => number(value) }],
  subordinates: [{ name: "device", show: deviceLink }, { name: "subscription" }, { name: "state", show: (_, row) => html`<${Badge} value=${row.cancelled ? "cancelled" : row.in_force ? "active" : "pending"} />` }, { name: "problem" }],
};
const feed = () => searchValues().feed || "all";

export function Video() {
  const viid = useLoad("/api/v1/viid", 15);
  const latest = useLoad(`/api/v1/feeds/${encodeURIComponent(feed())}/latest${query({ property: COUNTS, limit: 200 })}`, 5);
  const hours = useLoad(`/api/v1/feeds/${encodeURIComponent(feed())}/aggregate${query({ property: "vehicle_count,people_count,motion_count", window: "1h", from: "24h", functions: "sum,count", by: "property", gaps: "omit" })}`, 60);
  const survey = useLoad("/api/v1/survey?limit=1000", 30);
  const cameras = (survey.data?.rows || []).filter((row) => row.domain === "video" || row.domain === "camera");
  const totals = { active: 0, silent: 0, never_heard: 0, disabled: 0 };
  for (const row of cameras) for (const state of Object.keys(totals)) totals[state] += row[state];
  const rows = latest.data?.records || [];
  return html`<div class="headline"><h1>${t("page.video")}</h1></div><p class="quiet">${t("videoHelp")}</p>
    <${Card} title=${t("cameras")}>${survey.error ? html`<${Problem} error=${survey.error} />` : !survey.data ? html`<${Loading} />` : cameras.length ? html`<div class="flow">${Object.entries(totals).map(([state, count]) => html`<${Link} key=${state} to=${`/console/devices${query({ domain: cameras[0].domain, state: state === "never_heard" ? "registered" : state })}`}><span class="quiet">${t(`state.${state === "never_heard" ? "registered" : state}`)}</span><strong>${number(count)}</strong><//>`)}</div>` : html`<${Empty} text=${emptyHere(t("noCameras"), (node) => t("devicesOfAllKinds", number(node.devices)))} />`}<//>
    <${Card} title=${`${t("countsNow")}: ${t("byClassAndLine")}`}><${Problem} error=${latest.error} retry=${latest.reload} />${rows.length ? html`<${Table} rows=${rows} columns=${[{ name: "device", show: deviceLink }, { name: "property", show: (value) => html`<${Property} name=${value} />` }, { name: "channel", label: t("line") }, { name: "value", numeric: true, show: (value) => number(value) }, { name: "unit", show: unitText }, { name: "time", show: (value) => html`<${Time} value=${value} />` }, { name: "quality", show: (value) => html`<${Quality} value=${value} />` }]} />` : latest.data && html`<${Empty} text=${t("noCounts")} />`}<//>
    <${Card} title=${t("countsByHour")}>${hours.error ? (hours.error.status === 404 ? html`<${Empty} text=${t("historyOff")} />` : html`<${Problem} error=${hours.error} />`) : (hours.data?.rows || []).length ? html`<${Table} rows=${hours.data.rows} columns=${[{ name: "window", label: t("hourWord"), show: (value, row) => html`<${Time} value=${value || row.start || row.time} />` }, { name: "property", show: (value) => html`<${Property} name=${value} />` }, { name: "sum", numeric: true, label: t("sum"), show: (value) => number(value) }, { name: "count", numeric: true, label: t("column.messages"), show: (value) => number(value) }]} />` : hours.data && html`<${Empty} text=${t("noCounts")} />`}<//>
    ${Object.entries(VIID).filter(([name]) => viid.data?.[name]?.length).map(([name, columns]) => html`<${Card} key=${name} title=${t(`viid.${name}`)}><${Table} rows=${viid.data[name].slice(0, 200)} columns=${columns} /><//>`)}`;
}
