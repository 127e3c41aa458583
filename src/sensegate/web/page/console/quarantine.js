// Quarantine as an inbox: grouped by reason, profile and pattern; each group leads to a draft or to a mended profile, and leaves when its messages are decoded again.
import { html, useState } from "./preact.js";
import { AtNodes, Badge, Card, Empty, Link, Loading, Problem, ProblemText, Property, Time, call, device, draftKey, editorOf, go, isCentre, number, query, replaceSearch, searchValues, t, useDialog, useLoad } from "./lib.js";
import { Table, download } from "./more.js";
import { sentence } from "./sentences.js";
import "./quarantine.texts.js";
import "./history.texts.js";

const SPANS = ["1h", "24h", "7d"];
const nameOf = (version) => version.split("@")[0];

export function Quarantine() {
  const values = searchValues();
  const since = values.since || "24h";
  const set = (changes) => replaceSearch({ ...values, ...changes });
  const groups = useLoad(`/api/v1/quarantine/groups${query({ since, reason: values.reason, device: values.device })}`, values.order ? 2 : 10);
  const ledger = useLoad(isCentre() ? `/api/v1/ledger${query({ since, limit: 500 })}` : "", 30);
  const atNode = Object.fromEntries((ledger.data?.rows || []).map((row) => [row.node, row.quarantined]));
  const rows = groups.data?.rows || [];
  const reasons = {};
  for (const row of rows) reasons[row.reason] = (reasons[row.reason] || 0) + row.messages;
  const chosen = rows.find((row) => row.id === values.group);
  return html`<div class="headline"><h1>${t("page.quarantine")}</h1>${groups.data && (!isCentre() || groups.data.messages > 0) && html`<span class=${`badge ${groups.data.messages ? "warn" : "good"}`}>${t("inQuarantine", number(groups.data.messages))}</span>`}<span class="space"></span>
      <div class="tabs">${SPANS.map((choice) => html`<button type="button" key=${choice} aria-pressed=${choice === since} onClick=${() => set({ since: choice, group: "" })}>${choice}</button>`)}</div></div>
    <${Problem} error=${groups.error} retry=${groups.reload} />
    <${Card} title=${t("inbox")} actions=${html`<label class="filter">${t("column.device")}<input value=${values.device || ""} onChange=${(event) => set({ device: event.target.value.trim(), group: "" })} /></label>`}>
      ${(Object.keys(reasons).length > 1 || values.reason) && html`<div class="tabs">${Object.entries(reasons).map(([reason, count]) => html`<button type="button" key=${reason} aria-pressed=${values.reason === reason} onClick=${() => set({ reason: values.reason === reason ? "" : reason, group: "" })}>${t(`reason.${reason}`)} ${number(count)}</button>`)}</div>`}
      ${!groups.data && groups.loading ? html`<${Loading} />` : rows.length ? html`<ul class="inbox">${rows.map((row) => html`<li key=${row.id} class=${row.id === values.group ? "open" : ""}>
        <button type="button" class="plain" aria-expanded=${row.id === values.group} onClick=${() => set({ group: row.id === values.group ? "" : row.id })}>
          <strong>${t(`reason.${row.reason}`)}</strong><span class="count">${number(row.messages)}</span><span>${row.pattern || t("noTopic")}</span><span class="quiet">${row.profile || t("noProfileYet")}</span><span class="quiet"><${Time} value=${row.last} /></span></button>
        ${row === chosen && html`<${Group} key=${row.id} row=${row} since=${since} ofDevice=${values.device || ""} reload=${groups.reload} />`}</li>`)}</ul>` : !groups.error && html`<${Empty} text=${t(isCentre() ? "inboxEmptyAtCentre" : "inboxEmpty")} />`}
      ${groups.data?.more && html`<p class="quiet">${t("moreQuarantined")}</p>`}
      ${ledger.data && html`<p><${AtNodes} figure=${(node) => t("inQuarantine", number(atNode[node.member] || 0))} /></p>`}<//>
    <${Reprocessing} names=${[...new Set(rows.map((row) => nameOf(row.profile)).filter(Boolean).concat(values.order ? [values.order] : []))]} />`;
}

// One group: what it is made of, and what to do next.
function Group({ row, since, ofDevice, reload }) {
  const [dialog, show] = useDialog();
  const [error, setError] = useState(null);
  // An empty profile is one too: that of messages which none claims.
  const alike = new URLSearchParams({ since, reason: row.reason, profile: row.profile, pattern: row.pattern, device: ofDevice, order: "desc", limit: 20 });
  const messages = useLoad(`/api/v1/quarantine?${alike}`, 30);
  const name = nameOf(row.profile);
  const values = { topic: row.topic, payload: row.payload.slice(0, 1_500), device: row.devices[0] || "", since };
  const [busy, setBusy] = useState(false);
  const draft = async () => {
    setError(null);
    setBusy(true);
    try {
      // Finding shapes takes seconds of a core at thousands of messages, so they are asked for only here.
      const { rows } = await call("GET", `/api/v1/profiles/unknown?since=${since}`), shape = rows.find((candidate) => candidate.topics.includes(row.topic));
      const made = await call("POST", `/api/v1/profiles/learn?since=${since}`, shape ? { shape: shape.id } : { topic: row.topic });
      setDraft(made);
    } catch (why) { setError(why); } finally { setBusy(false); }
  };
  const [made, setDraft] = useState(null);
  const open = (target, text) => {
    if (text) sessionStorage.setItem(draftKey(target), text);
    go(editorOf(target, values));
  };
  const redecode = () => show({
    title: t("redecodeGroup"), action: t("redecodeGroup"), consequence: t("redecodeGroupHelp", number(row.messages)), fields: [{ name: "profile", label: t("column.profile"), value: name, required: true }, { name: "note", label: t("column.note") }],
    submit: async ({ profile, note }) => {
      await call("POST", `/api/v1/profiles/${profile}/redecode?since=${since}`, { selection: "quarantine", note });
      replaceSearch({ ...searchValues(), order: profile });
      reload();
    },
  });
  return html`${dialog}<div class="group">
    <p>${sentence(row.detail)}</p><p class="quiet">${t("groupDevices", row.devices.length ? row.devices.join(", ") : "–")} · <${Time} value=${row.first} /> – <${Time} value=${row.last} /></p>
    <pre>${row.payload}</pre><${Problem} error=${error} />
    <div class="buttons start">
      ${name ? html`<button type="button" class="primary" onClick=${() => open(name)}>${t("fixProfile")}</button>` : html`<button type="button" class="primary" disabled=${busy} onClick=${draft}>${t("draft")}</button>`}
      ${name && html`<button type="button" disabled=${busy} onClick=${draft}>${t("draft")}</button>`}
      ${row.devices.length > 0 && html`<${Link} to=${device(row.devices[0])} class="button">${t("toDevice")}<//>`}
      ${name && html`<button type="button" onClick=${() => download(`/api/v1/profiles/${name}/pack${query({ since, reason: row.reason })}`, "application/zip", `${name.replace("/", "-")}.zip`).catch(setError)}>${t("makerPack")}</button>`}
      <button type="button" onClick=${redecode}>${t("redecodeGroup")}</button></div>
    ${made && html`<${Draft} made=${made} open=${open} />`}
    ${(messages.data?.rows || []).length > 1 && html`<details><summary class="quiet">${t("messages")}</summary><${Table} rows=${messages.data.rows} columns=${MESSAGE_COLUMNS} /></details>`}${messages.data?.searched_to && html`<p class="quiet">${t("searchedTo")} <${Time} value=${messages.data.searched_to} /></p>`}</div>`;
}
const MESSAGE_COLUMNS = [{ name: "received", show: (value) => html`<${Time} value=${value} />` }, { name: "topic" }, { name: "device", show: (value) => value && html`<${Link} to=${device(value)}>${value}<//>` }, { name: "detail", show: (value, message) => html`${sentence(value)}<pre>${message.payload}</pre>` }];
const GUESS_COLUMNS = [{ name: "field", show: (value) => html`<code>${value}</code>` }, { name: "property", show: (value) => value && html`<${Property} name=${value} />` }, { name: "unit", show: (value, guess) => (guess.isUnknown ? "" : `${value}${guess.scale === 1 ? "" : ` × ${guess.scale}`}`) }, { name: "guess", show: (_, guess) => (guess.isUnknown ? html`<${Badge} value="unrecognised" />` : guess.sure ? html`<span class="badge good">${t("sure")}</span>` : html`<span class="badge warn">${t("guessed")}</span>`) }, { name: "reason" }];
// A draft: each member of the messages with the property that it may be, and how sure that is.
function Draft({ made, open }) {
  return html`<div class="draft"><h3>${t("draftOf", made.profile)}</h3><p class="quiet">${t("draftHelp")}</p>${made.problem && html`<p class="problem"><${ProblemText} text=${made.problem} /></p>`}
    <${Table} rows=${[...made.recognised, ...made.unrecognised.map((guess) => ({ ...guess, isUnknown: true }))]} columns=${GUESS_COLUMNS} />
    <div class="buttons start"><button type="button" class="primary" onClick=${() => open(made.profile, made.text)}>${t("openInEditor")}</button></div></div>`;
}
// What was decoded again, until it is done.
function Reprocessing({ names }) {
  return names.map((name) => html`<${Orders} key=${name} name=${name} />`);
}
function Orders({ name }) {
  const { data } = useLoad(`/api/v1/profiles/${name}/redecode?limit=5&sort=-created`, 2);
  const rows = data?.rows || [];
  return rows.length > 0 && html`<${Card} title=${`${t("reprocessing")}: ${name}`}><ul class="needs">${rows.map((order) => html`<li key=${order.id} class=${order.state === "done" ? "fine" : ""}><div><${Badge} value=${order.state} /> ${number(order.share * 100, 0)} % · ${t("recoveredMessages", number(order.recovered), number(order.still_refused))} <${Time} value=${order.created} /> ${order.problem}</div></li>`)}</ul><//>`;
}
