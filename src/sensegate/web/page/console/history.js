// What a device sent last, live, and who changed a device or a profile.
import { html, useEffect, useState } from "./preact.js";
import { Badge, Card, Empty, Link, Loading, Problem, Time, Who, call, editorOf, localTime, may, number, query, t, useLoad } from "./lib.js";
import { sentence } from "./sentences.js";
import "./history.texts.js";

const SHOWN = 20, POLL_MS = 2_000;
const textOf = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

// The last messages as received; new ones are asked for while the page is seen.
export function Messages({ id, profile }) {
  const [rows, setRows] = useState(null);
  const [error, setError] = useState(null);
  const [isLive, live] = useState(true);
  useEffect(() => {
    if (!isLive) return undefined;
    let ended = false, timer = 0, after = "";
    const read = async () => {
      let more = false;
      if (!document.hidden) {
        try {
          const answer = await call("GET", `/api/v1/devices/${encodeURIComponent(id)}/messages${query({ after, limit: SHOWN })}`);
          if (ended) return;
          const known = after;
          ({ after, more } = answer);
          setRows((before) => [...answer.rows].reverse().concat(known ? before || [] : []).slice(0, SHOWN));
          setError(null);
        } catch (why) { if (ended) return; setError(why); }
      }
      timer = setTimeout(read, more ? 200 : POLL_MS);
    };
    read();
    return () => { ended = true; clearTimeout(timer); };
  }, [id, isLive]);
  return html`<${Card} title=${t("lastMessages")} actions=${html`<button type="button" aria-pressed=${isLive} onClick=${() => live(!isLive)}>${t(isLive ? "liveNow" : "liveOff")}</button>`}>
    ${error && html`<${Problem} error=${error} />`}
    ${!rows && !error ? html`<${Loading} />` : rows?.length ? html`<ul class="needs messages" tabindex="0">${rows.map((row) => html`<li key=${`${row.entry} ${row.received} ${row.topic} ${row.payload}`} class=${row.state === "decoded" ? "taken" : ""}><div><${Time} value=${row.received} /> <${Badge} value=${row.state} />${row.reason && html` <strong>${t(`reason.${row.reason}`)}</strong>`} <span class="quiet">${row.topic} · ${row.source} · ${t("bytesOf", number(row.bytes))}</span>${profile && html` <${Link} to=${editorOf(profile, { topic: row.topic, payload: row.payload.slice(0, 1_500), device: id })}>${t("everyStage")}<//>`}
      ${row.detail && html`<br /><span class="quiet">${sentence(row.detail)}</span>`}<pre>${row.payload}</pre></div></li>`)}</ul>` : !error && html`<${Empty} text=${t("noMessages")} />`}<//>`;
}
// Who changed it, when, and what: from the audit trail.
export function Changes({ path, target }) {
  const { data, error, reload } = useLoad(`${path}/changes?limit=20`, 30);
  return html`<${Card} title=${t("changesOf")} actions=${may("read_audit") && html`<${Link} to=${`/console/audit${query({ target })}`}>${t("page.audit")}<//>`}>${error ? html`<${Problem} error=${error} retry=${reload} />` : !data ? html`<${Loading} />` : data.rows.length ? html`<ul class="needs changes">${data.rows.map((row) => html`<li key=${row.number} class="taken"><div><strong>${t(`action.${row.action}`)}</strong> · <${Time} value=${row.time} /> · <${Who} id=${row.actor} /> <span class="quiet">${t(`role.${row.role}`)}</span> <span class="quiet">${row.target.includes("@") ? row.target : ""}</span>
      ${row.fields.length > 0 && html`<details><summary class="quiet">${t("fieldsChanged", number(row.fields.length))}</summary><ul>${row.fields.map((field) => html`<li key=${field.key}><code>${field.key}</code>: ${field.before !== null && html`<s>${textOf(field.before)}</s> → `}${textOf(field.after)}</li>`)}</ul></details>`}</div></li>`)}</ul>` : html`<${Empty} text=${t("noChanges")} />`}
    ${data && !data.complete && html`<p class="quiet">${t("changesSince", localTime(data.since))}</p>`}<//>`;
}
