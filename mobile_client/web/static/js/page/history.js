// The texts since the page was opened, newest first. They are in this page's memory only.

import { remarks, showFailure, showOutcome } from "./answer.js";
import { byId, el } from "./dom.js";
import { lambda, ms, timeOfDay } from "./format.js";

/** @import { Outcome } from "../client/request.js" */

const MOST = 50;

/** Add a request. @param {Outcome} outcome */
export function add(outcome) {
  const { answer, cost, pair, text, totalMs } = outcome;
  const summary = answer === null ? "no tier answered" : `${answer.label}, ${ms(totalMs)}, ${lambda(cost.lambda)}`;
  const open = el("button", { type: "button", class: "button" }, "Show");
  open.setAttribute("aria-label", `Show the answer of ${timeOfDay(outcome.startedAt)} again`);
  open.addEventListener("click", () => {
    if (answer === null) showFailure(outcome);
    else showOutcome(outcome);
    byId("result").scrollIntoView();
  });
  const list = byId("history");
  list.prepend(
    el(
      "li",
      { "data-request": outcome.requestId, "data-attempts": outcome.attempts.length },
      el("span", { class: "shown-text", dir: "auto" }, pair === null ? text : `${text} / ${pair}`),
      el(
        "span",
        { class: "small" },
        `${timeOfDay(outcome.startedAt)} `,
        answer === null ? null : el("span", { class: `tier ${answer.tier}` }, answer.tier),
        ` ${summary}${remarks(outcome).length > 0 ? `; ${remarks(outcome).join("; ")}` : ""}`,
      ),
      open,
    ),
  );
  while (list.children.length > MOST) list.lastElementChild?.remove();
  byId("no-history").hidden = true;
}
