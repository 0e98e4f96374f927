// The paper's policies: the nearest of three centroids, fixed or adaptive, as in
// shared/policies/centroids.py.

import { DIFFICULTIES, TIERS, decisionOf } from "../domain.js";
import { BundleError } from "../errors.js";
import { StatelessPolicy } from "./static.js";

/** @import { Decision, TextFeatures } from "../domain.js" */

/**
 * Choose the pool with the nearest centroid, by Euclidean distance.
 *
 * An empty pool has a count of 0 and is never chosen.
 */
export class DimeeFixed extends StatelessPolicy {
  name = "dimee-fixed";

  /**
   * @param {Float32Array[]} centroids one row for each difficulty
   * @param {number[]} counts
   */
  constructor(centroids, counts) {
    super();
    if (!counts.some((count) => count > 0)) {
      throw new BundleError("bundle: every pool of the router is empty; fit another router with dimee refit");
    }
    // float64, because a running mean over thousands of samples needs the precision
    this.centroids = centroids.map((row) => Float64Array.from(row));
    this.counts = [...counts];
  }

  /**
   * Return the tier of the nearest pool; in a tie that of the easier one.
   * @param {TextFeatures} features
   * @returns {Decision}
   */
  route(features) {
    const distances = this.centroids.map((row, pool) =>
      this.counts[pool] === 0 ? Infinity : distance(row, features.embedding),
    );
    const nearest = distances.indexOf(Math.min(...distances));
    this.update(nearest, features.embedding);
    return decisionOf(TIERS[nearest], this.name, { difficulty: DIFFICULTIES[nearest], distances });
  }

  /**
   * Leave the centroids unchanged; the adaptive variant moves the nearest one.
   * @param {number} _nearest
   * @param {Float32Array} _embedding
   */
  update(_nearest, _embedding) {}
}

/**
 * Algorithm 2: every text moves the centroid of its pool, which is a running mean.
 *
 * c ← (N·c + x) / (N + 1), N ← N + 1. N starts at the size of the validation pool.
 */
export class DimeeAdaptive extends DimeeFixed {
  name = "dimee-adaptive";

  /**
   * Move the nearest centroid towards the text.
   * @param {number} nearest
   * @param {Float32Array} embedding
   */
  update(nearest, embedding) {
    this.counts[nearest] += 1;
    const row = this.centroids[nearest];
    for (let i = 0; i < row.length; i += 1) row[i] += (embedding[i] - row[i]) / this.counts[nearest];
  }

  /** Return the centroids and counts. @returns {{centroids: (number | null)[][], counts: number[]}} */
  state() {
    return {
      // JSON has no NaN, which an empty pool's centroid is
      centroids: this.centroids.map((row) => Array.from(row, (x) => (Number.isFinite(x) ? x : null))),
      counts: [...this.counts],
    };
  }

  /**
   * Continue from a state of `state`; return false if it does not fit to this bundle.
   * @param {unknown} state
   */
  restore(state) {
    const { centroids, counts } = /** @type {Record<string, unknown>} */ (Object(state));
    if (!Array.isArray(centroids) || !Array.isArray(counts)) return false;
    const fits =
      centroids.length === this.centroids.length &&
      counts.length === this.counts.length &&
      counts.every((count) => Number.isSafeInteger(count) && count >= 0) &&
      counts.some((count) => count > 0) &&
      centroids.every(
        (row, pool) =>
          Array.isArray(row) &&
          row.length === this.centroids[pool].length &&
          (counts[pool] === 0 || row.every(Number.isFinite)),
      );
    if (!fits) return false;
    this.centroids = centroids.map((row) => Float64Array.from(row, (x) => x ?? NaN));
    this.counts = [...counts];
    return true;
  }
}

/**
 * @param {Float64Array} row
 * @param {Float32Array} embedding
 */
function distance(row, embedding) {
  let sum = 0;
  for (let i = 0; i < row.length; i += 1) sum += (row[i] - embedding[i]) ** 2;
  return Math.sqrt(sum);
}
