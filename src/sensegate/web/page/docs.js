"use strict";
// A plain list of the operations in /openapi.json.

function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function details(operation) {
  const box = make("details");
  box.append(make("summary", "parameters, answers"));
  const list = make("ul");
  for (const parameter of operation.parameters) {
    const line = make("li");
    line.append(make("code", parameter.name), document.createTextNode(` (${parameter.in}) ${parameter.description || ""}`));
    list.append(line);
  }
  for (const [status, answer] of Object.entries(operation.responses)) {
    const line = make("li");
    line.append(make("code", status), document.createTextNode(` ${answer.description}: ${Object.keys(answer.content || {}).join(", ")}`));
    list.append(line);
  }
  box.append(list);
  return box;
}

async function start() {
  const written = await (await fetch("/openapi.json")).json();
  document.getElementById("version").textContent = written.info.version;
  const sections = new Map();
  for (const [path, methods] of Object.entries(written.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!sections.has(tag)) {
        const section = make("section", undefined, "card");
        section.append(make("h2", tag));
        document.getElementById("operations").append(section);
        sections.set(tag, section);
      }
      const line = make("div", undefined, "op");
      line.append(make("span", method.toUpperCase(), "method"), make("code", path), make("span", operation.summary, "what"));
      sections.get(tag).append(line, details(operation));
    }
  }
}
start();
