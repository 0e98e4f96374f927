// Correctness heads: linear models that predict whether each tier would be right, as in
// shared/bundle/correctness_heads.py. Matrices are flat, row by row.

import { TIERS } from "./domain.js";
import { PAIR_FEATURES } from "./pair-features.js";

/** @import { BundleError } from "./errors.js" */
/** @import { TextFeatures } from "./domain.js" */
/** @import { NamedArray } from "./router.js" */

/** Number of features in addition to the embedding or the features of a pair. */
export const EXTRA = 8;
/** Number of typical answers of each state. */
export const QUANTILES = 32;
/** Length of the features of an answer. */
export const ANSWER_FACTS = 6;

const T = TIERS.length;
const HEADS = T + 2;
const MAX_PRICE = 1e9;

/**
 * Shape of each array, by its name in the router without the prefix `heads_`.
 * @param {number} size of the embedding
 * @param {number} classes
 * @param {number} features
 * @returns {Record<string, number[]>}
 */
function shapes(size, classes, features) {
  return {
    exit0_HC: [size, classes],
    exit0_C: [classes],
    mean_F: [features],
    scale_F: [features],
    weight_FK: [features, HEADS],
    bias_K: [HEADS],
    layers_T2: [T, 2],
    right_T2: [T, 2],
    next_TT2: [T, T, 2],
    this_TG: [T, ANSWER_FACTS],
    gain_TUG: [T, T, ANSWER_FACTS],
    diff_FT: [features, T],
    diff_T: [T],
    gains_TSQU: [T, 2, QUANTILES, T],
    alpha: [],
    price: [],
  };
}

/**
 * Read the heads of a router; null if it has none. Throws the error of `unusable`.
 * @param {Map<string, NamedArray>} arrays
 * @param {number} size of the embedding
 * @param {number} classes
 * @param {(problem: string) => BundleError} unusable
 * @returns {CorrectnessHeads | null}
 */
export function readHeads(arrays, size, classes, unusable) {
  const names = Object.keys(shapes(size, classes, 0));
  if (!names.some((name) => arrays.has(`heads_${name}`))) return null;
  const readsPairs = arrays.get("heads_mean_F")?.values.length === PAIR_FEATURES.length + EXTRA;
  const features = EXTRA + (readsPairs ? PAIR_FEATURES.length : size);
  /** @type {Record<string, Float64Array>} */
  const values = {};
  for (const [name, shape] of Object.entries(shapes(size, classes, features))) {
    const array = arrays.get(`heads_${name}`);
    if (array === undefined) throw unusable(`it lacks heads_${name}`);
    if (array.shape.length !== shape.length || !array.shape.every((length, axis) => length === shape[axis])) {
      throw unusable(`heads_${name} has the shape ${array.shape} instead of ${shape}`);
    }
    if (!array.values.every(Number.isFinite)) throw unusable(`heads_${name} is not finite`);
    values[name] = array.values;
  }
  if (!values.scale_F.every((scale) => scale > 0)) throw unusable("heads_scale_F holds numbers that are not above 0");
  if (!(values.price[0] >= 0 && values.price[0] <= MAX_PRICE)) throw unusable("heads_price is out of bounds");
  return new CorrectnessHeads(values, classes, readsPairs);
}

/** Features of one text for the heads, and the embedding classifier's label and margin. */
export class RawFeatures {
  /**
   * @param {Float64Array} values
   * @param {number} label
   */
  constructor(values, label) {
    this.values = values;
    this.label = label;
  }

  /** Margin of the embedding classifier. */
  get margin() {
    return this.values[this.values.length - EXTRA];
  }

  /** Logarithm of the number of tokens. */
  get length() {
    return this.values[this.values.length - EXTRA + 3];
  }
}

/** Weights of the correctness heads. */
export class CorrectnessHeads {
  /**
   * @param {Record<string, Float64Array>} arrays by name without the prefix `heads_`
   * @param {number} classes
   * @param {boolean} readsPairs true if the heads were fitted on the features of pairs
   */
  constructor(arrays, classes, readsPairs) {
    this.arrays = arrays;
    this.classes = classes;
    this.readsPairs = readsPairs;
    /** Threshold of the exits for which the heads were fitted. */
    this.alpha = arrays.alpha[0];
    /** Default Λ: the probability of a right answer that one λ is worth. */
    this.costWeight = arrays.price[0];
  }

  /**
   * Return the features of a text or pair.
   * @param {TextFeatures} text
   * @returns {RawFeatures}
   */
  rawFeatures(text) {
    const embedding = text.embedding;
    const logits = product(embedding, this.arrays.exit0_HC, this.arrays.exit0_C);
    const [second, first] = Array.from(logits).sort((a, b) => a - b).slice(-2);
    const margin = first - second;
    const length = Math.log(text.tokens);
    const norm = Math.sqrt(embedding.reduce((sum, x) => sum + x * x, 0));
    const extra = [
      margin,
      margin * margin,
      Math.log1p(margin),
      length,
      norm,
      margin * length,
      norm * length,
      Math.log1p(text.rarePieces),
    ];
    const own = this.readsPairs && text.pair !== null ? text.pair : embedding;
    const values = new Float64Array(own.length + EXTRA);
    values.set(own);
    values.set(extra, own.length);
    return new RawFeatures(values, logits.indexOf(Math.max(...logits)));
  }

  /**
   * Return standardised features; an unknown feature of a pair (NaN) is replaced by its mean.
   * @param {RawFeatures} features
   */
  scaled(features) {
    const { mean_F: mean, scale_F: scale } = this.arrays;
    return mean.map((center, i) => {
      const value = (features.values[i] - center) / scale[i];
      return this.readsPairs && Number.isNaN(value) ? 0 : value;
    });
  }

  /**
   * Return the probabilities of the heads, and P(tier is right) − P(cloud is right) for each tier.
   * @param {RawFeatures} features
   */
  expect(features) {
    const scaled = this.scaled(features);
    return {
      expected: Array.from(product(scaled, this.arrays.weight_FK, this.arrays.bias_K), sigmoid),
      lead: Array.from(product(scaled, this.arrays.diff_FT, this.arrays.diff_T)),
    };
  }

  /**
   * Return P(`target` is right) − P(this answer is right) after an answer of `tier`.
   * @param {number} tier
   * @param {number} target
   * @param {number[]} facts of `answerFacts`
   */
  gain(tier, target, facts) {
    const { gain_TUG: gains, this_TG: own } = this.arrays;
    const other = sigmoid(dot(facts, gains, (tier * T + target) * ANSWER_FACTS));
    return other - sigmoid(dot(facts, own, tier * ANSWER_FACTS));
  }

  /**
   * Return the typical gains of `target` after answers of `tier` in `state`: confident (0) or not (1).
   * @param {number} tier
   * @param {number} state
   * @param {number} target
   */
  typicalGains(tier, state, target) {
    const first = (tier * 2 + state) * QUANTILES * T;
    return Float64Array.from({ length: QUANTILES }, (_, q) => this.arrays.gains_TSQU[first + q * T + target]);
  }
}

/**
 * Return the features of an answer: functions of its confidence, margin and length.
 * @param {number} confidence
 * @param {boolean} agrees whether the embedding classifier gives the same label
 * @param {number} margin
 * @param {number} length
 */
export function answerFacts(confidence, agrees, margin, length) {
  const p = Math.min(Math.max(confidence, 1e-6), 1 - 1e-6);
  const z = Math.log(p / (1 - p));
  const sign = agrees ? 1 : -1;
  return [1, z, (z * z) / 10, sign, sign * Math.log1p(margin), length];
}

/**
 * Return `vector` times a flat matrix plus `bias`; the matrix has a row for each element of `vector`.
 * @param {Float32Array | Float64Array} vector
 * @param {Float64Array} matrix
 * @param {Float64Array} bias
 */
function product(vector, matrix, bias) {
  const columns = bias.length;
  const result = new Float64Array(columns);
  for (let row = 0; row < vector.length; row += 1) {
    const x = vector[row];
    for (let column = 0; column < columns; column += 1) result[column] += x * matrix[row * columns + column];
  }
  return result.map((sum, column) => sum + bias[column]);
}

/**
 * @param {number[]} facts
 * @param {Float64Array} matrix
 * @param {number} first position of the row
 */
function dot(facts, matrix, first) {
  return facts.reduce((sum, fact, i) => sum + fact * matrix[first + i], 0);
}

/** @param {number} value */
function sigmoid(value) {
  return 1 / (1 + Math.exp(-Math.max(-30, Math.min(30, value))));
}
