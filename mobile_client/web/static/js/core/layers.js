// Runs the layers of a bundle with their exit heads, as shared/inference/layers.py does for one text.

import { BundleError } from "./errors.js";

/** @import { InferenceSession, Tensor } from "onnxruntime-web" */
/** @import { Manifest } from "./domain.js" */

/**
 * The module onnxruntime-web, which the caller passes: `InferenceSession`, `Tensor` and `env`.
 * @typedef {Pick<typeof import("onnxruntime-web"), "InferenceSession" | "Tensor" | "env">} Runtime
 */
/** Confidence and label at one exit. @typedef {{layer: number, confidence: number, label: string}} Exit */
/**
 * Answer of an exit; `exits` lists every exit whose layer was run.
 * @typedef {object} Prediction
 * @property {string} label
 * @property {number} labelIndex
 * @property {Record<string, number>} probabilities
 * @property {number} confidence
 * @property {number} exitLayer
 * @property {Exit[]} exits
 */
/** @typedef {Awaited<ReturnType<typeof createLayers>>} Layers */

/**
 * Load layers 1 to `layerBytes.length`, and run each once on one token; throws `BundleError` if one
 * cannot be run or does not fit to the manifest.
 * @param {Runtime} ort
 * @param {Manifest} manifest
 * @param {Uint8Array[]} layerBytes the ONNX file of each layer
 * @param {number} [threads] more than one needs a cross-origin isolated page
 */
export async function createLayers(ort, manifest, layerBytes, threads = 1) {
  const { labels, hidden_size: hiddenSize } = manifest;
  ort.env.wasm.numThreads = threads;
  /** @type {InferenceSession[]} */
  const sessions = [];
  for (const [i, bytes] of layerBytes.entries()) sessions.push(await load(ort, bytes, i + 1));

  /**
   * @param {number} layer
   * @param {Tensor} hidden
   * @param {Tensor} mask
   */
  async function runLayer(layer, hidden, mask) {
    const outputs = await sessions[layer - 1].run({ hidden, mask });
    const [next, logits] = sessions[layer - 1].outputNames.map((name) => outputs[name]);
    return { hidden: next, logits: /** @type {Float32Array} */ (logits.data) };
  }

  /** @param {Float32Array} hidden @param {number} tokens */
  function inputs(hidden, tokens) {
    const mask = new ort.Tensor("int32", new Int32Array(tokens).fill(1), [1, tokens]);
    return { hidden: new ort.Tensor("float32", hidden, [1, tokens, hiddenSize]), mask };
  }

  /**
   * Answer at the first exit with a confidence of at least `alpha`, else at the last one.
   *
   * With `alpha` null there is no early exit. `first` is the first layer to run, and `hidden` the
   * output of the layer before it. Exits before `firstExit` are not used.
   * @param {Float32Array} hidden
   * @param {number} tokens
   * @param {number | null} alpha
   * @param {{first?: number, last?: number | null, firstExit?: number}} [range]
   * @returns {Promise<Prediction>}
   */
  async function classify(hidden, tokens, alpha, { first = 1, last = null, firstExit = 1 } = {}) {
    const deepest = last ?? sessions.length;
    if (!(1 <= first && first <= deepest && deepest <= sessions.length)) {
      throw new RangeError(`layers ${first} to ${deepest} of ${sessions.length} cannot be run`);
    }
    const input = inputs(hidden, tokens);
    /** @type {Tensor} */
    let state = input.hidden;
    /** @type {Exit[]} */
    const exits = [];
    for (let layer = first; ; layer += 1) {
      const output = await runLayer(layer, state, input.mask);
      state = output.hidden;
      const probabilities = softmax(output.logits);
      const confidence = Math.max(...probabilities);
      const labelIndex = probabilities.indexOf(confidence);
      exits.push({ layer, confidence, label: labels[labelIndex] });
      if (layer < deepest && (layer < firstExit || !meetsThreshold(confidence, alpha))) continue;
      return {
        label: labels[labelIndex],
        labelIndex,
        probabilities: Object.fromEntries(labels.map((label, i) => [label, probabilities[i]])),
        confidence,
        exitLayer: layer,
        exits,
      };
    }
  }

  /** Run each layer on one token, and check its outputs. */
  async function check() {
    const token = Float32Array.from({ length: hiddenSize }, (_, i) => -1 + (2 * i) / Math.max(1, hiddenSize - 1));
    const input = inputs(token, 1);
    for (let layer = 1; layer <= sessions.length; layer += 1) {
      let fits = false;
      try {
        const { hidden, logits } = await runLayer(layer, input.hidden, input.mask);
        fits =
          hidden.dims.join() === `1,1,${hiddenSize}` &&
          logits.length === labels.length &&
          [hidden.data, logits].every((data) => data instanceof Float32Array && data.every(Number.isFinite));
      } catch {
        fits = false;
      }
      if (!fits) throw cannotRun(layer);
    }
  }

  await check();
  return { classify, count: sessions.length };
}

/**
 * Return whether C_i >= α, compared in float32 as in Python; false without α.
 * @param {number} confidence
 * @param {number | null} alpha
 */
export function meetsThreshold(confidence, alpha) {
  return alpha !== null && Math.fround(confidence) >= Math.fround(alpha);
}

/**
 * Return the softmax in float32, shifted by the maximum to avoid overflow.
 * @param {Float32Array} logits
 * @returns {Float32Array}
 */
export function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(Math.fround(logit - largest)));
  const sum = powers.reduce((total, power) => Math.fround(total + power), 0);
  return powers.map((power) => power / sum);
}

/**
 * @param {Runtime} ort
 * @param {Uint8Array} bytes
 * @param {number} layer
 */
async function load(ort, bytes, layer) {
  try {
    return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  } catch {
    throw cannotRun(layer);
  }
}

/** @param {number} layer */
function cannotRun(layer) {
  return new BundleError(
    `bundle: layer ${layer} cannot be run in this browser; download the bundle again, or use another browser`,
  );
}
