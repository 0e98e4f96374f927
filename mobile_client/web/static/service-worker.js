// Keeps the app's own files, so that it opens without a network. The model is kept by the page.

// written by: python -m tests.support.app_files
/** @type {Record<string, string>} First 16 digits of the SHA-256 of each file. */
const FILES = {};
// end of what is written

const CACHE = "dimee-app";
const worker = /** @type {any} */ (self);

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(keepAll()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(use()));
worker.addEventListener("message", (/** @type {any} */ event) => {
  if (event.data === "use") worker.skipWaiting();
});
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const name = nameOf(event.request);
  if (name !== null) event.respondWith(kept(name, event.request));
});

/** Return the file that a request asks for, or null if it is none of the app's. @param {Request} request */
function nameOf(request) {
  const url = new URL(request.url);
  const folder = new URL("./", location.href);
  if (request.method !== "GET" || url.origin !== folder.origin || !url.pathname.startsWith(folder.pathname)) return null;
  const name = url.pathname.slice(folder.pathname.length) || "index.html";
  return Object.hasOwn(FILES, name) ? name : null;
}

/** @param {string} name @param {Request} request */
async function kept(name, request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(addressOf(name)).catch(() => undefined)) ?? fetch(request);
}

/** Keep each file of this version; throws if one is not of it, and the browser tries again later. */
async function keepAll() {
  const cache = await caches.open(CACHE);
  await Promise.all(
    Object.entries(FILES).map(async ([name, digest]) => {
      if ((await cache.match(addressOf(name))) !== undefined) return;
      const response = await fetch(name, { cache: "no-cache" });
      const bytes = await response.clone().arrayBuffer();
      if (!response.ok || (await digestOf(bytes)) !== digest) {
        throw new Error(`${name} is not the file of this version`);
      }
      await cache.put(addressOf(name), response);
    }),
  );
}

/** Answer the pages of the app from now on, and remove the files of earlier versions. */
async function use() {
  const cache = await caches.open(CACHE);
  const needed = new Set(Object.keys(FILES).map(addressOf));
  for (const request of await cache.keys()) {
    if (!needed.has(request.url)) await cache.delete(request);
  }
  await worker.clients.claim();
}

/** Return the address under which a file of this version is kept. @param {string} name */
function addressOf(name) {
  return new URL(`${name}?${FILES[name]}`, location.href).href;
}

/** @param {ArrayBuffer} bytes */
async function digestOf(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
