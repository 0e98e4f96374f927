// The state of the gateway: task, tiers, prices, links. Sent as the message `state`.

import { call } from "./api.js";
import { emit, on } from "./bus.js";

const REFRESH_MS = 15_000;
const SIGNED_OUT = { signed_in: false, auth_required: true };

let current = null;
let refreshing = null;

/** Return the last state, or null before the first. */
export function state() {
  return current;
}

/** Return true if calls are answered: no sign-in is required, or it has been made. */
export function mayCall() {
  return current !== null && (current.signed_in || !current.auth_required);
}

/** Return true if the caller may see what concerns other clients: figures, requests and links. */
export function maySeeAll() {
  return mayCall() && (current.scopes ?? ["status"]).includes("status");
}

/** Read the state now; calls that overlap share one read. */
export function refresh() {
  refreshing ??= read().finally(() => {
    refreshing = null;
  });
  return refreshing;
}

/** Read the state regularly, after each reconnection, and when a tier's state changes. */
export function start() {
  setInterval(() => {
    if (!document.hidden) refresh();
  }, REFRESH_MS);
  on("stream", ({ status }) => {
    if (status === "live") refresh();
  });
  on("tiers-changed", refresh);
  on("signed-out", () => {
    if (mayCall()) refresh();
  });
  return refresh();
}

async function read() {
  try {
    current = await call("/dashboard/api/state");
  } catch (error) {
    if (error.status !== 401) return; // the stream reports a gateway that cannot be reached
    current = SIGNED_OUT;
  }
  emit("state", current);
}
