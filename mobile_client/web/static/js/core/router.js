// The router of a mobile bundle, router.json: centroids, pool sizes and correctness heads. Its arrays
// are those of router.npz (shared/bundle/router_file.py).

import { readHeads } from "./correctness-heads.js";
import { BundleError } from "./errors.js";

/** @import { CorrectnessHeads } from "./correctness-heads.js" */

const ADVICE = "download the bundle again, or export it again with dimee export --mobile";
const DTYPES = ["float64", "float32", "int64"];

/**
 * One array of router.json: `values` is flat, row by row; null stands for NaN.
 * @typedef {object} NamedArray
 * @property {number[]} shape
 * @property {Float64Array} values
 */

/**
 * @typedef {object} Router
 * @property {Float32Array[]} centroids one row for each difficulty
 * @property {number[]} counts number of texts behind each centroid
 * @property {CorrectnessHeads | null} heads null if the bundle has none
 */

/**
 * Read and check a router for `classes` labels; throws `BundleError`.
 * @param {unknown} document the parsed router.json
 * @param {number} classes
 * @returns {Router}
 */
export function readRouter(document, classes) {
  const arrays = readArrays(document);
  const centroids = arrays.get("centroids");
  const counts = arrays.get("counts");
  if (centroids === undefined || counts === undefined) throw unusable("it lacks centroids or counts");
  const [pools, size] = centroids.shape;
  if (centroids.shape.length !== 2 || pools !== 3) throw unusable("centroids must be 3 rows");
  const sizes = Array.from(counts.values);
  if (counts.shape.length !== 1 || sizes.length !== 3 || !sizes.every((count) => Number.isSafeInteger(count) && count >= 0)) {
    throw unusable("counts must be 3 whole numbers, none below 0");
  }
  if (!sizes.some((count) => count > 0)) throw unusable("every pool is empty");
  const rows = sizes.map((_, pool) => Float32Array.from(centroids.values.subarray(pool * size, (pool + 1) * size)));
  if (rows.some((row, pool) => sizes[pool] > 0 && !row.every(Number.isFinite))) {
    throw unusable("the centroid of a pool with texts is not finite");
  }
  return { centroids: rows, counts: sizes, heads: readHeads(arrays, size, classes, unusable) };
}

/** @param {unknown} document @returns {Map<string, NamedArray>} */
function readArrays(document) {
  const { format_version: version, arrays } = /** @type {Record<string, unknown>} */ (Object(document));
  if (version !== 1 || typeof arrays !== "object" || arrays === null) {
    throw unusable("it is not a router of format version 1");
  }
  return new Map(Object.entries(arrays).map(([name, array]) => [name, readArray(name, array)]));
}

/**
 * @param {string} name
 * @param {unknown} array
 * @returns {NamedArray}
 */
function readArray(name, array) {
  const { dtype, shape, values } = /** @type {Record<string, unknown>} */ (Object(array));
  const sound =
    DTYPES.includes(String(dtype)) &&
    Array.isArray(shape) &&
    shape.every((size) => Number.isSafeInteger(size) && size >= 0) &&
    Array.isArray(values) &&
    values.length === shape.reduce((product, size) => product * size, 1) &&
    values.every((value) => value === null || typeof value === "number");
  if (!sound) throw unusable(`the array ${name} is not as its shape says`);
  return {
    shape: /** @type {number[]} */ (shape),
    values: Float64Array.from(/** @type {(number | null)[]} */ (values), (value) => {
      if (value === null) return NaN;
      // the shortest text of a float32 reads back as it only after rounding
      return dtype === "float32" ? Math.fround(value) : value;
    }),
  };
}

/** @param {string} problem */
function unusable(problem) {
  return new BundleError(`bundle: router.json cannot be used (${problem}); ${ADVICE}`);
}
