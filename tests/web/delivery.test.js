// Deliveries to a ledger that refuses, limits or is slow: no entry is lost that may still be stored.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

/** @import { Outbox, Row } from "../../mobile_client/web/static/js/client/outbox.js" */

const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.removeEventListener = page.removeEventListener.bind(page);
globalThis.document = /** @type {Document} */ (new EventTarget());
/** @type {(name: string, options: object, work: (lock: object) => unknown) => Promise<unknown>} */
const request = async (_name, _options, work) => work({});
Object.defineProperty(globalThis, "navigator", { value: { onLine: true, locks: { request } } });
const { Delivery } = await import("../../mobile_client/web/static/js/client/delivery.js");
const { fetch } = globalThis;

/** The rows of an outbox in memory. */
class Rows {
  /** @type {Row[]} */
  waiting;
  /** @type {Row[]} */
  refused = [];
  onChange = () => undefined;
  pagesWithOpenAttempts = async () => [];

  /** @param {string[]} bodies */
  constructor(bodies) {
    this.waiting = bodies.map((body, at) => ({ attempt_id: String(at), side: "caller", version: 1, body }));
  }

  /** @param {number} limit */
  async pending(limit) {
    return this.waiting.slice(0, limit);
  }

  /** @param {Row[]} rows */
  async markDelivered(rows) {
    this.waiting = this.waiting.filter((row) => !rows.includes(row));
    return true;
  }

  /** @param {Row} row */
  async quarantine(row) {
    this.refused.push(row);
    await this.markDelivered([row]);
  }
}

/** @type {InstanceType<typeof Delivery>[]} */
const running = [];

/**
 * Start deliveries of entries to a ledger that answers each call as `answer` says.
 * @param {string[]} bodies
 * @param {(entries: unknown[], init: RequestInit) => Response | Promise<Response>} answer
 */
function start(bodies, answer) {
  const rows = new Rows(bodies);
  globalThis.fetch = async (_url, init = {}) => {
    const body = new TextDecoder().decode(/** @type {Uint8Array<ArrayBuffer>} */ (init.body));
    return answer(JSON.parse(body).entries, init);
  };
  const outbox = /** @type {Outbox} */ (/** @type {unknown} */ (rows));
  const delivery = new Delivery(outbox, { url: "http://gateway/ledger", headers: () => ({}), jitter: () => 0 });
  running.push(delivery);
  const changed = change(delivery);
  delivery.start();
  return { delivery, rows, changed };
}

/** Return after the next delivery. @param {InstanceType<typeof Delivery>} delivery @returns {Promise<void>} */
function change(delivery) {
  return new Promise((resolve) => delivery.onChange(resolve));
}

/** @param {number} status @param {string} code */
function refusal(status, code) {
  return Response.json({ error: { code, message: "x" } }, { status });
}

/** @param {unknown[]} entries */
function stored(entries) {
  return Response.json({ stored: entries.length, duplicates: 0 });
}

afterEach(async () => {
  await Promise.all(running.splice(0).map((delivery) => delivery.stop()));
  globalThis.fetch = fetch;
});

for (const [status, code, problem] of /** @type {[number, string, RegExp][]} */ ([
  [400, "bad_request", /status 400/],
  [401, "unauthorised", /sign in again/],
  [403, "forbidden", /sign in again/],
  [404, "not_found", /check its address/],
  [408, "request_timeout", /too slowly/],
  [409, "bundle_mismatch", /status 409/],
  [413, "of another server", /status 413/],
  [422, "of another server", /status 422/],
  [429, "rate_limited", /limits this device's rate/],
  [431, "head_too_large", /status 431/],
  [503, "ledger_unavailable", /cannot store entries now/],
])) {
  test(`an entry waits if the ledger answers ${status} ${code}`, async () => {
    const { delivery, rows, changed } = start(["{}"], () => refusal(status, code));
    await changed;
    assert.match(delivery.status().problem ?? "", problem);
    assert.deepEqual([rows.waiting.length, rows.refused], [1, []]);
    assert.equal(delivery.status().signedOut, status === 401 || status === 403);
  });
}

test("an answer that confirms fewer entries confirms none", async () => {
  const { delivery, rows, changed } = start(["{}", "{}"], () => stored([1]));
  await changed;
  assert.match(delivery.status().problem ?? "", /does not confirm/);
  assert.equal(rows.waiting.length, 2);
});

for (const [status, code] of /** @type {[number, string][]} */ ([
  [422, "invalid_input"],
  [413, "too_large"],
])) {
  test(`an entry that the ledger refuses with ${code} delays no other`, async () => {
    const wrong = '{"wrong":true}';
    const { delivery, rows } = start(["{}", wrong, "{}"], (entries) =>
      entries.some((entry) => JSON.stringify(entry) === wrong) ? refusal(status, code) : stored(entries),
    );
    while (rows.waiting.length > 0) await change(delivery);
    assert.deepEqual(rows.refused.map(({ body }) => body), [wrong]);
  });
}

test("a page shows that another tab has delivered its entries", async () => {
  const { rows, changed } = start([], () => assert.fail("nothing is to be sent"));
  await changed;
  assert.deepEqual(rows.waiting, []);
});

test("a delivery that is too slow is repeated with half of the entries, until they arrive", async () => {
  /** @type {number[]} */
  const sizes = [];
  const { delivery, rows } = start(Array(20).fill("{}"), (entries) => {
    sizes.push(entries.length);
    if (entries.length <= 5) return stored(entries);
    return sizes.length === 1 ? refusal(408, "request_timeout") : Promise.reject(new DOMException("", "TimeoutError"));
  });
  while (rows.waiting.length > 0) {
    await change(delivery);
    delivery.retry();
  }
  assert.deepEqual(sizes, [20, 10, 5, 10, 5, 10, 5, 5]);
  assert.deepEqual(rows.refused, []);
});

test("a body that is larger in bytes than in characters is not sent beyond the page's end", async () => {
  /** @type {(boolean | undefined)[]} */
  const keepalive = [];
  const { delivery, rows } = start(Array(50).fill(`{"label":"${"積".repeat(800)}"}`), (entries, init) => {
    keepalive.push(init.keepalive);
    return stored(entries);
  });
  while (rows.waiting.length > 0) await change(delivery);
  assert.deepEqual(keepalive, [false], "a browser refuses to send more than 64 KiB so");
});
