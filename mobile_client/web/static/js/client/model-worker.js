// Worker that runs the layers, one text after the other.

import { createLayers } from "../core/layers.js";
import * as ort from "../../vendor/onnxruntime-web/ort.wasm.min.mjs";

/** @type {any} */
let layers = null;
let work = Promise.resolve();

self.onmessage = ({ data }) => {
  work = work.then(async () => {
    try {
      const value = data.kind === "load" ? await load(data) : await classify(data);
      self.postMessage({ call: data.call, value });
    } catch (error) {
      // onnxruntime's errors have no common class, and may be numbers
      const problem = error instanceof Error ? error.message : String(error);
      self.postMessage({ call: data.call, problem: `the layers on this device cannot be run (${problem})` });
    }
  });
};

/** @param {any} message */
async function load({ manifest, layers: bytes, threads }) {
  layers = await createLayers(ort, manifest, bytes, threads);
  // the first run allocates memory: it must not be a user's
  await layers.classify(new Float32Array(2 * manifest.hidden_size), 2, 1, { first: 1, last: bytes.length, firstExit: 1 });
}

/** @param {any} message */
async function classify({ sentAt, hidden, tokens, alpha, range }) {
  const started = performance.now();
  const queueMs = Math.max(0, performance.timeOrigin + started - sentAt);
  const answer = await layers.classify(hidden, tokens, alpha, range);
  return { answer, queueMs, computeMs: performance.now() - started };
}
