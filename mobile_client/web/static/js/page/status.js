// What is known now: network, tiers, outbox, this device, and what is wrong.

import { WARNING_MS } from "../client/delivery.js";
import { announce } from "../../shared/announce.js";
import { button, byId, el, replace, terms } from "./dom.js";
import { counted, megabytes, number, timeOfDay, title } from "./format.js";

/** @import { MobileClient } from "../client/client.js" */

const REFRESH_MS = 2_000;
/** Changes within this time are shown together: reading the outbox must not delay an answer. */
const COLLECT_MS = 50;
/** @type {Record<string, string>} Badge of what is known of a tier; the words are those of the gateway's page. */
const BADGES = { ready: "good", unknown: "", failing: "bad", "not ready": "bad", unreachable: "bad" };

/** Set up the cards. @param {MobileClient} client */
export function start(client) {
  let planned = false;
  const show = () => {
    if (planned) return;
    planned = true;
    setTimeout(async () => {
      planned = false;
      await refresh(client);
    }, COLLECT_MS);
  };
  client.onChange(show);
  addEventListener("online", () => {
    announce("This device is online again.");
    show();
  });
  addEventListener("offline", () => {
    announce("This device is offline. It answers with its own layers.");
    show();
  });
  button("deliver").addEventListener("click", () => client.deliverNow());
  setInterval(() => {
    if (document.hidden) return;
    client.renewTiers();
    show();
  }, REFRESH_MS);
  show();
}

/** @param {MobileClient} client */
async function refresh(client) {
  showNetwork(client);
  showTiers(client);
  showDevice(client);
  const outbox = await client.outboxReport();
  showOutbox(client, outbox);
  showBanners(client, outbox);
}

/** @param {MobileClient} client */
function showNetwork(client) {
  const reached = client.tiers().some(({ readiness }) => readiness === "ready");
  const unreached = client.tiers().length > 0 && client.tiers().every(({ readiness }) => readiness === "unreachable");
  const offline = !navigator.onLine || unreached;
  byId("network").className = `badge ${offline ? "warning" : reached ? "good" : ""}`;
  byId("network").textContent = offline ? "Offline" : "Online";
}

/** @param {MobileClient} client */
function showTiers(client) {
  const { manifest } = client;
  byId("tiers-card").hidden = manifest === null;
  if (manifest === null) return;
  const own = /** @type {[Node, Node[]]} */ ([
    el("span", { class: "tier mobile" }, "Mobile"),
    [el("span", { class: "badge good" }, `this device, layers 1 to ${manifest.mobile_layers}`)],
  ]);
  const servers = client.tiers().map(({ tier, layers, readiness, breaker }) => {
    const rests = breaker === "open" ? "; gets no requests for a while" : "";
    return /** @type {[Node, Node[]]} */ ([
      el("span", { class: `tier ${tier}` }, title(tier)),
      [el("span", { class: `badge ${BADGES[readiness]}`, "data-tier": tier }, `${readiness}, layers 1 to ${layers}${rests}`)],
    ]);
  });
  replace(byId("tiers"), ...terms([own, ...servers]));
}

/** @param {MobileClient} client @param {import("../client/client.js").OutboxReport} report */
function showOutbox(client, { waiting, rejected, delivery, recording }) {
  if (recording === "off") {
    byId("outbox-count").textContent = "This gateway has no ledger: nothing is recorded.";
    button("deliver").hidden = true;
    return;
  }
  const refused = rejected > 0 ? ` The ledger refused ${counted(rejected, "entry", "entries")} for good.` : "";
  const last = delivery?.deliveredAt ? ` Last delivery at ${timeOfDay(delivery.deliveredAt)}.` : "";
  const none = recording === "refused" ? "No entry can be kept on this device." : "All entries are delivered.";
  byId("outbox-count").textContent =
    (waiting === 0
      ? none
      : `${counted(waiting, "entry", "entries")} ${waiting === 1 ? "waits" : "wait"} for delivery.`) + refused + last;
  byId("outbox-count").dataset.waiting = String(waiting);
  const problem = waiting > 0 ? (delivery?.problem ?? null) : null;
  byId("outbox-problem").hidden = problem === null;
  byId("outbox-problem").textContent = problem === null ? "" : `Not delivered: ${problem}. It is tried again.`;
  // not after each text, which would move what is below for a moment
  button("deliver").hidden = problem === null;
}

/** @param {MobileClient} client */
function showDevice(client) {
  const { manifest, status } = client;
  byId("task").textContent = manifest?.task ?? "";
  byId("device-card").hidden = manifest === null;
  if (manifest === null) return;
  const size = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
  replace(
    byId("device"),
    ...terms([
      ["Model", manifest.encoder ?? manifest.task],
      ["Bundle", manifest.bundle_id],
      ["Download", megabytes(size)],
      ["Offline use", status.kept ? "ready" : "not possible: the browser keeps no files for this site"],
      ["Threads", number(client.threads)],
      ["Licence", manifest.licence ?? "–"],
      ["Token", client.signedIn ? "signed in" : client.config?.auth_required ? "signed out" : "not needed"],
    ]),
  );
}

/** @param {MobileClient} client @param {import("../client/client.js").OutboxReport} report */
function showBanners(client, { waiting, delivery, problem, dropped }) {
  /** @type {[string, string][]} */
  const problems = [];
  if (!navigator.onLine) {
    problems.push(["", "This device is offline. It answers with its own layers, and the ledger gets the entries later."]);
  }
  if (problem !== null) problems.push(["bad", `No text can be classified: ${problem}.`]);
  if (dropped > 0) problems.push(["bad", `${counted(dropped, "entry", "entries")} could not be kept and ${dropped === 1 ? "is" : "are"} lost.`]);
  if (delivery !== null && delivery.failingMs >= WARNING_MS && waiting > 0) {
    problems.push(["", `${counted(waiting, "entry", "entries")} undelivered: ${delivery.problem}. Texts are answered as before.`]);
  }
  if (client.needsSignIn) problems.push(["", "Sign in, so that edge, cloud and ledger can be used."]);
  if (client.status.update !== null) problems.push(["", client.status.update]);
  const shown = JSON.stringify(problems);
  const banners = byId("banners-list");
  if (shown === banners.dataset.shown) return;
  banners.dataset.shown = shown;
  replace(banners, ...problems.map(([kind, sentence]) => el("div", { class: `banner ${kind}` }, sentence)));
}
