// Checks that the parts of a mobile bundle fit together, as shared/inference/classifier.py does.

import { BundleError } from "./errors.js";

/** @import { Manifest } from "./domain.js" */
/** @import { PolicyFacts } from "./policies.js" */

/**
 * Throw `BundleError` unless tokenizer, embeddings and router fit together and to the manifest.
 * @param {Manifest} manifest
 * @param {{vocabulary: number}} encoder
 * @param {{size: number, hiddenSize: number, vocabulary: number, maxTokens: number}} embeddings
 * @param {PolicyFacts} facts
 */
export function checkParts(manifest, encoder, embeddings, facts) {
  const problems = [
    [embeddings.hiddenSize !== manifest.hidden_size, "the embeddings do not fit to the layers"],
    [embeddings.maxTokens < manifest.max_tokens, "the embeddings have too few positions"],
    [encoder.vocabulary > embeddings.vocabulary, "the tokenizer has more tokens than the embeddings"],
    [facts.centroids.some((row) => row.length !== embeddings.size), "the router is for other embeddings"],
  ];
  const problem = problems.find(([wrong]) => wrong);
  if (problem !== undefined) throw new BundleError(`bundle: ${problem[1]}; download the bundle again`);
}
