"use strict";
// The live ledger, fetched from /api/v1/ledger every two seconds. Texts of the gateway are never interpreted as HTML.

const TEXTS = {
  en: {
    docs: "API", console: "Console", sharing: "Sharing", signOut: "Sign out", entry: "Ledger of this gateway",
    entryHelp: "Enter a token with a role that may read the ledger (operator, auditor, admin); the initial one is in admin.token in the gateway's directory. The token is stored in this tab only.",
    signIn: "Sign in", name: "Name", password: "Password", newPassword: "New password", provider: "Single sign-on",
    token: "Token", show: "Show the ledger", rate: "Messages per second", delivered: "Delivered to subscribers",
    ready: "Gateway", since: "Time range", h1: "this and the previous hour", h6: "6 hours", h24: "24 hours", h48: "48 hours",
    conservation: "Accounting of all data", byNode: "By node", byDivision: "By division", byDevice: "By device",
    byHour: "By hour", none: "No data in this time range.", reasons: "Duplicates, rejections, quarantine", nodes: "Nodes", cameras: "Cameras",
    balanced: "Balanced: all data is accounted for", unbalanced: "Not balanced: data is missing",
    waiting: "Waiting for the gateway…", isReady: "ready", notReady: "not ready", centre: "Centre", node: "Node",
    messages: "Messages received", values: "Values decoded", accepted: "Readings stored",
    decoded: "decoded", quarantined: "quarantined", stored: "stored", duplicates: "duplicates", suppressed: "suppressed",
    rejected: "rejected", downsampled: "downsampled", forwarded: "forwarded", withheld: "withheld", refused_by_centre: "refused by the centre", pending: "pending", updated: "Counted since {0} · updated {1}",
    refused: "This token may not read the ledger.", lag: "lag", state: "state", lastCommit: "last commit",
    division: "division", device: "device", hour: "hour", camera: "camera", deviceName: "name", profile: "profile", clockLag: "clock lag (s)", active: "active", up: "up", silent: "silent", never: "never seen", nothing: "none",
    conflict: "stored, of these conflicts", late: "stored, of these late", not_deduplicated: "stored, of these older than the horizon", redelivered: "stored, of these sent again by the device", ignored: "declared as missing",
  },
  "zh-CN": {
    docs: "接口", console: "控制台", sharing: "数据共享", signOut: "退出登录", entry: "本网关的数据账本",
    entryHelp: "请输入有权查看账本的令牌（管理员、审计员或各级操作员）；首个令牌在网关目录的 admin.token 中。令牌只保存在本标签页。",
    signIn: "登录", name: "用户名", password: "密码", newPassword: "新密码", provider: "通过统一身份认证登录",
    token: "令牌", show: "查看账本", rate: "每秒消息数", delivered: "已交付订阅方",
    ready: "网关状态", since: "时间范围", h1: "本小时和上一小时", h6: "6 小时", h24: "24 小时", h48: "48 小时",
    conservation: "数据去向", byNode: "按节点", byDivision: "按区划", byDevice: "按设备",
    byHour: "按小时", none: "该时间范围内暂无数据。", reasons: "重复、拒收与隔离", nodes: "节点", cameras: "摄像机",
    balanced: "账目平衡：全部数据都有去向", unbalanced: "账目不平：有数据去向不明",
    waiting: "正在等待网关…", isReady: "就绪", notReady: "未就绪", centre: "中心", node: "节点",
    messages: "接收消息", values: "解析数值", accepted: "入库读数",
    decoded: "已解析", quarantined: "已隔离", stored: "已入库", duplicates: "重复", suppressed: "未变化抑制",
    rejected: "拒收", downsampled: "轨迹抽稀", forwarded: "已上报中心", withheld: "不上报", refused_by_centre: "中心拒收", pending: "待上报", updated: "自 {0} 起统计 · {1} 更新",
    refused: "该令牌无权查看账本。", lag: "积压", state: "状态", lastCommit: "最近提交",
    division: "区划", device: "设备", hour: "小时", camera: "摄像机", deviceName: "名称", profile: "物模型", clockLag: "时钟滞后（秒）", active: "在用", registered: "已登记", disabled: "已停用", retired: "已退役", up: "在线", silent: "静默", never: "从未上线", nothing: "无",
    conflict: "已入库，其中冲突", late: "已入库，其中迟到", not_deduplicated: "已入库，其中超出判重时限", redelivered: "已入库，其中设备重发", ignored: "声明为缺测",
    "withheld.grade": "不上报：级别过高", "withheld.scope": "不上报：范围之外", "withheld.mode": "应急期间暂不上报",
    "withheld.expired": "不上报：已过保存期", "withheld.skipped": "不上报：人工跳过", "refused_by_centre.area": "中心拒收：区划之外", "refused_by_centre.foreign_device": "中心拒收：他节点设备", "refused_by_centre.unreadable": "中心拒收：无法解码",
    "refused.connect": "代理拒绝：连接", "refused.publish": "代理拒绝：发布", "refused.subscribe": "代理拒绝：订阅",
    "duplicate.redelivery": "重复：重新投递", "duplicate.repeat": "重复：设备重发", "duplicate.cross_path": "重复：多路径",
    "duplicate.unchanged": "重复：未变化", "suppressed.unchanged": "抑制：未变化",
    "quarantined.malformed": "隔离：格式损坏", "quarantined.crc_fail": "隔离：校验不符", "quarantined.unknown_device": "隔离：未知设备",
    "quarantined.disabled_device": "隔离：设备已停用", "quarantined.foreign_topic": "隔离：陌生主题",
    "quarantined.no_profile": "隔离：无物模型", "quarantined.not_utf8": "隔离：编码错误", "quarantined.too_deep": "隔离：嵌套过深",
    "quarantined.too_large": "隔离：消息过大", "quarantined.schema": "隔离：结构不符", "quarantined.no_values": "隔离：没有数值",
    "quarantined.unresolved": "隔离：所引用的先前报文未收到",
    "quarantined.rate": "隔离：超出速率", "quarantined.crashed": "隔离：解析程序出错",
    "quarantined.damaged_batch": "隔离：接入批次损坏",
    "quarantined.script_refused": "隔离：厂家脚本拒绝", "quarantined.script_failed": "隔离：厂家脚本出错", "quarantined.script_limit": "隔离：厂家脚本超出限额",
    "quarantined.script_state": "隔离：厂家脚本跨帧留存数据", "quarantined.script_suspended": "隔离：厂家脚本暂停中",
    "rejected.not_finite": "拒收：非有限数", "rejected.wrong_type": "拒收：类型错误", "rejected.unknown_property": "拒收：未知属性",
    "rejected.unknown_unit": "拒收：未知单位", "rejected.dimension": "拒收：量纲不符", "rejected.enumeration": "拒收：枚举之外",
    "rejected.bad_time": "拒收：时间错误", "rejected.too_long": "拒收：过长", "rejected.flagged": "拒收：设备自标无效",
  },
};
const COLUMNS = ["messages", "quarantined", "values", "accepted", "duplicates", "suppressed", "rejected", "downsampled", "forwarded", "withheld"];
const INTERVAL_MS = 2000;
const state = { token: "", csrf: "", by: "node", language: "en", me: null, answer: null, nodes: [], cameras: [], ready: null, history: [], timer: 0 };

function fallbackText(kind) {
  const [head, ...rest] = kind.split("."), tail = rest.join(" · ");
  if (head === "refused") return `rejected by the broker: ${tail}`;
  const names = { duplicate: "duplicate", quarantined: "quarantined", rejected: "rejected", suppressed: "suppressed", withheld: "withheld", refused_by_centre: "refused by the centre", removed: state.language === "en" ? "removed" : "已去除" };
  return tail ? `${names[head] || head}: ${tail.replaceAll("_", " ")}` : head;
}
function number(value) { return new Intl.NumberFormat(state.language).format(value || 0); }
// A moment in the reader's own time, with its zone: ISO 8601, or milliseconds.
function local(moment) {
  if (!moment) return "–";
  const at = new Date(moment), clock = new Intl.DateTimeFormat(state.language, { dateStyle: "short", timeStyle: "medium", hourCycle: "h23" });
  const zone = new Intl.DateTimeFormat(state.language, { timeZoneName: "short" }).formatToParts(at).find((part) => part.type === "timeZoneName");
  return `${clock.format(at)} ${zone.value}`;
}

// What the gateway says about itself, in the language of the page; the table of the console is fetched once it is needed.
let translateSentence = null;
function sentence(text) {
  if (state.language === "en") return text;
  if (!translateSentence) {
    translateSentence = (same) => same;
    import("/static/console/sentences.js").then((file) => { translateSentence = file.inChinese; draw(); }, () => { translateSentence = null; });
  }
  return translateSentence(text);
}

async function ask(path) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : { "X-Background": "1" };
  const response = await fetch(path, { headers, cache: "no-store" });
  if (response.status === 401 || response.status === 403) throw Object.assign(new Error(), { refused: await response.json() });
  if (!response.ok && path !== "/readyz") throw new Error(String(response.status));
  return response.json();
}

async function refresh() {
  clearTimeout(state.timer);
  const since = byId("since").value;
  try {
    state.me = state.me || await ask("/api/v1/me");
    const [answer, ready] = await Promise.all([ask(`/api/v1/ledger?since=${since}&by=${state.by}&limit=500`), ask("/readyz")]);
    state.answer = answer;
    state.ready = ready;
    state.nodes = (await ask("/api/v1/nodes").catch(() => ({ rows: [] }))).rows;
    state.cameras = (await ask("/api/v1/devices?domain=video&limit=200").catch(() => ({ rows: [] }))).rows;
    recordRate(answer.totals.messages || 0, since);
    state.lost = false;
    show(true);
  } catch (why) {
    if (why.refused) return signOut(why.refused.detail || say("refused"));
    state.lost = true;
  }
  draw();
  state.timer = setTimeout(refresh, document.hidden ? 5 * INTERVAL_MS : INTERVAL_MS);
}

function recordRate(messages, since) {
  const last = state.history.at(-1);
  const now = performance.now();
  if (last && (last.since !== since || messages < last.messages)) state.history = [];
  state.history.push({ messages, at: now, since });
  state.history = state.history.slice(-61);
}
function rates() {
  const values = [];
  for (let index = 1; index < state.history.length; index += 1) {
    const [before, after] = [state.history[index - 1], state.history[index]];
    values.push((after.messages - before.messages) / Math.max((after.at - before.at) / 1000, 0.1));
  }
  return values;
}

function draw() {
  const answer = state.answer;
  if (state.me) byId("place").textContent = `${say(state.me.gateway_role)} ${state.me.gateway_division}`;
  const verdict = byId("verdict");
  const known = answer && !state.lost;
  verdict.className = `verdict ${known ? (answer.balanced ? "yes" : "no") : ""}`;
  verdict.textContent = say(known ? (answer.balanced ? "balanced" : "unbalanced") : "waiting");
  if (!answer) return;
  const speeds = rates();
  const recent = speeds.slice(-5);
  byId("rate").textContent = recent.length ? number(Math.round(recent.reduce((sum, value) => sum + value, 0) / recent.length)) : "–";
  const top = Math.max(...speeds, 1);
  byId("spark").firstElementChild.setAttribute("points", speeds.map((value, index) => `${index * 2},${26 - (value / top) * 24}`).join(" "));
  byId("delivered").textContent = number(answer.delivered);
  byId("ready").textContent = state.ready ? (state.ready.ready ? [say("isReady"), ...state.ready.warnings.map(sentence)].join("; ") : `${say("notReady")}: ${state.ready.reasons.map(sentence).join("; ")}`) : "–";
  bars(answer.totals);
  table(answer.rows);
  reasons(answer.totals, answer.refused || {});
  nodes();
  cameras();
  byId("stamp").textContent = say("updated").replace("{0}", local(answer.since)).replace("{1}", local(Date.now()));
}

function sumByKind(totals) {
  const sums = {};
  for (const [kind, count] of Object.entries(totals)) {
    const head = kind.split(".")[0];
    sums[head] = (sums[head] || 0) + count;
  }
  return sums;
}
function bars(totals) {
  const counts = sumByKind(totals);
  const accepted = counts.accepted || 0;
  const list = [
    ["messages", counts.messages, [["decoded", "good", counts.decoded], ["quarantined", "quar", counts.quarantined]]],
    ["values", counts.values, [["stored", "good", accepted], ["duplicates", "dup", counts.duplicate], ["suppressed", "sup", counts.suppressed], ["rejected", "rej", counts.rejected], ["downsampled", "sup", counts.downsampled]]],
  ];
  if (counts.forwarded || counts.withheld || counts.refused_by_centre) {
    const pending = Math.max(accepted - (counts.forwarded || 0) - (counts.withheld || 0) - (counts.refused_by_centre || 0), 0);
    list.push(["accepted", accepted, [["forwarded", "fwd", counts.forwarded], ["withheld", "sup", counts.withheld], ["refused_by_centre", "rej", counts.refused_by_centre], ["pending", "wait", pending]]]);
  }
  byId("bars").replaceChildren(...list.map(([name, total, parts]) => {
    const bar = make("div", undefined, "bar");
    const head = make("div");
    head.append(make("span", say(name)), make("strong", number(total)));
    const track = make("div", undefined, "track");
    const legend = make("div", undefined, "legend");
    for (const [part, kind, count] of parts) {
      if (count) {
        const piece = make("i", undefined, kind);
        piece.style.width = `${(100 * count) / Math.max(total || 0, 1)}%`;
        track.append(piece);
      }
      const entry = make("span");
      entry.append(make("i", undefined, kind), make("b", number(count)), document.createTextNode(` ${say(part)}`));
      legend.append(entry);
    }
    bar.append(head, track, legend);
    return bar;
  }));
}

// On a phone the name of its column stands beside a number.
function labelled(cell, column) {
  cell.dataset.label = say(column === "accepted" ? "stored" : column);
  return cell;
}
function table(rows) {
  const head = make("tr");
  head.append(...[state.by, ...COLUMNS].map((name) => make("th", say(name === "accepted" ? "stored" : name))));
  byId("rows").tHead.replaceChildren(head);
  byId("rows").tBodies[0].replaceChildren(...rows.map((row) => {
    const line = make("tr");
    const name = state.by === "hour" ? local(row.hour) : row[state.by] || "–";
    line.append(make("td", name), ...COLUMNS.map((column) => labelled(make("td", number(row[column]), row[column] ? "" : "zero"), column)));
    const rest = (row.messages || 0) - (row.decoded || 0) - (row.quarantined || 0);
    if (rest !== 0) line.children[1].className = "off";
    return line;
  }));
  byId("none").hidden = rows.length > 0;
}

function reasons(totals, refused) {
  const classes = { duplicate: "dup", quarantined: "quar", rejected: "rej", suppressed: "sup", withheld: "sup", refused_by_centre: "rej" };
  const extra = ["conflict", "late", "not_deduplicated", "redelivered", "ignored"];
  const kinds = Object.entries(totals).filter(([kind]) => kind.includes("."));
  const parts = Object.entries(totals).filter(([kind]) => extra.includes(kind));
  const denied = Object.entries(refused).map(([kind, count]) => [`refused.${kind}`, count]);
  const lines = [...kinds, ...parts, ...denied].map(([kind, count]) => {
    const line = make("tr");
    const cell = make("td");
    cell.append(make("i", undefined, classes[kind.split(".")[0]] || "wait"), document.createTextNode(TEXTS[state.language][kind] || say(kind)));
    line.append(cell, make("td", number(count)));
    return line;
  });
  if (!lines.length) { const line = make("tr"); line.append(make("td", say("nothing"))); lines.push(line); }
  byId("reasons").tBodies[0].replaceChildren(...lines);
}

function nodes() {
  const head = make("tr");
  head.append(...["node", "state", "lastCommit", "lag"].map((name) => make("th", say(name))));
  byId("nodes").tHead.replaceChildren(head);
  byId("nodes").tBodies[0].replaceChildren(...state.nodes.map((row) => {
    const line = make("tr");
    line.append(make("td", row.division), make("td", say(row.state), row.state === "up" ? "" : "off"), make("td", local(row.last_commit / 1000)), make("td", number(row.lag_entries)));
    return line;
  }));
}

function cameras() {
  byId("cameras").closest("section").hidden = !state.cameras.length;
  const head = make("tr");
  head.append(...["camera", "deviceName", "division", "profile", "state", "clockLag"].map((name) => make("th", say(name))));
  byId("cameras").tHead.replaceChildren(head);
  byId("cameras").tBodies[0].replaceChildren(...state.cameras.map((row) => {
    const line = make("tr");
    const lag = row.clock_lag_s === null || row.clock_lag_s === undefined ? "–" : row.clock_lag_s.toFixed(1);
    line.append(
      make("td", row.id), make("td", row.name || "–"), make("td", row.division), make("td", row.profile),
      make("td", say(row.state), row.state === "active" ? "" : "off"), make("td", lag, Math.abs(row.clock_lag_s) > 60 ? "off" : ""),
    );
    return line;
  }));
}

function show(inside) {
  byId("board").hidden = !inside;
  byId("entry").hidden = inside;
  byId("signOut").hidden = !inside;
}
function signOut(reason) {
  clearTimeout(state.timer);
  sessionStorage.removeItem("token");
  if (state.csrf) fetch("/api/v1/session", { method: "DELETE", headers: { "X-CSRF-Token": state.csrf } });
  Object.assign(state, { token: "", csrf: "", me: null, answer: null, history: [] });
  byId("place").textContent = "";
  byId("refusal").textContent = reason || "";
  show(false);
}

byId("person").addEventListener("submit", async (event) => {
  event.preventDefault();
  const newPassword = byId("newPassword").value;
  const body = { name: byId("name").value.trim(), password: byId("password").value, ...(newPassword ? { new_password: newPassword } : {}) };
  const response = await fetch("/api/v1/session", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const answer = await response.json();
  byId("signInProblem").textContent = response.ok ? "" : answer.detail;
  // The password is right but must be changed: it stays in its field, and a new one is requested beside it.
  const change = response.status === 403 || response.status === 400;
  for (const element of document.querySelectorAll("#newPassword, [for=newPassword]")) element.hidden = !change;
  if (!response.ok) return;
  byId("password").value = byId("newPassword").value = "";
  state.csrf = answer.csrf;
  refresh();
});
async function signIn() {
  const methods = await fetch("/api/v1/session/methods").then((response) => response.json()).catch(() => ({}));
  byId("person").hidden = !methods.password;
  byId("provider").hidden = !methods.provider;
  const response = methods.password ? await fetch("/api/v1/session") : null;
  if (!response || !response.ok) return show(false);
  state.csrf = (await response.json()).csrf;
  refresh();
}
byId("signOut").addEventListener("click", () => signOut(""));
byId("since").addEventListener("change", refresh);
// Input by the user keeps the session alive, which periodic requests do not.
let lastActivity = 0;
for (const kind of ["pointerdown", "keydown"]) {
  document.addEventListener(kind, () => {
    if (!state.csrf || Date.now() - lastActivity < 60000) return;
    lastActivity = Date.now();
    fetch("/api/v1/session", { cache: "no-store" });
  });
}
for (const tab of byId("tabs").children) {
  tab.setAttribute("aria-selected", String(tab.dataset.by === state.by));
  tab.addEventListener("click", () => {
    state.by = tab.dataset.by;
    for (const other of byId("tabs").children) other.setAttribute("aria-selected", String(other === tab));
    if (state.answer) state.answer.rows = [];
    refresh();
  });
}
initialise();
