// The emulated links of the testbed: degrade or cut one, and restore it.

import { announce } from "../shared/announce.js";
import { call } from "./api.js";
import { emit, on } from "./bus.js";
import { byId, el, replace } from "./dom.js";
import { title } from "./format.js";
import { OUTAGES, isOutage, outageName } from "./outages.js";
import { refresh } from "./state.js";

let drawn = "";

/** Set up the list of links. */
export function start() {
  on("state", (state) => {
    if (!state.links) return;
    const links = JSON.stringify(state.links);
    if (links === drawn) return;
    drawn = links;
    const focused = document.activeElement?.dataset?.link;
    replace(byId("link-list"), state.links.length === 0 ? none() : state.links.map(row));
    if (focused) byId("link-list").querySelector(`[data-link="${CSS.escape(focused)}"]`)?.focus();
  });
}

function none() {
  return el(
    "p",
    { class: "empty" },
    "No links are known to this gateway. Start a testbed with emulated links: ",
    el("code", {}, "dimee up --link mobile-edge=4g --link mobile-cloud=4g"),
  );
}

function row(link) {
  const name = link.hop.split("-").map(title).join(" to ");
  const restored = link.spec === link.start_spec;
  return el(
    "div",
    { class: "link-row", role: "group", "aria-label": `Link ${name}` },
    el(
      "div",
      { class: "section-head" },
      el("b", {}, name),
      el(
        "span",
        { class: `badge ${isOutage(link) ? "bad" : "good"}`, "data-spec": link.hop },
        isOutage(link) ? outage(link) : (link.spec ?? "unknown"),
      ),
    ),
    link.problem ? el("p", { class: "error" }, link.problem) : null,
    el(
      "div",
      { class: "buttons" },
      (link.presets ?? []).map((spec) => button(link, spec, spec)),
    ),
    el(
      "div",
      { class: "buttons" },
      (link.outages ?? []).map((spec) => button(link, spec, OUTAGES[spec]?.[0] ?? spec, "danger")),
      button(link, null, `Restore ${link.start_spec ?? ""}`.trim(), restored ? "" : "primary"),
    ),
  );
}

/** Return an outage in the words of its button. */
function outage(link) {
  const effect = OUTAGES[link.outage]?.[1] ?? "no byte passes";
  return `${outageName(link)}, ${effect}`;
}

function button(link, spec, text, kind = "") {
  const made = el(
    "button",
    {
      type: "button",
      class: `button ${kind}`,
      "data-link": `${link.hop} ${spec ?? "restore"}`,
      "aria-pressed": spec === null ? null : String((link.outage ?? link.spec) === spec),
      title: OUTAGES[spec]?.[1],
    },
    text,
  );
  made.addEventListener("click", () => change(link.hop, spec));
  return made;
}

async function change(hop, spec) {
  const problem = byId("link-error");
  problem.hidden = true;
  try {
    const link = await call(`/dashboard/api/links/${encodeURIComponent(hop)}`, {
      method: "PUT",
      body: { spec },
    });
    const sentence = isOutage(link) ? `Link ${hop}: ${outage(link)}.` : `Link ${hop} is now ${link.spec}.`;
    emit("happened", { sentence, bad: isOutage(link) });
    announce(sentence);
    await refresh();
  } catch (error) {
    problem.textContent = `The link was not changed: ${error.message}`;
    problem.hidden = false;
  }
}
