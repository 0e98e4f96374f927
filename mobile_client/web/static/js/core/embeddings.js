// Embedding tables: the mean word embedding for routing, and the input of the first layer, as in
// shared/inference/embeddings.py. Sums are exact to float64 and rounded to float32 once, so that they
// differ from Python's, which rounds each step, by a few units of the last place.

import { BundleError } from "./errors.js";
import { PAIR_FEATURES, pairFeatures } from "./pair-features.js";
import { readSafetensors } from "./safetensors.js";

/** @import { EncodedText } from "./domain.js" */
/** @import { Tensor } from "./safetensors.js" */
/** @typedef {ReturnType<typeof readEmbeddings>} Embeddings */

/**
 * Read the tables of embeddings.safetensors; throws `BundleError` if they do not fit together.
 * @param {ArrayBuffer} buffer
 */
export function readEmbeddings(buffer) {
  const tables = readTables(buffer);
  const { size, hiddenSize, word, scale, position, type, gamma, beta, epsilon, projection, bias } = tables;
  const segments = type.length / size;

  /** @param {number[]} ids @returns {Float32Array} */
  function meanOfRows(ids) {
    const sums = new Float64Array(size);
    for (const id of ids) {
      const factor = scale[id];
      for (let i = 0, at = id * size; i < size; i += 1, at += 1) sums[i] += factor * word[at];
    }
    return Float32Array.from(sums, (sum) => Math.fround(sum) / ids.length);
  }

  /**
   * Return the mean word embedding of a text's words, without special tokens.
   * @param {EncodedText} encoded
   * @returns {Float32Array}
   */
  function meanWordEmbedding(encoded) {
    return meanOfRows(encoded.ids.filter((_, i) => encoded.content[i]));
  }

  /**
   * Return the features of a pair; null for a single text.
   *
   * All features are NaN if one of the texts has no known token.
   * @param {EncodedText} encoded
   * @returns {Float64Array | null}
   */
  function featuresOfPair(encoded) {
    const { second } = encoded;
    if (second === null) return null;
    const [first, last] = [false, true].map((part) =>
      encoded.ids.filter((_, i) => encoded.content[i] && second[i] === part),
    );
    if (first.length === 0 || last.length === 0) return new Float64Array(PAIR_FEATURES.length).fill(NaN);
    return pairFeatures(meanOfRows(first), meanOfRows(last), first, last);
  }

  /**
   * Return the input of layer 1: a row of `hiddenSize` numbers for each token.
   * @param {EncodedText} encoded
   * @returns {Float32Array}
   */
  function firstHidden(encoded) {
    const hidden = new Float32Array(encoded.tokens * hiddenSize);
    const row = new Float32Array(size);
    for (let t = 0; t < encoded.tokens; t += 1) {
      const id = encoded.ids[t];
      // encoders with one segment distinguish the texts of a pair by their separators
      const segment = segments > 1 ? encoded.typeIds[t] : 0;
      for (let i = 0; i < size; i += 1) {
        const sum = Math.fround(Math.fround(word[id * size + i] * scale[id]) + type[segment * size + i]);
        row[i] = sum + position[t * size + i];
      }
      normalise(row);
      project(row, hidden.subarray(t * hiddenSize, (t + 1) * hiddenSize));
    }
    return hidden;
  }

  /** Normalise a row in place. @param {Float32Array} row */
  function normalise(row) {
    const mean = Math.fround(row.reduce((sum, x) => sum + x, 0) / size);
    let squares = 0;
    for (let i = 0; i < size; i += 1) {
      row[i] -= mean;
      squares += row[i] * row[i];
    }
    const deviation = Math.fround(Math.sqrt(Math.fround(Math.fround(squares / size) + epsilon)));
    for (let i = 0; i < size; i += 1) {
      row[i] = Math.fround(Math.fround(row[i] / deviation) * gamma[i]) + beta[i];
    }
  }

  /** @param {Float32Array} row @param {Float32Array} into */
  function project(row, into) {
    if (projection === null || bias === null) {
      into.set(row);
      return;
    }
    for (let h = 0; h < hiddenSize; h += 1) {
      let sum = 0;
      for (let i = 0; i < size; i += 1) sum += row[i] * projection[h * size + i];
      into[h] = Math.fround(sum) + bias[h];
    }
  }

  return {
    size,
    hiddenSize,
    vocabulary: scale.length,
    maxTokens: position.length / size,
    meanWordEmbedding,
    pairFeatures: featuresOfPair,
    firstHidden,
  };
}

/** @param {ArrayBuffer} buffer */
function readTables(buffer) {
  const tensors = readSafetensors(buffer);
  const word = tensors.get("word");
  const [vocabulary, size] = word?.shape ?? [];
  if (word === undefined || word.shape.length !== 2 || !(word.data instanceof Int8Array)) {
    throw unusable("the word table must be of type int8");
  }
  const projected = tensors.get("projection");
  const hiddenSize = projected === undefined ? size : projected.shape[0];
  /** @param {string} name @param {...number} shape -1 for any length */
  const floats = (name, ...shape) => floatsOf(tensors, name, shape);
  return {
    size,
    hiddenSize,
    word: word.data,
    scale: floats("word_scale", vocabulary),
    position: floats("position", -1, size),
    type: floats("type", -1, size),
    gamma: floats("gamma", size),
    beta: floats("beta", size),
    epsilon: epsilonOf(tensors),
    projection: projected === undefined ? null : floats("projection", hiddenSize, size),
    bias: projected === undefined ? null : floats("projection_bias", hiddenSize),
  };
}

/**
 * @param {Map<string, Tensor>} tensors
 * @param {string} name
 * @param {number[]} shape
 * @returns {Float32Array}
 */
function floatsOf(tensors, name, shape) {
  const tensor = tensors.get(name);
  const fits =
    tensor !== undefined &&
    tensor.data instanceof Float32Array &&
    tensor.shape.length === shape.length &&
    shape.every((length, axis) => (length < 0 ? tensor.shape[axis] >= 1 : tensor.shape[axis] === length));
  if (!fits) throw unusable(`the table ${name} is missing or does not fit to the others`);
  const data = /** @type {Float32Array} */ (tensor.data);
  if (!data.every(Number.isFinite)) throw unusable(`the table ${name} holds numbers that are not finite`);
  return data;
}

/** @param {Map<string, Tensor>} tensors @returns {number} */
function epsilonOf(tensors) {
  const epsilon = Number(tensors.get("epsilon")?.data[0]);
  if (!Number.isFinite(epsilon)) throw unusable("epsilon is missing or not finite");
  return epsilon;
}

/** @param {string} problem */
function unusable(problem) {
  return new BundleError(`bundle: its embedding tables cannot be used (${problem}); download the bundle again`);
}
