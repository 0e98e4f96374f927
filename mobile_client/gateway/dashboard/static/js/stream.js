// The stream of server-sent events: live figures once a second, and each ended request.

import { emit, on } from "./bus.js";
import { mayCall, maySeeAll, refresh } from "./state.js";

const RETRY_MS = 2_000;
const SILENT_MS = 6_000; // figures arrive each second; without any, the connection is dead

let source = null;
let heard = 0;
let status = "connecting";

/** Open the stream as soon as calls are answered, and keep it open. */
export function start() {
  on("state", () => {
    if (maySeeAll()) open();
    else close(mayCall() ? "not permitted" : "signed out");
  });
  on("signed-out", () => close("signed out"));
  setInterval(() => {
    if (source !== null && performance.now() - heard > SILENT_MS) lost();
    else if (source === null && status === "reconnecting") retry();
  }, RETRY_MS);
}

function open() {
  if (source !== null) return;
  heard = performance.now();
  source = new EventSource("/dashboard/api/events");
  source.addEventListener("open", () => {
    heard = performance.now();
    set("live");
  });
  source.addEventListener("stats", (event) => receive("stats", event));
  source.addEventListener("request", (event) => receive("request", event));
  source.addEventListener("error", () => {
    // a browser retries by itself after a lost connection, but not after an answer such as 401
    if (source?.readyState === EventSource.CLOSED) lost();
    else set("reconnecting");
  });
}

function receive(name, event) {
  heard = performance.now();
  set("live");
  emit(name, JSON.parse(event.data));
}

function lost() {
  close("reconnecting");
  refresh(); // finds out whether a sign-in is required
}

async function retry() {
  await refresh();
  if (status === "reconnecting" && maySeeAll()) open();
}

function close(next) {
  source?.close();
  source = null;
  set(next);
}

function set(next) {
  if (next === status) return;
  status = next;
  emit("stream", { status });
}
