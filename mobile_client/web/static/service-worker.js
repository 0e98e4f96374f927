// Keeps the app's own files, so that it opens without a network. The model is kept by the page.

// written by: python -m tests.support.app_files
/** @type {Record<string, string>} First 16 digits of the SHA-256 of each file. */
const FILES = {
  "app-results.css": "982ed653cf0a3556",
  "app.css": "a464ea5e977352da",
  "icons/icon-192.png": "f4fe75c06917c397",
  "icons/icon-512.png": "b0ec709ee3f51d02",
  "icons/icon-maskable-512.png": "fd836de1c646feca",
  "icons/icon.svg": "d3682a06212549d8",
  "index.html": "44797a88ea68fe97",
  "js/client/answer-rules.js": "8929b861f51f1bf0",
  "js/client/bundle-store.js": "36677bb4302db883",
  "js/client/client.js": "febc7896d3930d17",
  "js/client/config.js": "9d60542212af42e6",
  "js/client/credentials.js": "4e7cdfc1d830bbc7",
  "js/client/database.js": "4de6f90a8ac29930",
  "js/client/delivery.js": "a8181124272081f2",
  "js/client/download.js": "35432f82e83a1c35",
  "js/client/local-model.js": "f969509f938305ce",
  "js/client/model-worker.js": "67453563d67fe8fc",
  "js/client/model.js": "2ced9409177e37c8",
  "js/client/outbox.js": "fd7f4224c346746e",
  "js/client/page-locks.js": "66ae5dc0d1bcc5d3",
  "js/client/prober.js": "48617518dcf7b056",
  "js/client/request.js": "399b5c0d1684d23f",
  "js/client/runner.js": "c970f3d2cb2685bb",
  "js/client/tier-client.js": "1c3831ace12ed3f3",
  "js/client/tier-response.js": "e9a85f963db71ed6",
  "js/core/attempt-entries.js": "4cd47fc508fa22b6",
  "js/core/bert-text.js": "8d35fe3774256840",
  "js/core/bundle-check.js": "b6cd48710f08ff62",
  "js/core/circuit-breaker.js": "2a42b0039ebbe50e",
  "js/core/conditions.js": "f1e37c18c024ac94",
  "js/core/correctness-heads.js": "919b7cf89b5e9768",
  "js/core/cost-model.js": "f7455ddb9f0e6458",
  "js/core/decide.js": "3dd72875b6d03543",
  "js/core/decision-record.js": "25b0c60e35affe90",
  "js/core/domain.js": "87ea935f0dd3be32",
  "js/core/embeddings.js": "4edf5e38d19e9e27",
  "js/core/errors.js": "63f4b676a8b2780d",
  "js/core/exchange.js": "15b4375514cb5e0e",
  "js/core/ids.js": "39787d07026101f2",
  "js/core/layers.js": "1e9e490853f71b8a",
  "js/core/ledger-entry.js": "057040153b22de10",
  "js/core/options.js": "3d228eff22c7ff34",
  "js/core/pair-features.js": "1b2d811d6d9ef872",
  "js/core/policies/adaee.js": "6d283d5e524c0208",
  "js/core/policies/cascade-routing.js": "afc88992dcce9586",
  "js/core/policies/centroids.js": "5a925b53726f4770",
  "js/core/policies/static.js": "0c36756d4b26346d",
  "js/core/policies.js": "86249761772f480b",
  "js/core/price-book.js": "4483d5faf8df9377",
  "js/core/request-state.js": "ee591b9e5634b1a4",
  "js/core/router.js": "6ff97f5df08a256e",
  "js/core/safetensors.js": "a4b068c11787aa68",
  "js/core/text-checks.js": "b0abdbec2457c0c2",
  "js/core/text-encoder.js": "ba24dd72bbbc6904",
  "js/core/tier-selector.js": "33c6fb29d2faf10b",
  "js/core/tier-stats.js": "0c283a20372e6cf1",
  "js/core/unicode-categories.js": "0bbd76130d847b43",
  "js/page/answer.js": "178a42b7058e7fad",
  "js/page/bars.js": "cdff33604f9166b0",
  "js/page/dom.js": "1b29e671a5b02812",
  "js/page/form.js": "a04d8f3d68ae4abe",
  "js/page/format.js": "d12a3e9a12baa335",
  "js/page/history.js": "4bf91553d78698f2",
  "js/page/install.js": "a019ddcc6b205271",
  "js/page/loading.js": "47ac4706490f0763",
  "js/page/main.js": "6b4dd587c07ea987",
  "js/page/session.js": "916522e91941dc49",
  "js/page/status.js": "70c740f3a8ef8e11",
  "manifest.webmanifest": "d9006226c803a786",
  "shared/announce.js": "4b224361fe17aaa1",
  "shared/components.css": "886c985653ace7be",
  "shared/first-paint.js": "bfbc154c34feaef7",
  "shared/theme.css": "398f1a6129df4fc6",
  "shared/theme.js": "8d45d045e558e99f",
  "vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm.gz": "09e7a4d1376f589d",
  "vendor/onnxruntime-web/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1",
  "vendor/tokenizers/tokenizers.min.mjs": "258e46332101335c",
};
// end of what is written

const CACHE = "dimee-app";
const PAGE = "index.html";
/** Longest wait for the page's present headers. */
const HEADERS_MS = 1_000;
const worker = /** @type {any} */ (self);

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(keepAll()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(use()));
worker.addEventListener("message", (/** @type {any} */ event) => {
  if (event.data === "use") worker.skipWaiting();
});
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const name = nameOf(event.request);
  if (name === PAGE) event.respondWith(page(event.request));
  else if (name !== null) event.respondWith(kept(name, event.request));
});

/** Return the file that a request asks for, or null if it is none of the app's. @param {Request} request */
function nameOf(request) {
  const url = new URL(request.url);
  const folder = new URL("./", location.href);
  if (request.method !== "GET" || url.origin !== folder.origin || !url.pathname.startsWith(folder.pathname)) return null;
  const name = url.pathname.slice(folder.pathname.length) || PAGE;
  return Object.hasOwn(FILES, name) ? name : null;
}

/**
 * Return the page: its headers are the server's if it can be reached, because they change without the
 * file, such as the origins that the page may call. Another version of it comes with all of its files.
 * @param {Request} request
 */
async function page(request) {
  const asked = fetch(request.url, { cache: "no-cache", signal: AbortSignal.timeout(HEADERS_MS) });
  const fresh = await asked.catch(() => null);
  const bytes = fresh?.ok ? await fresh.arrayBuffer().catch(() => null) : null;
  if (fresh === null || bytes === null || (await digestOf(bytes)) !== FILES[PAGE]) return kept(PAGE, request);
  const response = new Response(bytes, { headers: fresh.headers });
  const cache = await caches.open(CACHE);
  await cache.put(addressOf(PAGE), response.clone()).catch(() => undefined);
  return response;
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
      const bytes = await response.arrayBuffer();
      if (!response.ok || (await digestOf(bytes)) !== digest) {
        throw new Error(`${name} is not the file of this version`);
      }
      // a new one, because a browser opens no page from a response that was redirected
      await cache.put(addressOf(name), new Response(bytes, { headers: response.headers }));
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
  // Not waited for: Firefox does not end it while a thread of the layers waits for work, and until the
  // activation has ended, no call of the page goes on.
  worker.clients.claim().catch(() => undefined);
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
