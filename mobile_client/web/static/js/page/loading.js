// The download of the model: what happens, its size and progress, and what to do if it fails.

import { announce } from "../../shared/announce.js";
import { button, byId } from "./dom.js";
import { megabytes } from "./format.js";

/** @import { MobileClient } from "../client/client.js" */

/** Set up the card. @param {MobileClient} client */
export function start(client) {
  const bar = /** @type {HTMLProgressElement} */ (byId("loading-bar"));
  let last = "";
  client.onChange(() => {
    const { phase, progress, problem } = client.status;
    byId("loading").hidden = phase === "ready";
    byId("classify-form").hidden = phase !== "ready";
    button("loading-retry").hidden = phase !== "failed";
    bar.hidden = phase !== "downloading";
    bar.value = progress.totalBytes > 0 ? progress.loadedBytes / progress.totalBytes : 0;
    byId("loading-text").textContent = sentence(phase, progress, problem);
    byId("loading-text").classList.toggle("error", phase === "failed");
    if (phase === last) return;
    last = phase;
    if (phase === "ready") announce("The model is ready.");
    else if (phase !== "starting") announce(sentence(phase, progress, problem));
  });
  button("loading-retry").addEventListener("click", () => client.start());
}

/**
 * @param {string} phase
 * @param {import("../client/bundle-store.js").Progress} progress
 * @param {string | null} problem
 */
function sentence(phase, { loadedBytes, totalBytes }, problem) {
  if (phase === "downloading") {
    return `Downloading layers, embeddings, tokenizer and router: ${megabytes(loadedBytes)} of ${megabytes(totalBytes)}.`;
  }
  if (phase === "sign-in") return "The model needs a token: sign in.";
  if (phase === "failed") return `The model is not loaded. ${problem ?? ""}`;
  return phase === "preparing" ? "Preparing the layers …" : "Reading what is on this device …";
}
