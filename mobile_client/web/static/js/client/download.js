// Downloads that are broken off if they stall, and whose size is bounded.

import { BundleError } from "../core/errors.js";

/** A download that gets nothing for this long is broken off, so that it can be tried again. */
const STALLED_MS = 30_000;

/**
 * Return the result of a download, which gets a signal that breaks it off if it stalls, and a function to
 * call whenever something has come.
 * @template T
 * @param {(signal: AbortSignal, came: () => void) => Promise<T>} download
 * @returns {Promise<T>}
 */
export async function unlessStalled(download) {
  const stalled = new AbortController();
  const stall = () => stalled.abort();
  let timer = setTimeout(stall, STALLED_MS);
  const came = () => {
    clearTimeout(timer);
    timer = setTimeout(stall, STALLED_MS);
  };
  try {
    return await download(stalled.signal, came);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Return the bytes of a stream: more than `most` if it has more, but not all of them.
 * @param {ReadableStream<Uint8Array> | null} stream
 * @param {number} most
 * @param {string} broken Sentence for a stream that fails.
 * @param {(count: number) => void} [onBytes]
 */
export async function read(stream, most, broken, onBytes = () => undefined) {
  /** @type {Uint8Array[]} */
  const chunks = [];
  let length = 0;
  try {
    const reader = stream?.getReader();
    while (reader !== undefined && length <= most) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
      length += value.byteLength;
      onBytes(value.byteLength);
    }
    if (length > most) await reader?.cancel();
  } catch {
    throw new BundleError(broken);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}
