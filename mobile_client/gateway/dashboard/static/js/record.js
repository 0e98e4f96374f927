// The dialog with the full record of one request: every entry of the ledger, both sides.

import { announce } from "./announce.js";
import { call } from "./api.js";
import { byId, el, replace } from "./dom.js";
import { timeOfDay, title, words } from "./format.js";

const HEADINGS = ["attempt_id", "side", "request_id", "ordinal", "tier"];
let latest = 0;

/** Set up the dialog. */
export function start() {
  byId("record-close").addEventListener("click", () => byId("record").close());
}

/** Read the entries of a request and show them. */
export async function openRecord(requestId) {
  const number = (latest += 1);
  const body = byId("record-body");
  replace(body, el("p", { class: "muted" }, "Reading the ledger …"));
  if (!byId("record").open) byId("record").showModal();
  let content;
  try {
    content = view(requestId, await call(`/dashboard/api/requests/${encodeURIComponent(requestId)}`));
  } catch (error) {
    content = [
      el("p", { class: "error", role: "alert" }, error.message),
      error.status === 404
        ? el("p", { class: "muted" }, "A new request reaches the ledger within a second or two.")
        : null,
      retryButton(requestId),
    ];
  }
  if (number === latest) replace(body, content);
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
