// Routing policies by name. Their data come from the bundle; shared/policies/ has the same in Python.

import { CostModel } from "./cost-model.js";
import { InvalidInput } from "./errors.js";
import { AdaEE } from "./policies/adaee.js";
import { CascadeRouting } from "./policies/cascade-routing.js";
import { DimeeAdaptive, DimeeFixed } from "./policies/centroids.js";
import { SingleTier } from "./policies/static.js";

/** @import { CorrectnessHeads } from "./correctness-heads.js" */
/** @import { Conditions } from "./conditions.js" */
/** @import { Decision, Manifest, Outcome, TextFeatures, Tier } from "./domain.js" */
/** @import { Router } from "./router.js" */

/**
 * Data from which policies are built.
 * @typedef {object} PolicyFacts
 * @property {Float32Array[]} centroids one row for each difficulty
 * @property {number[]} counts number of texts behind each centroid
 * @property {number} alpha
 * @property {number} mu confidence that equals the cost of one answer from the cloud
 * @property {number} classes
 * @property {number} mobileLayers
 * @property {CostModel} costModel
 * @property {CorrectnessHeads | null} heads
 */

/**
 * Chooses the first tier of a request, and whether another tier takes over an answer.
 *
 * A policy that `learns` gets the outcome of each request before the next decision. `state` returns
 * what the policy has learned as JSON, null if it learns nothing; `restore` takes it back, and
 * returns false for a state that does not fit, which changes nothing.
 * @typedef {object} Policy
 * @property {string} name
 * @property {boolean} learns
 * @property {boolean} usesConditions true if decisions depend on prices, delays and availability
 * @property {(conditions: Conditions) => void} useConditions
 * @property {(features: TextFeatures) => Decision} route
 * @property {(features: TextFeatures, decision: Decision, outcome: Outcome, meetsThreshold: boolean) =>
 *   Tier | null} escalate
 * @property {(decision: Decision, outcome: Outcome) => void} learn
 * @property {() => unknown} state
 * @property {(state: unknown) => boolean} restore
 */

/** @type {Record<string, (facts: PolicyFacts) => Policy>} */
const FACTORIES = {
  "cascade-routing": (facts) => new CascadeRouting(facts.heads, facts.costModel),
  "dimee-fixed": (facts) => new DimeeFixed(facts.centroids, facts.counts),
  "dimee-adaptive": (facts) => new DimeeAdaptive(facts.centroids, facts.counts),
  mobile: () => new SingleTier("mobile"),
  edge: () => new SingleTier("edge"),
  cloud: () => new SingleTier("cloud"),
  adaee: (facts) => new AdaEE(facts.classes, facts.costModel, facts.mu),
};

const ALL_LAYERS = "needs all layers on the device, and the mobile bundle has the first ones only";

/** @type {Record<string, string>} Policies of the Python client that this one does not have. */
const REFUSED = {
  bert: ALL_LAYERS,
  "early-exit": ALL_LAYERS,
  "i-splitee": ALL_LAYERS,
  random: "draws from Python's random number generator, which this client does not have",
};

export const POLICY_NAMES = Object.keys(FACTORIES);

/**
 * Return a new policy; throws `InvalidInput`, which says why, for any other name.
 * @param {string} name
 * @param {PolicyFacts} facts
 * @returns {Policy}
 */
export function makePolicy(name, facts) {
  if (Object.hasOwn(FACTORIES, name)) return FACTORIES[name](facts);
  const names = POLICY_NAMES.join(", ");
  if (Object.hasOwn(REFUSED, name)) {
    throw new InvalidInput(`policy: ${name} ${REFUSED[name]}; choose one of ${names}`, { field: "policy" });
  }
  const shown = Array.from(name).slice(0, 80).join("");
  throw new InvalidInput(`policy: '${shown}' is not known; choose one of ${names}`, { field: "policy" });
}

/**
 * Return the facts of a bundle.
 * @param {Manifest} manifest
 * @param {Router} router
 * @returns {PolicyFacts}
 */
export function factsOf(manifest, router) {
  return {
    centroids: router.centroids,
    counts: router.counts,
    alpha: manifest.alpha,
    mu: manifest.mu,
    classes: manifest.labels.length,
    mobileLayers: manifest.mobile_layers,
    costModel: new CostModel(manifest.cost_model, manifest.layers),
    heads: router.heads,
  };
}
