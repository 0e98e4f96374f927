// Definitions of the words and figures of the page, and buttons that show them.

import { el } from "./dom.js";

/** Word → definition; those of a figure of `dimee explain` are in explanation.js. */
export const TERMS = {
  "λ":
    "Unit of cost: one layer of a 12-layer encoder on the edge costs 1 λ. Every price is given in it.",
  "γ": "Cloud fee: what the cloud charges for one text, in λ, besides the offload to it.",
  "α":
    "Exit threshold: an exit answers if its confidence, the largest softmax probability, is at least α.",
  "all-cloud": "What the same requests would have cost if the cloud had answered each of them.",
  queue: "Time that a request waited at the tier, in ms.",
  compute: "Time that the tier's layers ran, in ms.",
  network: "Round trip less the time that the tier reports, in ms.",
  "circuit breaker":
    "Stops requests to a server that fails repeatedly (open), then tries it with one request (half-open). Closed: requests pass.",
  outbox: "Entries on this machine's disk that the ledger does not have yet, and the age of the oldest.",
};

let count = 0;

/** Return a button with a word that shows its definition. */
export function term(name, shown = name) {
  count += 1;
  const id = `definition-${count}`;
  const definition = el("span", { id, class: "definition", popover: "auto" }, TERMS[name]);
  const button = el(
    "button",
    { type: "button", class: "term", popovertarget: id, "aria-label": `${shown}: show the definition` },
    shown,
  );
  definition.addEventListener("toggle", (event) => {
    if (event.newState === "open") place(definition, button.getBoundingClientRect());
  });
  return el("span", {}, button, definition);
}

function place(definition, at) {
  const size = definition.getBoundingClientRect();
  const left = Math.min(at.left, window.innerWidth - size.width - 16);
  const below = at.bottom + 6;
  const top = below + size.height > window.innerHeight ? at.top - size.height - 6 : below;
  definition.style.left = `${Math.max(16, left)}px`;
  definition.style.top = `${Math.max(16, top)}px`;
}
