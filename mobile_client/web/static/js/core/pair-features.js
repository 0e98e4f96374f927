// Features of a pair of texts, computed without running a layer, as in shared/bundle/pair_features.py.

/** Names of the features, in order. */
export const PAIR_FEATURES = [
  "cosine",
  "dot_product",
  "distance",
  "mean_difference",
  "largest_difference",
  "jaccard",
  "overlap_of_first",
  "overlap_of_second",
  "log_first_tokens",
  "log_second_tokens",
  "log_length_ratio",
  "first_norm",
  "second_norm",
];

/**
 * Return the features from the mean word embedding and the token ids of each text.
 * @param {Float32Array} first
 * @param {Float32Array} second
 * @param {number[]} firstIds without special tokens, at least one
 * @param {number[]} secondIds without special tokens, at least one
 * @returns {Float64Array}
 */
export function pairFeatures(first, second, firstIds, secondIds) {
  const size = first.length;
  let [dot, firstSquares, secondSquares, squares, total, largest] = [0, 0, 0, 0, 0, 0];
  for (let i = 0; i < size; i += 1) {
    const difference = Math.abs(first[i] - second[i]);
    dot += first[i] * second[i];
    firstSquares += first[i] * first[i];
    secondSquares += second[i] * second[i];
    squares += difference * difference;
    total += difference;
    largest = Math.max(largest, difference);
  }
  const norms = [Math.sqrt(firstSquares), Math.sqrt(secondSquares)];
  const [firstSet, secondSet] = [new Set(firstIds), new Set(secondIds)];
  const common = [...firstSet].filter((id) => secondSet.has(id)).length;
  const lengths = [Math.log(firstIds.length), Math.log(secondIds.length)];
  return Float64Array.from([
    dot / Math.max(norms[0] * norms[1], 1e-12),
    dot,
    Math.sqrt(squares),
    total / size,
    largest,
    common / (firstSet.size + secondSet.size - common),
    common / firstSet.size,
    common / secondSet.size,
    ...lengths,
    Math.abs(lengths[0] - lengths[1]),
    ...norms,
  ]);
}
