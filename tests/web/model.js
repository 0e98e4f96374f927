// The mobile bundle as the app loads it, for node and for a browser.

import { checkParts } from "../../mobile_client/web/static/js/core/bundle-check.js";
import { readEmbeddings } from "../../mobile_client/web/static/js/core/embeddings.js";
import { createLayers } from "../../mobile_client/web/static/js/core/layers.js";
import { factsOf } from "../../mobile_client/web/static/js/core/policies.js";
import { readRouter } from "../../mobile_client/web/static/js/core/router.js";
import { createTextEncoder } from "../../mobile_client/web/static/js/core/text-encoder.js";
import * as ort from "../../mobile_client/web/static/vendor/onnxruntime-web/ort.wasm.bundle.min.mjs";

/** @import { Manifest } from "../../mobile_client/web/static/js/core/domain.js" */
/** @typedef {(name: string) => Promise<ArrayBuffer>} Read Returns the bytes of a file. */
/** @typedef {Awaited<ReturnType<typeof loadModel>>} Model */

const WASM = "onnxruntime-web/ort-wasm-simd-threaded.wasm.gz";

/**
 * Load a mobile bundle.
 * @param {Read} readBundle
 * @param {Read} readVendor
 */
export async function loadModel(readBundle, readVendor) {
  const manifest = /** @type {Manifest} */ (JSON.parse(textOf(await readBundle("manifest.json"))));
  const document = await json(readBundle, "tokenizer.json.gz");
  const encoder = createTextEncoder(document, manifest.max_tokens);
  const embeddings = readEmbeddings(await unzip(await readBundle("embeddings.safetensors.gz")));
  const routerJson = await json(readBundle, "router.json.gz");
  const facts = factsOf(manifest, readRouter(routerJson, manifest.labels.length));
  checkParts(manifest, encoder, embeddings, facts);
  ort.env.wasm.wasmBinary = await unzip(await readVendor(WASM));
  const layerBytes = [];
  for (let layer = 1; layer <= manifest.mobile_layers; layer += 1) {
    const name = `layers/${String(layer).padStart(2, "0")}.onnx.gz`;
    layerBytes.push(new Uint8Array(await unzip(await readBundle(name))));
  }
  const layers = await createLayers(ort, manifest, layerBytes);
  /** @param {number} maxTokens */
  const encoderOf = (maxTokens) => createTextEncoder(document, maxTokens);
  return { manifest, encoder, encoderOf, embeddings, facts, layers };
}

/** @param {ArrayBuffer} content */
function textOf(content) {
  return new TextDecoder().decode(content);
}

/** @param {Read} read @param {string} name @returns {Promise<unknown>} */
async function json(read, name) {
  return JSON.parse(textOf(await unzip(await read(name))));
}

/** @param {ArrayBuffer} content @returns {Promise<ArrayBuffer>} */
export function unzip(content) {
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
