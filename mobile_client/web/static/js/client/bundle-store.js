// The mobile bundle: downloaded once, checked against its manifest each time, kept for offline use.
//
// Files are kept by the SHA-256 of their content, so that a new bundle does not disturb the old one
// until it is complete, and a file that both have is not downloaded again.

import { BundleError, Unauthorised } from "../core/errors.js";
import { read, unlessStalled } from "./download.js";
import { hex } from "./outbox.js";

/** @import { Manifest } from "../core/domain.js" */

const CACHE = "dimee-bundle";
const FORMAT_VERSION = 1;
const MAX_MANIFEST_BYTES = 1024 * 1024;
const MAX_FILE_BYTES = 512 * 1024 * 1024;
/** Largest size of a decompressed file, in sizes of the compressed one; the shipped ones need 5. */
const MAX_RATIO = 100;
/** Most bundles that replace one another during a download. */
const MOST_REPLACED = 3;
const UNREACHED = "bundle: the server cannot be reached; connect to the network and try again";
const BROKEN_OFF = "bundle: the download broke off; connect to the network and try again";

/**
 * @typedef {object} Bundle
 * @property {Manifest & Record<string, any>} manifest
 * @property {Map<string, ArrayBuffer>} files Content by path, decompressed; ".gz" is not in the path.
 * @property {boolean} kept True if the bundle is there for offline use.
 */
/** @typedef {{loadedBytes: number, totalBytes: number}} Progress */

/** Downloads and keeps the bundle at one address. */
export class BundleStore {
  /**
   * @param {string} url Address of the bundle's folder, relative to the page or absolute.
   * @param {() => Record<string, string>} headers Headers with the device's token.
   */
  constructor(url, headers) {
    this._url = new URL(url.endsWith("/") ? url : `${url}/`, location.href);
    this._manifestUrl = new URL("manifest.json", this._url).href;
    this._headers = headers;
  }

  /**
   * Return the bundle that is kept on this device, or null if there is none or it is damaged.
   * @returns {Promise<Bundle | null>}
   */
  async kept() {
    const cache = await openCache();
    const response = await cache?.match(this._manifestUrl).catch(() => undefined);
    if (!cache || !response) return null;
    try {
      const manifest = checked(await response.json());
      const files = await Promise.all(
        Object.entries(manifest.files).map(async ([path, { sha256 }]) => {
          const bytes = await this.#cached(cache, sha256);
          if (bytes === null) throw new BundleError(`${path} is missing or damaged`);
          return content(path, bytes);
        }),
      );
      return { manifest, files: new Map(files), kept: true };
    } catch {
      return null; // it is downloaded again
    }
  }

  /**
   * Return the manifest that the server has now.
   * @returns {Promise<Manifest & Record<string, any>>}
   */
  async latestManifest() {
    const bytes = await this.#fetch(this._manifestUrl, "no-store", MAX_MANIFEST_BYTES, () => undefined);
    try {
      return checked(JSON.parse(new TextDecoder().decode(bytes)));
    } catch (error) {
      if (error instanceof BundleError) throw error;
      throw new BundleError("bundle: manifest.json is not valid JSON; export the mobile bundle again");
    }
  }

  /**
   * Download the server's bundle; if it is replaced meanwhile, the one that takes its place.
   * @param {Manifest & Record<string, any>} manifest Of `latestManifest`.
   * @param {(progress: Progress) => void} onProgress
   * @returns {Promise<Bundle>}
   */
  async downloadLatest(manifest, onProgress) {
    for (let replaced = 0; ; replaced += 1) {
      try {
        return await this.download(manifest, onProgress);
      } catch (error) {
        if (!(error instanceof OtherFile) || replaced === MOST_REPLACED) throw error;
        const latest = await this.latestManifest();
        if (JSON.stringify(latest) === JSON.stringify(manifest)) throw error;
        manifest = latest;
      }
    }
  }

  /**
   * Download what is missing of a bundle and keep its files; `adopt` makes it the one of this device.
   * @param {Manifest & Record<string, any>} manifest Of `latestManifest`.
   * @param {(progress: Progress) => void} onProgress
   * @returns {Promise<Bundle>}
   */
  async download(manifest, onProgress) {
    const cache = await openCache();
    const wanted = Object.entries(manifest.files);
    /** @type {Map<string, Uint8Array<ArrayBuffer>>} */
    const have = new Map();
    for (const [path, { sha256 }] of wanted) {
      const bytes = cache === null ? null : await this.#cached(cache, sha256);
      if (bytes !== null) have.set(path, bytes);
    }
    const missing = wanted.filter(([path]) => !have.has(path));
    const totalBytes = missing.reduce((sum, [, { bytes }]) => sum + bytes, 0);
    let loadedBytes = 0;
    let kept = cache !== null;
    onProgress({ loadedBytes, totalBytes });
    const ended = await Promise.allSettled(
      wanted.map(async ([path, facts]) => {
        let bytes = have.get(path);
        if (bytes === undefined) {
          bytes = await this.#download(path, facts, (count) => {
            loadedBytes += count;
            onProgress({ loadedBytes, totalBytes });
          });
          kept = (await this.#keep(cache, facts.sha256, bytes)) && kept;
        }
        return content(path, bytes);
      }),
    );
    // only now, so that the files that have arrived are not downloaded again
    const files = ended.map((one) => {
      if (one.status === "rejected") throw one.reason;
      return one.value;
    });
    return { manifest, files: new Map(files), kept };
  }

  /**
   * Make a bundle, whose files are kept, the one that `kept` returns, and remove the files of others.
   *
   * Call it once the bundle is known to work, because it takes the place of one that does. Returns
   * false if the browser cannot keep it.
   * @param {Manifest} manifest
   * @returns {Promise<boolean>}
   */
  async adopt(manifest) {
    const cache = await openCache();
    if (cache === null) return false;
    try {
      const needed = new Set(Object.values(manifest.files).map((facts) => this.#address(facts.sha256)));
      for (const address of needed) {
        // another tab may have removed it for another bundle
        if ((await cache.match(address)) === undefined) return false;
      }
      await cache.put(this._manifestUrl, new Response(JSON.stringify(manifest)));
      needed.add(this._manifestUrl);
      for (const request of await cache.keys()) {
        if (!needed.has(request.url)) await cache.delete(request);
      }
      return true;
    } catch {
      return false;
    }
  }

  /** Remove the bundle from this device. */
  async remove() {
    await caches.delete(CACHE);
  }

  /**
   * @param {string} path
   * @param {{bytes: number, sha256: string}} facts
   * @param {(count: number) => void} onBytes
   */
  async #download(path, facts, onBytes) {
    const url = new URL(path, this._url);
    // the second time without the browser's own cache, which may hold another version
    for (const cache of /** @type {RequestCache[]} */ (["default", "reload"])) {
      let count = 0;
      const bytes = await this.#fetch(url.href, cache, facts.bytes, (more) => {
        count += more;
        onBytes(more);
      });
      if (bytes.byteLength === facts.bytes && (await sha256(bytes)) === facts.sha256) return bytes;
      onBytes(-count);
    }
    throw new OtherFile(
      `bundle: ${path} is not the file that manifest.json describes; if a server compresses it ` +
        "again, turn that off, else export the mobile bundle again",
    );
  }

  /**
   * Return the body of a file, at most `most` bytes and one piece more.
   * @param {string} url
   * @param {RequestCache} cache
   * @param {number} most
   * @param {(count: number) => void} onBytes
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  #fetch(url, cache, most, onBytes) {
    return unlessStalled(async (signal, came) => {
      const asked = fetch(url, { headers: this._headers(), cache, credentials: "omit", signal });
      const response = await asked.catch(() => {
        throw new BundleError(UNREACHED);
      });
      if (response.status === 401 || response.status === 403) {
        throw new Unauthorised("the model needs a token with the scope classify; sign in");
      }
      if (!response.ok) {
        const kind = response.status === 404 ? OtherFile : BundleError;
        throw new kind(`bundle: the server answered with status ${response.status}; check its log`);
      }
      return read(response.body, most, BROKEN_OFF, (count) => {
        came();
        onBytes(count);
      });
    });
  }

  /** @param {Cache} cache @param {string} digest */
  async #cached(cache, digest) {
    try {
      const response = await cache.match(this.#address(digest));
      if (response === undefined) return null;
      const bytes = new Uint8Array(await response.arrayBuffer());
      return (await sha256(bytes)) === digest ? bytes : null;
    } catch {
      return null; // the browser's cache is damaged: the file is downloaded again
    }
  }

  /** @param {Cache | null} cache @param {string} digest @param {Uint8Array<ArrayBuffer>} bytes */
  async #keep(cache, digest, bytes) {
    try {
      await cache?.put(this.#address(digest), new Response(bytes));
      return cache !== null;
    } catch {
      return false; // no space: the app works, but not offline
    }
  }

  /** @param {string} digest */
  #address(digest) {
    return new URL(`kept/${digest}`, this._url).href;
  }
}

/** The server has another file than the manifest describes, or none. */
class OtherFile extends BundleError {}

/** @returns {Promise<Cache | null>} */
async function openCache() {
  try {
    return await caches.open(CACHE);
  } catch {
    return null; // storage is blocked
  }
}

/** @param {any} manifest @returns {Manifest & Record<string, any>} */
function checked(manifest) {
  if (manifest?.format_version !== FORMAT_VERSION) {
    throw new BundleError(
      `bundle: manifest.json has format ${manifest?.format_version}, and this app reads ` +
        `${FORMAT_VERSION}; run the same version of dimee everywhere`,
    );
  }
  const files = Object.entries(manifest.files ?? {});
  const valid = files.every(
    ([path, facts]) =>
      /^[a-z0-9][a-z0-9._/-]*$/.test(path) &&
      !path.includes("..") &&
      Number.isSafeInteger(facts?.bytes) &&
      facts.bytes >= 0 &&
      facts.bytes <= MAX_FILE_BYTES &&
      /^[0-9a-f]{64}$/.test(facts.sha256),
  );
  if (files.length === 0 || !valid) {
    throw new BundleError("bundle: manifest.json lists its files in an unknown form; export it again");
  }
  return manifest;
}

/**
 * Return the content of a file and its path without ".gz"; throws `BundleError` for a damaged one.
 * @param {string} path
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<[string, ArrayBuffer]>}
 */
async function content(path, bytes) {
  if (!path.endsWith(".gz")) return [path, bytes.buffer];
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const most = Math.min(MAX_FILE_BYTES, MAX_RATIO * bytes.byteLength);
  const broken = `bundle: ${path} cannot be decompressed; export the mobile bundle again`;
  const decompressed = await read(stream, most, broken);
  if (decompressed.byteLength > most) throw new BundleError(broken);
  return [path.slice(0, -".gz".length), decompressed.buffer];
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function sha256(bytes) {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}
