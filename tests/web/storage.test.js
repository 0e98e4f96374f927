// The model's files and the outbox where storage is full or missing, or a server changes meanwhile.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { afterEach, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";

import { BundleStore } from "../../mobile_client/web/static/js/client/bundle-store.js";
import { Outbox } from "../../mobile_client/web/static/js/client/outbox.js";

/** @import { Database } from "../../mobile_client/web/static/js/client/database.js" */

const PAGE = "http://gateway/app/";
const { fetch } = globalThis;
Object.defineProperty(globalThis, "location", { value: new URL(PAGE) });

/** The browser's cache in memory. */
class MemoryCache {
  /** @type {Map<string, Uint8Array<ArrayBuffer>>} */
  kept = new Map();
  full = false;

  /** @param {string} url */
  async match(url) {
    const bytes = this.kept.get(url);
    return bytes === undefined ? undefined : new Response(bytes);
  }

  /** @param {string} url @param {Response} response */
  async put(url, response) {
    if (this.full) throw new DOMException("", "QuotaExceededError");
    this.kept.set(url, new Uint8Array(await response.arrayBuffer()));
  }

  /** @param {Request} request */
  async delete({ url }) {
    return this.kept.delete(url);
  }

  async keys() {
    return [...this.kept.keys()].map((url) => ({ url }));
  }
}

let cache = new MemoryCache();
/** Files of the server, by their address. @type {Map<string, Uint8Array<ArrayBuffer> | ReadableStream>} */
let served = new Map();
/** @type {string[]} */
let asked = [];
/** Called before a file is sent. @type {(name: string) => void} */
let before = () => undefined;

/** Serve a bundle of some files. @param {Record<string, string>} texts */
function serve(texts) {
  served.clear();
  /** @type {Record<string, {bytes: number, sha256: string}>} */
  const files = {};
  for (const [name, text] of Object.entries(texts)) {
    const bytes = new Uint8Array(gzipSync(text));
    files[name] = { bytes: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") };
    served.set(name, bytes);
  }
  served.set("manifest.json", new TextEncoder().encode(JSON.stringify({ format_version: 1, files })));
}

async function download() {
  const store = new BundleStore("bundle/", () => ({}));
  const manifest = await store.latestManifest();
  const bundle = await store.downloadLatest(manifest, () => undefined);
  const texts = [...bundle.files].map(([name, bytes]) => [name, new TextDecoder().decode(bytes)]);
  return { store, bundle, texts: Object.fromEntries(texts) };
}

beforeEach(() => {
  cache = new MemoryCache();
  served = new Map();
  asked = [];
  before = () => undefined;
  Object.assign(globalThis, { caches: { open: async () => cache } });
  globalThis.fetch = async (url, init) => {
    const name = String(url).slice(`${PAGE}bundle/`.length);
    asked.push(name);
    before(name);
    const body = served.get(name);
    if (body === undefined) return new Response("", { status: 404 });
    const response = new Response(body);
    init?.signal?.addEventListener("abort", () => response.body?.cancel());
    return response;
  };
});
afterEach(() => {
  globalThis.fetch = fetch;
});

for (const [change, texts] of /** @type {[string, Record<string, string>][]} */ ([
  ["another file", { "a.gz": "a", "b.gz": "new" }],
  ["fewer files", { "a.gz": "a" }],
])) {
  test(`a bundle that is replaced by one with ${change} during the download`, async () => {
    serve({ "a.gz": "a", "b.gz": "old" });
    before = (name) => {
      if (name !== "b.gz") return;
      before = () => undefined;
      serve(texts);
    };
    const found = await download();
    assert.deepEqual(found.texts, Object.fromEntries(Object.entries(texts).map(([name, text]) => [name.slice(0, 1), text])));
    assert.equal(asked.filter((name) => name === "a.gz").length, 1, "what is the same is not downloaded again");
    assert.ok(await found.store.adopt(found.bundle.manifest));
    assert.deepEqual([...((await found.store.kept())?.files.keys() ?? [])].sort(), Object.keys(found.texts));
  });
}

test("a file that is not the manifest's is refused, and so is a server that changes without end", async () => {
  serve({ "a.gz": "a", "b.gz": "b" });
  served.set("b.gz", new Uint8Array(gzipSync("other")));
  await assert.rejects(download(), { message: /b\.gz is not the file that manifest\.json describes/ });
  let version = 0;
  before = (name) => {
    version += 1;
    if (name !== "manifest.json") serve({ "b.gz": `version ${version}` });
  };
  serve({ "b.gz": "b" });
  await assert.rejects(download(), { message: /b\.gz is not the file/ });
  assert.ok(version < 20);
});

test("a download that stalls in the middle of a file is broken off, and goes on with that file", async () => {
  serve({ "a.gz": "a", "b.gz": "b" });
  const whole = /** @type {Uint8Array<ArrayBuffer>} */ (served.get("b.gz"));
  /** @type {() => void} */
  let sent = () => undefined;
  const half = new Promise((/** @type {(value: void) => void} */ resolve) => {
    sent = resolve;
  });
  const stalled = new ReadableStream({
    start: (controller) => controller.enqueue(whole.slice(0, 5)),
    pull: () => sent(),
  });
  served.set("b.gz", stalled);
  globalThis.fetch = async (url, init) => {
    const name = String(url).slice(`${PAGE}bundle/`.length);
    asked.push(name);
    if (served.get(name) !== stalled) return new Response(/** @type {any} */ (served.get(name)));
    const broken = new TransformStream();
    stalled.pipeTo(broken.writable, { signal: init?.signal ?? undefined }).catch(() => undefined);
    return new Response(broken.readable);
  };
  const { setTimeout: later } = globalThis;
  /** @type {(() => void)[]} */
  const timers = [];
  globalThis.setTimeout = /** @type {any} */ ((/** @type {() => void} */ work) => timers.push(work));
  const downloading = assert.rejects(download(), { message: /the download broke off; connect to the network and try again/ });
  await half;
  await new Promise((resolve) => setImmediate(resolve));
  for (const elapse of timers) elapse();
  await downloading;
  globalThis.setTimeout = later;
  served.set("b.gz", whole);
  asked = [];
  assert.deepEqual((await download()).texts, { a: "a", b: "b" });
  assert.deepEqual(asked, ["manifest.json", "b.gz"]);
});

test("without room the bundle works and is not kept, and the older one stays", async () => {
  serve({ "a.gz": "old" });
  const first = await download();
  assert.ok(await first.store.adopt(first.bundle.manifest));
  serve({ "a.gz": "new" });
  cache.full = true;
  const second = await download();
  assert.deepEqual([second.texts, second.bundle.kept], [{ a: "new" }, false]);
  assert.equal(await second.store.adopt(second.bundle.manifest), false);
  assert.equal(new TextDecoder().decode((await second.store.kept())?.files.get("a")), "old");
});

test("a bundle whose files another tab has removed is not called kept", async () => {
  serve({ "a.gz": "old" });
  const old = await download();
  serve({ "a.gz": "new" });
  const present = await download();
  assert.ok(await old.store.adopt(old.bundle.manifest));
  assert.equal(await present.store.adopt(present.bundle.manifest), false);
  assert.equal(new TextDecoder().decode((await present.store.kept())?.files.get("a")), "old");
});

test("an outbox without a database says what to do, and forgets no end of an attempt", async () => {
  const run = () => Promise.reject(new DOMException("", "SecurityError"));
  const database = /** @type {Database} */ (/** @type {unknown} */ ({ run, getOrCreate: run }));
  const outbox = new Outbox(database, "page");
  const problem = /the browser's database cannot be used \(SecurityError\); allow this site to store data/;
  assert.match((await outbox.counts()).problem ?? "", problem);
  await assert.rejects(outbox.hashText("a text", null), { name: "NotReady", message: problem });
  const entry = { attempt_id: "a", side: "caller", request_id: "r", tier: "edge", state: "answered", started_at: 1 };
  await outbox.recordOrBuffer(/** @type {any} */ (entry));
  const { waiting, problem: shown } = await outbox.counts();
  assert.equal(waiting, 1);
  assert.match(shown ?? "", problem);
});
