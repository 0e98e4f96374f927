// The token in several tabs: a sign-out ends it in all of them, and only a kept token is shared.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

/** @import { Database } from "../../mobile_client/web/static/js/client/database.js" */

const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.removeEventListener = page.removeEventListener.bind(page);
const { Credentials } = await import("../../mobile_client/web/static/js/client/credentials.js");

/** The values of the browser's database, which all tabs share. `reads` are held until they are resolved. */
class Values {
  /** @type {Map<string, unknown>} */
  kept = new Map();
  /** @type {Promise<void>} */
  reads = Promise.resolve();
  writable = true;

  /** @param {string} key */
  async get(key) {
    const value = this.kept.get(key);
    await this.reads;
    return value;
  }

  /** @param {string} key @param {unknown} value */
  async set(key, value) {
    if (!this.writable) throw new DOMException("", "QuotaExceededError");
    if (value === undefined) this.kept.delete(key);
    else this.kept.set(key, value);
  }
}

let values = new Values();
/** @type {InstanceType<typeof Credentials>[]} */
let tabs = [];

/** Open a tab, which uses the token that was kept. */
async function open() {
  const one = new Credentials(/** @type {Database} */ (/** @type {unknown} */ (values)));
  tabs.push(one);
  await one.load();
  return one;
}

/** Return after the next change that a tab learns of. @param {InstanceType<typeof Credentials>} tab @returns {Promise<void>} */
function change(tab) {
  return new Promise((resolve) => tab.onChange(resolve));
}

/** Have all pages come back from the back/forward cache. */
function comeBack() {
  page.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
}

/** @param {InstanceType<typeof Credentials>} tab */
function token(tab) {
  return tab.headers().authorization ?? null;
}

beforeEach(() => {
  values = new Values();
  tabs = [];
});
afterEach(() => {
  for (const tab of tabs) tab.close();
});

test("a kept token is used in all tabs, and one in memory only in its own", async () => {
  const [first, second] = [await open(), await open()];
  assert.ok(await first.signIn("memory", false));
  assert.equal(values.kept.size, 0);
  const told = change(second);
  assert.ok(await first.signIn("kept", true));
  await told;
  assert.deepEqual([first, second, await open()].map(token), Array(3).fill("Bearer kept"));
  await second.signIn("own", false);
  assert.deepEqual([first, second, await open()].map(token), ["Bearer kept", "Bearer own", null]);
});

test("a sign-out ends the token in all tabs, whether it was kept or not", async () => {
  const [first, second, third] = [await open(), await open(), await open()];
  const shared = [change(second), change(third)];
  await first.signIn("kept", true);
  await Promise.all(shared);
  await second.signIn("own", false);
  const told = [change(second), change(third)];
  assert.ok(await first.signOut());
  assert.equal(token(first), null);
  await Promise.all(told);
  assert.deepEqual([first, second, third, await open()].map(token), [null, null, null, null]);
});

test("a token that was read before a sign-out is not used after it", async () => {
  const first = await open();
  await first.signIn("kept", true);
  let release = () => {};
  values.reads = new Promise((resolve) => {
    release = resolve;
  });
  const opening = open();
  const told = change(tabs[1]);
  await first.signOut();
  await told;
  release();
  assert.equal(token(await opening), null);
});

test("a page that comes back from the back/forward cache has the kept token only", async () => {
  const [first, second] = [await open(), await open()];
  await first.signIn("own", false);
  values.kept.set("token", "kept");
  const shown = [change(first), change(second)];
  comeBack();
  assert.deepEqual([token(first), token(second)], [null, null], "none before the database was asked");
  await Promise.all(shown);
  assert.deepEqual([token(first), token(second)], ["Bearer kept", "Bearer kept"]);
  values.kept.clear(); // another tab has signed out
  const again = [change(first), change(second)];
  comeBack();
  await Promise.all(again);
  assert.deepEqual([token(first), token(second)], [null, null]);
});

test("storage that fails is said: a token that cannot be kept is not used, a sign-out holds", async () => {
  const [first, second] = [await open(), await open()];
  const shared = change(second);
  await first.signIn("kept", true);
  await shared;
  values.writable = false;
  assert.equal(await second.signIn("other", true), false);
  assert.equal(token(second), "Bearer kept");
  assert.equal(await first.signOut(), false);
  assert.equal(token(first), null);
});
