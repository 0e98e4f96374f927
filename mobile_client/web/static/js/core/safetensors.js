// Reads a safetensors file: the length of a JSON header as 8 bytes, the header, then the tensors.

import { BundleError } from "./errors.js";

const LARGEST_HEADER_BYTES = 1_000_000;

/** @type {Record<string, Float32ArrayConstructor | Float64ArrayConstructor | Int8ArrayConstructor>} */
const KINDS = { F32: Float32Array, F64: Float64Array, I8: Int8Array };

/** @typedef {{shape: number[], data: Float32Array | Float64Array | Int8Array}} Tensor */

/**
 * Return the tensors by name; throws `BundleError` for another file.
 * @param {ArrayBuffer} buffer
 * @returns {Map<string, Tensor>}
 */
export function readSafetensors(buffer) {
  if (buffer.byteLength < 8) throw unusable("it is too short");
  const headerBytes = Number(new DataView(buffer).getBigUint64(0, true));
  if (headerBytes > Math.min(LARGEST_HEADER_BYTES, buffer.byteLength - 8)) throw unusable("its header is too long");
  /** @type {Record<string, any>} */
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, headerBytes)));
  } catch {
    throw unusable("its header is not JSON");
  }
  /** @type {Map<string, Tensor>} */
  const tensors = new Map();
  for (const [name, facts] of Object.entries(header)) {
    if (name !== "__metadata__") tensors.set(name, tensorOf(name, facts, buffer, 8 + headerBytes));
  }
  return tensors;
}

/**
 * @param {string} name
 * @param {any} facts
 * @param {ArrayBuffer} buffer
 * @param {number} first position of the first tensor
 * @returns {Tensor}
 */
function tensorOf(name, facts, buffer, first) {
  const kind = KINDS[facts?.dtype];
  if (kind === undefined) throw unusable(`the table ${name} has the type ${facts?.dtype}`);
  const { shape, data_offsets: offsets } = facts;
  const bytes = shape.reduce((/** @type {number} */ product, /** @type {number} */ size) => product * size, kind.BYTES_PER_ELEMENT);
  const [begin, end] = [first + offsets[0], first + offsets[1]];
  if (end - begin !== bytes || begin < first || end > buffer.byteLength) {
    throw unusable(`the table ${name} is not as long as its shape says`);
  }
  // a copy, because a table need not begin where its type could be read in place
  return { shape, data: new kind(buffer.slice(begin, end)) };
}

/** @param {string} problem */
function unusable(problem) {
  return new BundleError(`bundle: embeddings.safetensors cannot be read (${problem}); download the bundle again`);
}
