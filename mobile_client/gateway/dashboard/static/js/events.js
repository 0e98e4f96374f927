// The list of what happened: links, tiers, alarms, fail-overs.

import { on } from "./bus.js";
import { byId, el } from "./dom.js";
import { timeOfDay, title, words } from "./format.js";

const KEPT = 30;
const PAUSE_MS = 1_000;

let failedOver = 0;
let waiting = false;

/** Set up the list. */
export function start() {
  on("happened", ({ sentence, bad }) => add(sentence, bad));
  on("request", (request) => {
    // an answered request may have an error too, such as offline
    if (request.state !== "answered") gather(`a request failed: ${words(request.error ?? request.state)}`);
    else if (request.reason === "fail_over") gather(`${title(request.tier)} answered in place of another tier`);
  });
}

/** Add the requests of a second as one event. */
function gather(sentence) {
  failedOver += 1;
  if (waiting) return;
  waiting = true;
  setTimeout(() => {
    add(failedOver === 1 ? capital(sentence) : `${capital(sentence)}; ${failedOver - 1} more in this second`, true);
    failedOver = 0;
    waiting = false;
  }, PAUSE_MS);
}

function add(sentence, bad) {
  const list = byId("events");
  list.prepend(
    el("li", { class: bad ? "bad" : "" }, el("time", {}, timeOfDay(Date.now() / 1000)), sentence),
  );
  while (list.children.length > KEPT) list.lastElementChild.remove();
  byId("no-events").hidden = true;
}

function capital(sentence) {
  return sentence[0].toUpperCase() + sentence.slice(1);
}
