// What several of the newer pages share: files that are fetched with the session's right, a plain table.
import { html } from "./preact.js";
import { CallError, number, session, t } from "./lib.js";
import "./more.texts.js";

// Saves an answer of the gateway as a file; a link could not send the token.
export async function download(path, accept, name) {
  const headers = { Accept: accept };
  if (session.token) headers.Authorization = `Bearer ${session.token}`;
  const response = await fetch(path, { headers, cache: "no-store" });
  if (!response.ok) throw new CallError(response.status, await response.json().catch(() => ({})));
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(await response.blob());
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 1_000);
}
// Draws rows with columns {name, label, numeric, show}; on a phone each row is a block of labelled lines, without the empty ones.
export function Table({ rows, columns, id }) {
  const shown = (column, row) => (column.show ? column.show(row[column.name], row) : row[column.name] || (row[column.name] === 0 ? 0 : "–"));
  const kind = (column, value) => (column.name === "actions" ? "actions" : `${column.numeric ? "number" : ""} ${NONE.has(value) ? "none" : ""}`);
  return html`<div class="scroll" tabindex="0"><table class="list" id=${id}><thead><tr>${columns.map((column) => html`<th key=${column.name} class=${column.name === "actions" ? "actions" : column.numeric ? "number" : ""}>${title(column)}</th>`)}</tr></thead><tbody>
    ${rows.map((row, index) => html`<tr key=${row.id ?? row.name ?? index}>${columns.map((column) => { const value = shown(column, row); return html`<td key=${column.name} class=${kind(column, value)} data-label=${title(column)}>${value}</td>`; })}</tr>`)}</tbody></table></div>`;
}
const NONE = new Set([undefined, null, "", false, "–"]);
const title = (column) => column.label || t(`column.${column.name}`);
const SIZES = ["B", "kB", "MB", "GB", "TB"];
export function bytes(value) {
  const power = Math.min(Math.floor(Math.log10(Math.max(value, 1)) / 3), SIZES.length - 1);
  return `${number(value / 1000 ** power, power ? 1 : 0)} ${SIZES[power]}`;
}
export const percent = (value) => (value === null || value === undefined ? "–" : `${(value * 100).toFixed(1)} %`);
