"use strict";
// List of the operations in /openapi.json.

const CHINESE = (localStorage.getItem("language") || navigator.language).toLowerCase().startsWith("zh");
const WORDS = {
  how: ["Usage", "如何调用"], more: ["parameters, responses", "参数与响应"], gateway: ["gateway", "网关"], ingest: ["ingest", "数据推送"],
  devices: ["devices", "设备"], registry: ["registry", "登记信息"], profiles: ["profiles", "物模型"], tasks: ["tasks", "设备任务"],
  feeds: ["feeds", "数据流"], webhooks: ["webhooks", "推送回调"], catalogue: ["catalogue", "共享目录"], sharing: ["sharing", "数据共享"], accounting: ["accounting", "账本、质量、隔离区、审计"],
  nodes: ["nodes", "节点"], emergency: ["emergency", "应急指令"], video: ["video", "视频元数据"], people: ["people", "人员"], tokens: ["tokens", "令牌"],
};
function label(key) { return (WORDS[key] || [key, key])[Number(CHINESE)]; }

function summaryOf(text) {
  const line = make("span", undefined, "summary");
  text.split("`").forEach((part, at) => line.append(at % 2 ? make("code", part) : document.createTextNode(part)));
  return line;
}

function details(operation) {
  const box = make("details");
  box.append(make("summary", label("more")));
  const list = make("ul");
  for (const parameter of operation.parameters) {
    const line = make("li");
    line.append(make("code", parameter.name), document.createTextNode(` (${parameter.in}) ${parameter.description || ""}`));
    list.append(line);
  }
  for (const [status, response] of Object.entries(operation.responses)) {
    const line = make("li");
    line.append(make("code", status), document.createTextNode(` ${response.description}: ${Object.keys(response.content || {}).join(", ")}`));
    list.append(line);
  }
  box.append(list);
  return box;
}

async function start() {
  document.documentElement.lang = CHINESE ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("main [lang]")) element.hidden = element.lang !== document.documentElement.lang;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = label(element.dataset.t);
  const openapi = await (await fetch("/openapi.json")).json();
  document.getElementById("version").textContent = openapi.info.version;
  const sections = new Map();
  for (const [path, methods] of Object.entries(openapi.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!sections.has(tag)) {
        const section = make("section", undefined, "card");
        section.append(make("h2", label(tag)));
        document.getElementById("operations").append(section);
        sections.set(tag, section);
      }
      const line = make("div", undefined, "op");
      line.append(make("span", method.toUpperCase(), "method"), make("code", path), summaryOf(operation.summary));
      sections.get(tag).append(line, details(operation));
    }
  }
}
start();
