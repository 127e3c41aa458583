"use strict";
// Catalogue, applications and grants. Texts of the gateway are never interpreted as HTML.

const TEXTS = {
  en: {
    ledger: "Ledger", docs: "API", entry: "Data sharing", token: "Token", show: "Show",
    entryHelp: "Enter the token of a subscriber or operator, or sign in on the ledger page. The token is stored in this tab only.",
    catalogue: "Catalogue", applications: "Applications", grants: "Grants", search: "Search, Chinese or English",
    send: "Send", cancel: "Cancel", close: "Close", apply: "Apply", approve: "Approve", refuse: "Refuse", withdraw: "Withdraw",
    revoke: "Revoke", renew: "Renew", statement: "Usage statement", none: "No entries.", readable: "You have access.",
    title: "Title", state: "State", sharing: "Sharing", grade: "Grade", department: "Department", code: "Code", source: "Source",
    update: "Update", quality: "Quality standard", usage: "Usage", conditions: "Conditions", legal_basis: "Legal basis",
    cadence: "Cadence", domain: "Domain", level: "Level", divisions: "Divisions", summary: "Summary", missing: "Missing",
    measured: "Measured / promised", columns: "Data items", sample: "Sample data", feed: "Feed", purpose: "Purpose",
    days: "Days", applicant: "Applicant", deadline: "Deadline", reason: "Reason", rate: "Records per second (0: unlimited)",
    volume: "Records per month (0: unlimited)", hashDevice: "Pseudonymise devices", dropPlace: "Remove positions",
    grid_m: "Position grid in metres (0: exact)", time_s: "Time resolution in seconds (0: exact)",
    expires: "Expires", used: "Used this month", done: "Done.", draft: "draft", published: "published", pending: "pending", approved: "approved",
    refused: "refused", withdrawn: "withdrawn", lapsed: "not decided in time", active: "active", waiting: "waiting", expired: "expired", revoked: "revoked",
    unconditional: "unconditional", conditional: "conditional", not_shared: "not shared", authenticity: "authenticity",
    accuracy: "accuracy", continuity: "continuity", completeness: "completeness",
  },
  "zh-CN": {
    ledger: "数据账本", docs: "接口", entry: "数据共享", token: "令牌", show: "进入",
    entryHelp: "请输入订阅方或操作员的令牌，或先在账本页登录。令牌只保存在本标签页。",
    catalogue: "共享目录", applications: "共享申请", grants: "授权", search: "搜索（中文或英文）",
    send: "提交", cancel: "取消", close: "关闭", apply: "申请", approve: "同意", refuse: "不同意", withdraw: "撤回",
    revoke: "撤销授权", renew: "续期", statement: "月度用量凭证", none: "暂无内容。", readable: "已获授权，可以读取。",
    title: "名称", state: "状态", sharing: "共享属性", grade: "级别", department: "责任部门", code: "目录代码", source: "数据源头",
    update: "更新机制", quality: "质量标准", usage: "使用方法", conditions: "共享条件", legal_basis: "法律依据",
    cadence: "更新周期", domain: "领域", level: "审批层级", divisions: "行政区划", summary: "摘要", missing: "尚缺",
    measured: "实测 / 承诺", columns: "信息项", sample: "样例数据", feed: "数据资源", purpose: "用途",
    days: "天数", applicant: "申请方", deadline: "答复期限", reason: "理由", rate: "每秒条数（0 为不限）",
    volume: "每月条数（0 为不限）", hashDevice: "设备标识假名化", dropPlace: "去除位置",
    grid_m: "位置网格（米，0 为原样）", time_s: "时间粒度（秒，0 为原样）",
    expires: "有效期至", used: "本月已用", done: "已完成。", draft: "草稿", published: "已发布", pending: "待审批", approved: "已同意",
    refused: "不同意", withdrawn: "已撤回", lapsed: "逾期未答复", active: "有效", waiting: "未生效", expired: "已到期", revoked: "已撤销",
    unconditional: "无条件共享", conditional: "有条件共享", not_shared: "不予共享", authenticity: "真实性",
    realtime: "实时", hourly: "每小时", daily: "每日", weekly: "每周", monthly: "每月", quarterly: "每季度", yearly: "每年", irregular: "不定期",
    accuracy: "准确性", continuity: "连续性", completeness: "完整性",
  },
};
const DELIVERIES = ["http", "sse", "ws", "mqtt", "webhook", "nats"];
const INDICATORS = ["authenticity", "accuracy", "continuity", "completeness"];
const FACTS = ["summary", "department", "source", "update", "quality", "usage", "sharing", "conditions", "legal_basis", "grade", "cadence", "domain", "level", "divisions"];
const state = { token: "", csrf: "", language: "en", me: null, tab: "catalogue", entries: [], entry: null, applications: [], grants: [] };

function fallbackText(key) { return key; }
function local(iso) { return iso ? new Date(iso).toLocaleString(state.language, { hour12: false }) : ""; }
function title(entry) { return (state.language === "en" ? entry.title_en || entry.title : entry.title || entry.title_en) || entry.feed; }
function notify(text, bad) { byId("status").textContent = text || ""; byId("status").className = bad ? "status bad" : "status"; }

async function ask(path, method = "GET", body = undefined, more = {}) {
  const headers = { ...(state.token ? { Authorization: `Bearer ${state.token}` } : {}), ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && state.csrf) headers["X-CSRF-Token"] = state.csrf;
  const response = await fetch(path, { method, headers, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body) });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error((answer && answer.detail) || String(response.status)), { status: response.status });
  return answer;
}

async function refresh() {
  try {
    state.me = state.me || await ask("/api/v1/me");
    const query = byId("query").value.trim();
    const [entries, applications, grants] = await Promise.all([
      ask(`/api/v1/catalogue?limit=500&q=${encodeURIComponent(query)}`), ask("/api/v1/applications?limit=500&sort=-created"), ask("/api/v1/grants?limit=500"),
    ]);
    Object.assign(state, { entries: entries.rows, applications: applications.rows, grants: grants.rows });
    byId("entry").hidden = true;
    byId("board").hidden = false;
    draw();
  } catch (why) {
    if (why.status === 401 || why.status === 403) return signOut(why.message);
    notify(why.message, true);
  }
}
function signOut(reason) {
  sessionStorage.removeItem("token");
  Object.assign(state, { token: "", csrf: "", me: null });
  byId("refusal").textContent = reason || "";
  byId("board").hidden = true;
  byId("entry").hidden = false;
}
async function perform(work) {
  try {
    await work();
    notify(say("done"));
  } catch (why) {
    notify(why.message, true);
  }
  await refresh();
}

// ── drawing ──────────────────────────────────────────────────────────────────────────────────────────

function draw() {
  if (state.me) byId("place").textContent = `${state.me.gateway_division} · ${state.me.name || state.me.id} (${state.me.scope})`;
  for (const tab of byId("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.tab === state.tab));
  for (const name of ["catalogue", "applications", "grants"]) byId(name).hidden = state.tab !== name;
  byId("detail").hidden = state.tab !== "catalogue" || !state.entry;
  grid("entries", ["title", "state", "sharing", "grade", "department", "code"], state.entries, (entry) => [
    open(entry), badge(entry.state), say(entry.sharing), String(entry.grade || ""), entry.department, entry.code,
  ]);
  grid("applicationRows", ["feed", "state", "applicant", "purpose", "days", "deadline", ""], state.applications, (application) => [
    application.feeds.join(", "), badge(application.state), application.applicant, application.purpose, String(application.days),
    application.state === "pending" ? `${local(application.deadline)} · ${application.level}` : application.reason, applicationActions(application),
  ]);
  grid("grantRows", ["feed", "state", "applicant", "expires", "used", ""], state.grants, (grant) => [
    grant.feed, badge(grant.state), grant.applicant, local(grant.expires), used(grant), grantActions(grant),
  ]);
  detail();
}
function badge(word) { return make("span", say(word), `state ${word}`); }
function button(key, work, name) {
  const element = make("button", say(key), name);
  element.type = "button";
  element.addEventListener("click", work);
  return element;
}
function grid(id, heads, rows, cells) {
  const table = byId(id);
  const head = make("tr");
  head.append(...heads.map((key) => make("th", key ? say(key) : "")));
  const lines = rows.map((row) => {
    const line = make("tr");
    line.append(...cells(row).map((cell) => { const td = make("td"); td.append(cell ?? ""); return td; }));
    return line;
  });
  if (!lines.length) { const line = make("tr"); const cell = make("td", say("none"), "quiet"); cell.colSpan = heads.length; line.append(cell); lines.push(line); }
  table.replaceChildren(head, ...lines);
}
function open(entry) {
  const element = button("title", async () => {
    try { state.entry = await ask(`/api/v1/catalogue/${entry.feed}`); draw(); byId("detail").scrollIntoView({ block: "nearest" }); } catch (why) { notify(why.message, true); }
  });
  element.textContent = title(entry);
  return element;
}
function used(grant) {
  const box = make("span");
  if (grant.volume) { const bar = make("progress"); bar.max = grant.volume; bar.value = grant.used; box.append(bar, " "); }
  box.append(new Intl.NumberFormat(state.language).format(grant.used) + (grant.volume ? ` / ${new Intl.NumberFormat(state.language).format(grant.volume)}` : ""));
  return box;
}
function detail() {
  const entry = state.entry;
  if (!entry) return;
  const facts = make("table", null, "facts");
  for (const key of FACTS) {
    const value = key === "sharing" || key === "cadence" ? say(entry[key] || "") : key === "summary" ? (state.language === "en" ? entry.summary_en || entry.summary : entry.summary || entry.summary_en) : entry[key];
    if (value === "" || value === null || (Array.isArray(value) && !value.length)) continue;
    const line = make("tr");
    line.append(make("td", say(key)), make("td", Array.isArray(value) ? value.join(", ") : String(value)));
    facts.append(line);
  }
  for (const key of INDICATORS.filter((name) => entry.measured[name] !== null || entry.promise[name] !== null)) {
    const line = make("tr");
    const both = [entry.measured[key], entry.promise[key]].map((value) => (value === null ? "–" : `${Math.round(value * 1000) / 10} %`)).join(" / ");
    line.append(make("td", `${say("measured")}: ${say(key)}`), make("td", both, entry.met[key] === false ? "off" : ""));
    facts.append(line);
  }
  for (const problem of entry.missing) {
    const line = make("tr");
    line.append(make("td", say("missing")), make("td", problem, "off"));
    facts.append(line);
  }
  const actions = make("div", null, "actions");
  if (entry.state === "published" && !entry.can_read) actions.append(button("apply", () => apply(entry), "primary"));
  if (entry.can_read) actions.append(make("span", say("readable"), "quiet"));
  actions.append(button("close", () => { state.entry = null; draw(); }));
  const parts = [make("h2", `${title(entry)} · ${entry.code || entry.feed}`), facts];
  if (entry.columns.length) parts.push(make("h2", say("columns")), make("p", entry.columns.map((column) => `${state.language === "en" ? column.label_en : column.label_zh} (${column.name}${column.unit ? `, ${column.unit}` : ""})`).join("; "), "quiet"));
  if (entry.sample.length) parts.push(make("h2", say("sample")), make("pre", entry.sample.map((row) => JSON.stringify(row)).join("\n")));
  byId("detail").replaceChildren(...parts, actions);
}
function applicationActions(application) {
  const box = make("div", null, "actions");
  if (!["pending", "lapsed"].includes(application.state) || !state.me) return box;
  const path = `/api/v1/applications/${application.id}`;
  const own = [application.by, application.subscriber].includes(state.me.id);
  if (own) box.append(button("withdraw", () => perform(() => ask(`${path}/withdraw`, "POST", {}))));
  if (["county_operator", "city_operator", "province_operator", "admin"].includes(state.me.role) && (application.level.startsWith(state.me.scope) || application.owner.startsWith(state.me.scope))) {
    box.append(button("approve", () => approve(application, path)), button("refuse", () => dialog("refuse", [["reason", "text"]], (values) => ask(`${path}/decision`, "POST", { approve: false, reason: values.reason }))));
  }
  return box;
}
function grantActions(grant) {
  const box = make("div", null, "actions");
  const path = `/api/v1/grants/${grant.id}`;
  box.append(button("statement", () => downloadStatement(grant)));
  if (grant.state === "active" || grant.state === "waiting") {
    box.append(
      button("renew", () => dialog("renew", [["days", "number", 365]], (values) => ask(`${path}/renew`, "POST", { days: values.days }))),
      button("revoke", () => dialog("revoke", [["reason", "text"]], (values) => ask(`${path}?reason=${encodeURIComponent(values.reason)}`, "DELETE"))),
    );
  }
  return box;
}
async function downloadStatement(grant) {
  try {
    const { month } = await ask(`/api/v1/grants/${grant.id}/usage`);
    const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
    const response = await fetch(`/api/v1/grants/${grant.id}/statements/${month}`, { headers, cache: "no-store" });
    // Byte for byte as signed.
    const link = make("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `statement-${grant.id}-${month}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (why) { notify(why.message, true); }
}

// ── dialogs ──────────────────────────────────────────────────────────────────────────────────────────

function apply(entry) {
  const fields = [["purpose", "text"], ["legal_basis", "text"], ["days", "number", 365], ...DELIVERIES.map((name) => [name, "checkbox", true])];
  dialog("apply", fields, (values) => ask("/api/v1/applications", "POST", {
    feeds: [entry.feed], purpose: values.purpose, legal_basis: values.legal_basis, days: values.days, deliveries: DELIVERIES.filter((name) => values[name]),
  }));
}
function approve(application, path) {
  const fields = [["reason", "text", "", true], ["days", "number", application.days], ["hashDevice", "checkbox"], ["dropPlace", "checkbox"], ["grid_m", "number", 0], ["time_s", "number", 0], ["rate", "number", application.rate], ["volume", "number", application.volume]];
  dialog("approve", fields, (values) => ask(`${path}/decision`, "POST", {
    approve: true, reason: values.reason, days: values.days, rate: values.rate, volume: Math.round(values.volume),
    mask: { drop: values.dropPlace ? ["place"] : [], hash: values.hashDevice ? ["device"] : [], grid_m: values.grid_m, time_s: Math.round(values.time_s) },
  }, { "If-Match": String(application.revision) }));
}
function dialog(key, fields, work) {
  byId("dialogTitle").textContent = say(key);
  const inputs = fields.map(([name, kind, value, optional]) => {
    const label = make("label", undefined, kind === "checkbox" ? "check" : "");
    const input = make("input");
    input.type = kind;
    input.name = name;
    if (kind === "checkbox") input.checked = Boolean(value);
    else { input.value = value ?? ""; input.required = !optional && kind === "text"; }
    if (kind === "number") { input.min = "0"; input.step = "any"; }
    if (kind === "checkbox") label.append(input, say(name)); else label.append(say(name), input);
    return label;
  });
  byId("fields").replaceChildren(...inputs);
  const box = byId("dialog");
  box.returnValue = "";
  box.onclose = () => {
    if (box.returnValue !== "ok") return;
    const values = {};
    for (const input of byId("fields").querySelectorAll("input")) values[input.name] = input.type === "checkbox" ? input.checked : input.type === "number" ? Number(input.value) : input.value.trim();
    perform(() => work(values));
  };
  box.showModal();
}

byId("search").addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
byId("cancel").addEventListener("click", () => byId("dialog").close());
for (const tab of byId("tabs").children) tab.addEventListener("click", () => { state.tab = tab.dataset.tab; notify(""); refresh(); });
async function signIn() {
  const response = await fetch("/api/v1/session").catch(() => null);
  if (!response || !response.ok) { byId("entry").hidden = false; return; }
  state.csrf = (await response.json()).csrf;
  refresh();
}
initialise();
