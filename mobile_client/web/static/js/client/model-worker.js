// Worker that runs the layers, one text after the other.

import { createLayers } from "../core/layers.js";
import { read, unlessStalled } from "./download.js";
import * as ort from "../../vendor/onnxruntime-web/ort.wasm.bundle.min.mjs";

const WASM = "../../vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm.gz";
const MAX_WASM_BYTES = 64 * 1024 * 1024;

const wasm = decompressed(new URL(WASM, import.meta.url));
wasm.catch(() => undefined); // `load` tries it again

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
async function load({ manifest, layers: buffers, threads }) {
  ort.env.wasm.wasmBinary = await wasm.catch(() => decompressed(new URL(WASM, import.meta.url)));
  const bytes = buffers.map((/** @type {ArrayBuffer} */ buffer) => new Uint8Array(buffer));
  // it runs each layer once, so that no user waits for the first run
  layers = await createLayers(ort, manifest, bytes, threads);
}

/** @param {any} message */
async function classify({ sentAt, hidden, tokens, alpha, range }) {
  const started = performance.now();
  const queueMs = Math.max(0, performance.timeOrigin + started - sentAt);
  const answer = await layers.classify(hidden, tokens, alpha, range);
  return { answer, queueMs, computeMs: performance.now() - started };
}

/** @param {URL} url @returns {Promise<ArrayBuffer>} */
async function decompressed(url) {
  const bytes = await unlessStalled(async (signal, came) => {
    const response = await fetch(url, { signal }).catch(() => null);
    if (!response?.ok) throw new Error(`${url.pathname} is not there`);
    return read(response.body, MAX_WASM_BYTES, `the download of ${url.pathname} broke off; connect to the network and try again`, came);
  });
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
