// The bundle on this device, ready to use: tokenizer, embeddings, policies, and the layers' worker.

import { AttemptEntries } from "../core/attempt-entries.js";
import { checkParts } from "../core/bundle-check.js";
import { CostModel } from "../core/cost-model.js";
import { prepare } from "../core/decide.js";
import { readEmbeddings } from "../core/embeddings.js";
import { BundleError } from "../core/errors.js";
import { factsOf, makePolicy } from "../core/policies.js";
import { readRouter } from "../core/router.js";
import { createTextEncoder } from "../core/text-encoder.js";
import { TierStats } from "../core/tier-stats.js";
import { LocalModel } from "./local-model.js";
import { TierClient } from "./tier-client.js";

/** @import { Policy, PolicyFacts } from "../core/policies.js" */
/** @import { Bundle } from "./bundle-store.js" */
/** @import { Config } from "./config.js" */
/** @import { Database } from "./database.js" */

const STATE_KEY = "policy state ";
/** After so many texts the browser has compiled the tokenizer. */
const WARM_UP_TEXTS = 20;

/** One bundle with one configuration; another one of either gets a new model. */
export class Model {
  /** @type {Map<string, Policy>} */
  #policies = new Map();
  #inFlight = 0;
  #replaced = false;

  /**
   * @param {Bundle} bundle
   * @param {Config} config
   * @param {Database} database
   * @param {() => Record<string, string>} headers Headers with the device's token.
   */
  constructor(bundle, config, database, headers) {
    const { manifest } = bundle;
    this.manifest = manifest;
    this.config = config;
    this.kept = bundle.kept;
    this._database = database;
    const router = readRouter(JSON.parse(textOf(bundle, "router.json")), manifest.labels.length);
    /** @type {PolicyFacts} */
    this._facts = factsOf(manifest, router);
    this.encoder = createTextEncoder(JSON.parse(textOf(bundle, "tokenizer.json")), manifest.max_tokens);
    this.embeddings = readEmbeddings(fileOf(bundle, "embeddings.safetensors"));
    checkParts(manifest, this.encoder, this.embeddings, this._facts);
    this.costModel = new CostModel(config.cost_model, manifest.layers);
    this.entries = new AttemptEntries({
      costModel: this.costModel,
      priceBook: config.price_book,
      bundleId: manifest.bundle_id,
    });
    this.tierStats = new TierStats(this.costModel, config.latency_price_lambda, () => performance.now() / 1e3);
    this.layers = new LocalModel(bundle);
    this.clients = {
      edge: this.#client("edge", 1, manifest.edge_layers, headers),
      cloud: this.#client("cloud", manifest.layers, manifest.layers, headers),
    };
  }

  /**
   * Return the policy with this name, with what it had learned on this device before.
   * @param {string} name
   * @returns {Promise<Policy>}
   */
  async policy(name) {
    let policy = this.#policies.get(name);
    if (policy === undefined) {
      policy = makePolicy(name, this._facts);
      policy.useConditions(this.tierStats.conditions);
      const kept = await this._database.get(STATE_KEY + name).catch(() => undefined);
      if (kept?.bundle_id === this.manifest.bundle_id) policy.restore(kept.state);
      this.#policies.set(name, policy);
    }
    return policy;
  }

  /**
   * Keep what a policy has learned; pages that are open at the same time do not learn from each other.
   * @param {Policy} policy
   */
  async keepState(policy) {
    const state = policy.state();
    if (state === null || state === undefined) return;
    const kept = { bundle_id: this.manifest.bundle_id, state };
    await this._database.set(STATE_KEY + policy.name, kept).catch(() => undefined);
  }

  /** Load the layers, and do once what a text needs: the first time takes longer than the others. */
  async load() {
    const pair = this.manifest.pairs ? "ready" : null;
    for (let i = 0; i < WARM_UP_TEXTS; i += 1) prepare(this.encoder, this.embeddings, "ready", pair);
    await this.layers.load();
  }

  /** Count a request as in flight; return what ends that. */
  take() {
    this.#inFlight += 1;
    return () => {
      this.#inFlight -= 1;
      if (this.#inFlight === 0 && this.#replaced) this.close();
    };
  }

  /** End the worker once no request needs it. */
  closeWhenUnused() {
    this.#replaced = true;
    if (this.#inFlight === 0) this.close();
  }

  /** End the worker. */
  close() {
    this.layers.close();
  }

  /**
   * @param {"edge" | "cloud"} tier
   * @param {number} firstExit
   * @param {number} lastExit
   * @param {() => Record<string, string>} headers
   */
  #client(tier, firstExit, lastExit, headers) {
    const { bundle_id: bundleId, labels, max_tokens: maxTokens } = this.manifest;
    const rules = { tier, bundleId, labels, firstExit, lastExit, maxTokens };
    return new TierClient(this.config.tiers[tier], rules, headers);
  }
}

/** @param {Bundle} bundle @param {string} path */
function fileOf(bundle, path) {
  const bytes = bundle.files.get(path);
  if (bytes === undefined) throw new BundleError(`bundle: ${path} is missing; export the mobile bundle again`);
  return bytes;
}

/** @param {Bundle} bundle @param {string} path */
function textOf(bundle, path) {
  return new TextDecoder().decode(fileOf(bundle, path));
}
