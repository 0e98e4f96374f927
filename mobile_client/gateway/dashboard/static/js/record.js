// The dialog with the full record of one request: every entry of the ledger, both sides.

import { announce } from "../shared/announce.js";
import { call } from "./api.js";
import { byId, el, replace } from "./dom.js";
import { timeOfDay, title, words } from "./format.js";

const AGAIN_MS = 1_000;
const MOST_READS = 20;
const HEADINGS = ["attempt_id", "side", "request_id", "ordinal", "tier"];
let latest = 0;

/** Set up the dialog. */
export function start() {
  byId("record-close").addEventListener("click", () => byId("record").close());
}

/** Read the entries of a request and show them; entries that the ledger lacks are awaited. */
export async function openRecord(requestId) {
  const number = (latest += 1);
  const body = byId("record-body");
  const shown = () => number === latest && byId("record").open;
  replace(body, el("p", { class: "muted" }, "Reading the ledger …"));
  if (!byId("record").open) byId("record").showModal();
  let drawn = "";
  for (let reads = 1; shown(); reads += 1) {
    let content = null;
    let complete = false;
    try {
      const record = await call(`/dashboard/api/requests/${encodeURIComponent(requestId)}`);
      complete = isComplete(record.entries);
      if (JSON.stringify(record) !== drawn) content = view(requestId, record);
      drawn = JSON.stringify(record);
    } catch (error) {
      complete = error.status !== 404;
      content = problem(requestId, error, complete || reads === MOST_READS);
    }
    if (shown() && content !== null) replace(body, content);
    if (complete || reads === MOST_READS) return;
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** Return true if both sides of every attempt are there; the mobile is its own tier. */
function isComplete(entries) {
  const sides = (side) => entries.filter((entry) => entry.side === side && entry.state !== "open");
  return sides("caller").some(({ final }) => final) && sides("tier").length >= sides("caller").filter(arrived).length;
}

function arrived(entry) {
  return entry.delivery === "arrived";
}

function problem(requestId, error, last) {
  if (!last) {
    return el("p", { class: "muted", role: "status" }, "The ledger does not have this request yet; reading again …");
  }
  return [el("p", { class: "error", role: "alert" }, error.message), retryButton(requestId)];
}

function retryButton(requestId) {
  const button = el("button", { type: "button", class: "button" }, "Read again");
  button.addEventListener("click", () => openRecord(requestId));
  return el("div", { class: "buttons" }, button);
}

function view(requestId, { entries, trace_id: traceId }) {
  const attempts = Map.groupBy
    ? Map.groupBy(entries, (entry) => entry.attempt_id)
    : grouped(entries);
  return [
    el(
      "dl",
      { class: "pairs record-ids" },
      identifier("Request id", requestId),
      identifier("Trace id", traceId),
    ),
    ...[...attempts.values()]
      .sort((one, other) => one[0].ordinal - other[0].ordinal)
      .map(attemptView),
    entries.length === 0 ? el("p", { class: "empty" }, "The ledger has no entry of this request.") : null,
  ];
}

function grouped(entries) {
  const attempts = new Map();
  for (const entry of entries) {
    attempts.set(entry.attempt_id, [...(attempts.get(entry.attempt_id) ?? []), entry]);
  }
  return attempts;
}

function identifier(name, value) {
  if (!value) return [el("dt", {}, name), el("dd", { class: "muted" }, "none: tracing is off")];
  const button = el("button", { type: "button", class: "button", "aria-label": `Copy the ${name}` }, "Copy");
  button.addEventListener("click", () => copy(name, value));
  return [
    el("dt", {}, name),
    el("dd", { class: "record-id" }, el("span", { class: "id" }, value), button),
  ];
}

async function copy(name, value) {
  try {
    await navigator.clipboard.writeText(value);
    announce(`${name} copied.`);
  } catch {
    // without HTTPS a browser offers no clipboard: the id can be selected
    announce(`${name} cannot be copied by this browser; select it instead.`);
  }
}

function attemptView(sides) {
  const first = sides[0];
  const columns = ["caller", "tier"].map((side) => sides.find((entry) => entry.side === side));
  const names = [...new Set(sides.flatMap(Object.keys))].filter((name) => !HEADINGS.includes(name));
  const rows = names
    .map((name) => [name, columns.map((entry) => cell(name, entry?.[name]))])
    .filter(([, cells]) => cells.some((text) => text !== ""));
  return el(
    "section",
    { class: "stack" },
    el(
      "h3",
      {},
      `${first.ordinal}. `,
      el("span", { class: `tier ${first.tier}` }, title(first.tier)),
      first.reason ? ` – ${words(first.reason)}` : "",
    ),
    el("p", { class: "small muted" }, "Attempt ", el("span", { class: "id" }, first.attempt_id)),
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `Entries of attempt ${first.ordinal}` },
      el(
        "table",
        { class: "record-table" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", { scope: "col" }, "Field"),
            el("th", { scope: "col" }, "Caller's entry"),
            el("th", { scope: "col" }, columns[1] ? "Tier's entry" : "Tier's entry (none yet)"),
          ),
        ),
        el(
          "tbody",
          {},
          rows.map(([name, cells]) =>
            el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((text) => el("td", {}, text))),
          ),
        ),
      ),
    ),
  );
}

function cell(name, value) {
  if (value === null || value === undefined || value === "") return "";
  if (name === "started_at") return timeOfDay(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
