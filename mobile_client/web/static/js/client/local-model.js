// The layers on this device: a worker that runs them, so that the page stays responsive.

import { BundleError } from "../core/errors.js";

/** @import { Bundle } from "./bundle-store.js" */
/**
 * @typedef {object} LocalAnswer Answer of the layers, as `classify` of core/layers.js returns it.
 * @property {string} label
 * @property {number} labelIndex
 * @property {Record<string, number>} probabilities
 * @property {number} confidence
 * @property {number} exitLayer
 * @property {{layer: number, confidence: number, label: string}[]} exits
 */
/** @typedef {{answer: LocalAnswer, queueMs: number, computeMs: number}} TimedAnswer */
/** @typedef {{resolve: (value: any) => void, reject: (error: Error) => void}} Waiting */

/** Threads of the layers: they are small, and more threads than this would wait for each other. */
const MAX_THREADS = 2;

/** Worker without layers, which loads onnxruntime-web already. @type {Worker | null} */
let spare = null;

/** Start a worker while the bundle is read or downloaded, so that both go on at the same time. */
export function startWorker() {
  if (spare !== null) return;
  const worker = newWorker();
  spare = worker;
  // the model then starts one of its own, and reports what is wrong
  worker.onerror = () => {
    if (spare === worker) spare = null;
  };
}

function newWorker() {
  return new Worker(new URL("./model-worker.js", import.meta.url), { type: "module", name: "layers" });
}

export class LocalModel {
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  #calls = 0;
  /** @type {Promise<void> | null} */
  #loaded = null;
  #closed = false;

  /** @param {Bundle} bundle */
  constructor(bundle) {
    this._manifest = bundle.manifest;
    this._layers = layersOf(bundle);
    // threads share memory, which a browser allows in an isolated page only
    this.threads = globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
  }

  /** Load the layers and run them once; throws `BundleError` if that fails. */
  load() {
    this.#loaded ??= this.#start().catch((error) => {
      this.#end(error);
      throw error;
    });
    return this.#loaded;
  }

  /**
   * Return the answer of the first exit whose confidence reaches `alpha`, in order of calls.
   * @param {Float32Array} hidden Input of layer 1.
   * @param {number} tokens
   * @param {number} alpha
   * @param {{first: number, last: number, firstExit: number}} range
   * @returns {Promise<TimedAnswer>}
   */
  async classify(hidden, tokens, alpha, range) {
    await this.load();
    return this.#call({ kind: "classify", sentAt: epochMs(), hidden, tokens, alpha, range }, [hidden.buffer]);
  }

  /** End the worker. */
  close() {
    this.#closed = true;
    this.#end(new BundleError("the model of this device was replaced; try again"));
  }

  async #start() {
    if (this.#closed) throw new BundleError("the model of this device was replaced; try again");
    const worker = spare ?? newWorker();
    spare = null;
    this.#worker = worker;
    worker.onmessage = ({ data }) => {
      const waiting = this.#waiting.get(data.call);
      this.#waiting.delete(data.call);
      if (data.problem === undefined) waiting?.resolve(data.value);
      else waiting?.reject(new BundleError(data.problem));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      // the next call starts a new one
      this.#end(new BundleError("the layers on this device stopped; try again, or reload the page"));
    };
    await this.#call({ kind: "load", manifest: this._manifest, layers: this._layers, threads: this.threads });
  }

  /**
   * @param {Record<string, unknown>} message
   * @param {Transferable[]} transferred
   * @returns {Promise<any>}
   */
  #call(message, transferred = []) {
    this.#calls += 1;
    const call = this.#calls;
    return new Promise((resolve, reject) => {
      this.#waiting.set(call, { resolve, reject });
      this.#worker?.postMessage({ ...message, call }, transferred);
    });
  }

  /** @param {Error} error */
  #end(error) {
    this.#worker?.terminate();
    this.#worker = null;
    this.#loaded = null;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** @param {Bundle} bundle @returns {ArrayBuffer[]} */
function layersOf({ manifest, files }) {
  return Array.from({ length: manifest.mobile_layers }, (_, index) => {
    const path = `layers/${String(index + 1).padStart(2, "0")}.onnx`;
    const bytes = files.get(path);
    if (bytes === undefined) throw new BundleError(`bundle: ${path} is missing; export the mobile bundle again`);
    return bytes;
  });
}

/** Return a time that page and worker share, in milliseconds. */
function epochMs() {
  return performance.timeOrigin + performance.now();
}
