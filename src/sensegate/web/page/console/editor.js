// Editor of a profile: text with findings at line and column, help of the schema, one message tried, examples, comparison over recorded traffic, and the steps up to the release.
import { html, useEffect, useMemo, useRef, useState } from "./preact.js";
import { Badge, Card, Empty, Link, Loading, Problem, call, draftKey, editorOf, profile, searchValues, t, useDialog, useLoad } from "./lib.js";
import { CanaryFigures, Comparison } from "./comparison.js";
import "./editor.texts.js";

const base = (name) => `/api/v1/profiles/${name.split("/").map(encodeURIComponent).join("/")}`;
export function Editor({ me }) {
  const values = searchValues();
  const name = values.profile || "";
  const [dialog, show] = useDialog();
  const [text, setText] = useState(sessionStorage.getItem(draftKey(name)) ?? null);
  const [files, setFiles] = useState({});
  const [error, setError] = useState(null);
  const [notice, setNotice] = useState("");
  const [compared, setCompared] = useState(null);
  const area = useRef(null);
  const facts = useLoad(name && base(name), 0), versions = useLoad(name && `${base(name)}/versions?limit=200`, 5), life = useLoad(name && `${base(name)}/history`, 2);
  const highest = Math.max(facts.data?.version || 0, facts.data?.folder || 0, ...(versions.data?.rows || []).map((row) => row.version));
  const begin = async () => {
    try {
      const wanted = Number(values.version) || facts.data.version;
      const read = await call("GET", `${base(name)}/versions/${wanted}`);
      setFiles(read.files);
      const isDraft = read.version.state === "draft";
      setText(isDraft ? read.text : read.text.replace(/^version:.*$/m, `version: ${highest + 1}`));
    } catch (why) { setError(why); setText(""); }
  };
  useEffect(() => {
    if (text !== null) return;
    if (!name || (facts.error && versions.data?.rows?.length === 0)) setText("");
    else if (facts.data && versions.data) begin();
  }, [facts.data, facts.error, versions.data]);
  const change = (next) => { setText(next); setNotice(""); if (name) sessionStorage.setItem(draftKey(name), next); };
  const lint = useLint(text, files);
  const stored = (versions.data?.rows || []).find((row) => row.version === lint.data?.version);
  const act = async (work) => {
    setError(null);
    try { await work(); } catch (why) { setError(why); }
    versions.reload(); life.reload();
  };
  const save = () => act(async () => {
    const target = lint.data.profile;
    const made = await call("POST", `${base(target)}/versions`, { text, files });
    sessionStorage.removeItem(draftKey(target));
    setNotice(t("draftSaved", made.version.version));
    if (target !== name) history.replaceState({}, "", editorOf(target));
  });
  const accept = () => act(async () => {
    const { text: accepted, labels } = await call("POST", "/api/v1/profiles/accept", { text, files });
    change(accepted);
    setNotice(labels.length ? t("acceptedExamples", labels.join(", ")) : t("nothingToAccept"));
  });
  const compare = () => act(async () => {
    const job = await call("POST", `${base(name)}/diff?since=${values.since || "24h"}`, { a: 0, text, files });
    setCompared(job.id);
  });
  const step = (title, consequence, path, body, fields = [], danger = false) => show({ title, consequence, action: title, fields, danger, submit: async (form) => {
    const sent = { ...body };
    for (const [key, value] of Object.entries(form)) {
      if (value === "") continue;
      sent[key] = key === "share" ? Number(value) : key === "devices" ? value.split(/[\s,;]+/).filter(Boolean) : value;
    }
    if (sent.devices) delete sent.share;
    await call("POST", `${base(name)}${path}`, sent);
    versions.reload(); life.reload(); facts.reload();
  } });
  const note = { name: "note", label: t("column.note") };
  const errors = (lint.data?.findings || []).filter((finding) => finding.severity === "error").length;
  const at = stored ? `/versions/${stored.version}` : "";
  const canary = life.data?.canary;
  const next = !stored || stored.state === "draft" && compared === null ? (stored ? "compare" : "save") : stored.state === "draft" ? "propose" : stored.state === "proposed" ? (canary ? "release" : "canary") : "redecode";
  const kind = (name) => (name === next ? "primary" : "");
  if (text === null) return html`<h1>${t("editorOf", name)}</h1><${Problem} error=${error} /><${Loading} />`;
  return html`${dialog}<div class="headline"><h1>${t("editorOf", lint.data?.profile || name || t("newProfile"))}</h1>
      ${lint.data?.version > 0 && html`<span class="badge">v${lint.data.version}</span>`}${stored && html`<${Badge} value=${stored.state} />`}<span class="space"></span>
      ${name && html`<${Link} to=${profile(name)}>${t("allVersions")}<//>`}</div>
    <ol class="steps">
      <li><button type="button" class=${kind("save")} onClick=${save} disabled=${!lint.data?.profile || errors > 0 || (stored && stored.state !== "draft")}>${t("saveDraft")}</button></li>
      <li><button type="button" class=${kind("compare")} onClick=${compare} disabled=${!facts.data || errors > 0}>${t("compareRecorded")}</button></li>
      <li><button type="button" class=${kind("propose")} disabled=${stored?.state !== "draft"} onClick=${() => step(t("propose"), t("proposeHelp"), `${at}/propose`, {}, [note])}>${t("propose")}</button></li>
      <li><button type="button" class=${kind("canary")} disabled=${stored?.state !== "proposed" || Boolean(canary)} onClick=${() => step(t("canary"), t("canaryHelp"), `${at}/canary`, { target: me.scope }, [{ name: "devices", label: t("canaryDevices"), value: values.device || "" }, { name: "share", label: t("canaryShare"), value: "0.1" }, note])}>${t("canary")}</button></li>
      <li><button type="button" class=${kind("release")} disabled=${stored?.state !== "proposed"} onClick=${() => step(t("release"), t("releaseHelp"), `${at}/release`, { target: me.scope }, [note])}>${t("release")}</button></li>
      <li><button type="button" class=${kind("redecode")} disabled=${!(stored?.in_force || []).length} onClick=${() => step(t("redecode"), t("redecodeHelp"), "/redecode?since=24h", { selection: "both" }, [note])}>${t("redecode")}</button></li>
    </ol>
    ${notice && html`<p class="notice" role="status">${notice}</p>`}<${Problem} error=${error} />
    <div class="workbench">
      <${Card} title=${t("textOf")} actions=${html`<button type="button" onClick=${accept} disabled=${errors > 0 && !(lint.data?.findings || []).every((finding) => /^examples(\[\d+\])?$/.test(finding.key) || finding.severity !== "error")}>${t("acceptSeen")}</button>`}>
        <${TextArea} area=${area} text=${text} change=${change} findings=${lint.data?.findings || []} />
        <${Findings} lint=${lint} area=${area} text=${text} /><//>
      <div class="side"><${Trial} text=${text} files=${files} />
        <${SchemaHelp} area=${area} text=${text} change=${change} /></div>
    </div>
    ${compared && html`<${Comparison} name=${name} job=${compared} />`}
    ${canary && html`<${Card} title=${t("canaryOf", canary.version)} actions=${html`<button type="button" onClick=${() => show({ title: t("endCanary"), consequence: t("endCanaryHelp"), action: t("endCanary"), submit: async () => { await call("DELETE", `${base(name)}/canary`); life.reload(); } })}>${t("endCanary")}</button>`}><${CanaryFigures} canary=${canary} /><//>`}`;
}

// Checks a text half a second after the last key.
function useLint(text, files) {
  const [state, set] = useState({ data: null, error: null });
  useEffect(() => {
    if (text === null || text === "") return undefined;
    let ended = false;
    const timer = setTimeout(async () => {
      try {
        const data = await call("POST", "/api/v1/profiles/lint", { text, files });
        if (!ended) set({ data, error: null });
      } catch (error) { if (!ended) set((before) => ({ ...before, error })); }
    }, 400);
    return () => { ended = true; clearTimeout(timer); };
  }, [text, files]);
  return state;
}

function TextArea({ area, text, change, findings }) {
  const gutter = useRef(null);
  const marks = useMemo(() => {
    const worst = new Map();
    for (const finding of findings) if (!worst.has(finding.line) || finding.severity === "error") worst.set(finding.line, finding);
    return worst;
  }, [findings]);
  // Tab indents, except after Escape: it leaves then, as it does elsewhere.
  const isLeaving = useRef(false);
  const indent = (event) => {
    const leaves = isLeaving.current;
    isLeaving.current = event.key === "Escape";
    if (event.key !== "Tab" || event.shiftKey || leaves) return;
    event.preventDefault();
    event.target.setRangeText("  ", event.target.selectionStart, event.target.selectionEnd, "end");
    change(event.target.value);
  };
  return html`<div class="code"><div class="gutter" ref=${gutter} aria-hidden="true">${text.split("\n").map((_, index) => {
    const mark = marks.get(index + 1);
    return html`<div key=${index} class=${mark ? mark.severity : ""} title=${mark ? mark.problem : ""}>${index + 1}</div>`;
  })}</div><textarea id="profileText" ref=${area} aria-label=${t("textOf")} aria-describedby="tabHelp" wrap="off" spellcheck="false" value=${text} onKeyDown=${indent} onScroll=${(event) => { gutter.current.scrollTop = event.target.scrollTop; }} onInput=${(event) => change(event.target.value)}></textarea></div><small id="tabHelp">${t("tabHelp")}</small>`;
}
function Findings({ lint, area, text }) {
  const goTo = ({ line, column, length }) => {
    const start = text.split("\n").slice(0, Math.max(line - 1, 0)).reduce((sum, row) => sum + row.length + 1, 0) + Math.max(column - 1, 0);
    area.current.focus();
    area.current.setSelectionRange(start, start + length);
    area.current.scrollTop = Math.max(0, (line - 6) * 19);
  };
  const findings = lint.data?.findings || [];
  return html`<${Problem} error=${lint.error} />${lint.data && (findings.length ? html`<ul class="findings" aria-live="polite">${findings.map((finding, index) => html`<li key=${index} class=${finding.severity}>
      <button type="button" class="plain" onClick=${() => goTo(finding)}><span class="place">${finding.line}:${finding.column}</span> <strong>${finding.key}</strong> ${finding.problem}${finding.remedy ? `; ${finding.remedy}` : ""}</button></li>`)}</ul>`
    : html`<p class="fine" role="status">${t("noFindings")}</p>`)}`;
}

// "rules of acme/th10": the word is translated, the name stays.
function stageName(stage) {
  const [word, name] = stage.split(" of ");
  return `${t(`stage.${word.replaceAll(" ", "_")}`)}${name ? `: ${name}` : ""}`;
}
const ENCODINGS = ["text", "hex", "base64"];
function Trial({ text, files }) {
  const values = searchValues();
  const given = values.payload || "";
  const [tried, set] = useState({ topic: values.topic || "", device: values.device || "", payload: given.replace(/^base64:/, ""), encoding: given.startsWith("base64:") ? "base64" : "text" });
  const [state, setState] = useState({ stages: null, error: null });
  useEffect(() => {
    if (!text || !tried.payload) return undefined;
    let ended = false;
    const timer = setTimeout(async () => {
      try {
        const { stages } = await call("POST", "/api/v1/profiles/try", { text, files, ...tried });
        if (!ended) setState({ stages, error: null });
      } catch (error) { if (!ended) setState({ stages: null, error }); }
    }, 500);
    return () => { ended = true; clearTimeout(timer); };
  }, [text, files, tried]);
  const field = (name) => (event) => set({ ...tried, [name]: event.target.value });
  return html`<${Card} title=${t("tryMessage")}>
    <div class="tools"><label class="filter grow">${t("column.topic")}<input name="topic" value=${tried.topic} onInput=${field("topic")} placeholder="acme/dev-1/up" /></label>
      <label class="filter">${t("column.device")}<input name="device" value=${tried.device} onInput=${field("device")} /></label>
      <label class="filter">${t("encoding")}<select value=${tried.encoding} onChange=${field("encoding")}>${ENCODINGS.map((word) => html`<option value=${word} selected=${word === tried.encoding}>${word}</option>`)}</select></label></div>
    <textarea name="payload" aria-label=${t("payload")} placeholder=${t("payload")} rows="5" spellcheck="false" value=${tried.payload} onInput=${field("payload")}></textarea>
    <${Problem} error=${state.error} />
    ${state.stages ? html`<ol class="stages">${state.stages.map((stage, index) => html`<li key=${index}><h3>${stageName(stage.stage)}</h3><pre>${stage.lines.join("\n")}</pre></li>`)}</ol>` : !state.error && html`<${Empty} text=${t("tryHelp")} />`}<//>`;
}

// The keys that may stand where the cursor is, from the schema: resolved along the indentation.
function pathAt(text, position) {
  const lines = text.slice(0, position).split("\n");
  const current = lines.length - 1;
  const whole = text.split("\n");
  const path = [];
  let depth = (whole[current] || "").search(/\S/);
  if (depth < 0) depth = lines[current].length;
  const bullet = /^(\s*)((?:- )+)/.exec(whole[current] || "");
  if (bullet) depth = bullet[0].length;
  for (let index = current - 1; index >= 0 && depth > 0; index -= 1) {
    const match = /^(\s*(?:- )*)([\w$]+):/.exec(whole[index]);
    if (!match || match[1].length >= depth) continue;
    depth = match[1].length;
    path.unshift(match[2]);
    if (match[1].includes("-")) depth = match[1].length;
  }
  const key = /^\s*(?:- )*([\w$]+):/.exec(whole[current] || "");
  return { path, key: key ? key[1] : "" };
}
function partOf(schema, node) {
  let part = node;
  while (part) {
    if (part.$ref) part = schema.$defs[part.$ref.split("/").at(-1)];
    else if (part.anyOf) part = part.anyOf.find((choice) => choice.$ref || choice.items || choice.properties) || part.anyOf[0];
    else if (part.items) part = part.items;
    else if (part.additionalProperties?.$ref) part = part.additionalProperties;
    else break;
  }
  return part || {};
}
function SchemaHelp({ area, text, change }) {
  const [shown, setShown] = useState(false);
  const [place, setPlace] = useState({ path: [], key: "" });
  const { data, error } = useLoad(shown && "/api/v1/profiles/schema");
  useEffect(() => {
    if (!shown || !area.current) return undefined;
    const field = area.current;
    const moved = () => setPlace(pathAt(field.value, field.selectionStart));
    moved();
    for (const kind of ["keyup", "click", "focus"]) field.addEventListener(kind, moved);
    return () => { for (const kind of ["keyup", "click", "focus"]) field.removeEventListener(kind, moved); };
  }, [shown, text]);
  let part = {};
  if (data) {
    part = partOf(data, data);
    for (const step of place.path) part = partOf(data, part.properties?.[step]) || {};
  }
  const insert = (key) => {
    const field = area.current;
    field.focus();
    field.setRangeText(`${key}: `, field.selectionStart, field.selectionEnd, "end");
    change(field.value);
  };
  const properties = Object.entries(part.properties || {});
  const at = place.key && part.properties?.[place.key];
  return html`<${Card} title=${t("schemaHelp")} actions=${html`<button type="button" aria-expanded=${shown} onClick=${() => setShown(!shown)}>${t(shown ? "hide" : "showKeys")}</button>`}>
    ${shown ? html`<${Problem} error=${error} />${data ? html`<p class="quiet">${place.path.join(" › ") || t("topLevel")}${part.description ? ` – ${part.description}` : ""}</p>
      ${at && html`<p><strong>${place.key}</strong> ${at.description || ""} ${(at.enum || []).filter(Boolean).slice(0, 400).join(", ")}</p>`}
      <dl class="keys">${properties.map(([key, value]) => html`<div key=${key}><dt><button type="button" class="plain" onClick=${() => insert(key)}><code>${key}</code></button>${(part.required || []).includes(key) ? " *" : ""}</dt><dd>${value.description || ""}</dd></div>`)}</dl>` : html`<${Loading} />`}` : html`<p class="quiet">${t("schemaHelpText")}</p>`}<//>`;
}
