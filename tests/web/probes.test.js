// What the page knows of a tier after attempts that got no answer, and after probes.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { Prober } from "../../mobile_client/web/static/js/client/prober.js";
import { TierClient } from "../../mobile_client/web/static/js/client/tier-client.js";
import { CostModel } from "../../mobile_client/web/static/js/core/cost-model.js";
import { TierStats } from "../../mobile_client/web/static/js/core/tier-stats.js";

/** @import { Exchange } from "../../mobile_client/web/static/js/core/exchange.js" */

const PRICES = { mobile_layer: 3, edge_layer: 2, offload_edge: 2.5, offload_cloud: 3, cloud_fee: 15 };
const TIMEOUT_MS = 2_500;
const READY = { status: "ready", tier: "edge", bundle_id: "b" };
const { fetch } = globalThis;
Object.defineProperty(globalThis, "navigator", { value: { onLine: true } }); // node 20 has none

/** A page that knows nothing yet; `answer` is what every call of it gets, or its failure. */
class Page {
  now = 0;
  tierStats = new TierStats(new CostModel(PRICES, 6), 0, () => this.now / 1e3);
  /** @type {() => Promise<Response> | Response} */
  answer = () => Response.json(READY);

  constructor() {
    const rules = { bundleId: "b", labels: ["x", "y"], firstExit: 1, lastExit: 3, maxTokens: 16 };
    const headers = () => ({});
    const now = () => this.now;
    const edge = new TierClient("http://gateway/edge", { ...rules, tier: "edge" }, headers, now);
    const cloud = new TierClient("http://gateway/cloud", { ...rules, tier: "cloud" }, headers, now);
    this.edge = edge;
    this.prober = new Prober(this.tierStats, { edge, cloud }, () => undefined, now);
    globalThis.fetch = async () => this.answer();
  }

  get breaker() {
    return this.tierStats.servers.edge.breaker;
  }

  /** Make an attempt at the edge. */
  async attempt() {
    const token = this.tierStats.begin("edge");
    const exchange = await this.edge.infer({ attempt_id: "a" }, TIMEOUT_MS);
    this.tierStats.recordExchange("edge", exchange, token, TIMEOUT_MS);
    return exchange;
  }

  /** Probe both tiers, which get the same answer. */
  async probe() {
    await this.prober.askAll();
    return this.breaker.readiness;
  }
}

/** @param {number} status @param {string} code @param {Record<string, string>} [headers] */
function refusal(status, code, headers = {}) {
  return Response.json({ error: { code, message: "x" } }, { status, headers });
}

function broken() {
  return Promise.reject(new TypeError("Failed to fetch"));
}

afterEach(() => {
  globalThis.fetch = fetch;
});

test("an attempt that broke does not make an unreachable tier one that is not ready, and a probe is made", async () => {
  const page = new Page();
  page.answer = broken;
  assert.equal(await page.probe(), "unreachable");
  const { delivery } = await page.attempt();
  assert.equal(delivery, "unknown", "a browser does not say whether it was sent");
  assert.deepEqual([page.breaker.readiness, page.breaker.needsProbe], ["unreachable", true]);
  page.answer = () => Response.json(READY);
  assert.equal(await page.probe(), "ready");
  assert.equal(page.breaker.needsProbe, false);
});

test("a gateway that is gone is noticed by the first attempt", async () => {
  const page = new Page();
  assert.equal(await page.probe(), "ready");
  page.answer = broken;
  await page.attempt();
  assert.ok(page.breaker.needsProbe);
  assert.equal(await page.probe(), "unreachable");
  assert.ok(!page.breaker.available, "policies plan without it");
});

test("an attempt that the tier answers as not ready is asked after", async () => {
  const page = new Page();
  page.answer = () => refusal(503, "not_ready", { "dimee-delivery": "unknown" });
  await page.attempt();
  assert.deepEqual([page.breaker.readiness, page.breaker.needsProbe], ["not ready", true]);
  page.answer = broken;
  await page.attempt();
  assert.deepEqual([page.breaker.readiness, page.breaker.needsProbe], ["not ready", true]);
});

test("a probe says what the relay says, and a refusal by the gateway changes nothing", async () => {
  const page = new Page();
  for (const [status, code, readiness] of /** @type {[number, string, string][]} */ ([
    [401, "unauthorised", "unknown"],
    [429, "rate_limited", "unknown"],
    [503, "not_ready", "not ready"],
    [403, "forbidden", "not ready"],
    [503, "tier_unreachable", "unreachable"],
    [429, "overloaded", "unreachable"],
  ])) {
    page.answer = () => refusal(status, code);
    assert.equal(await page.probe(), readiness, code);
  }
  page.answer = () => Response.json({ ...READY, bundle_id: "other" });
  assert.equal(await page.probe(), "not ready");
  page.answer = () => Response.json(READY);
  assert.equal(await page.probe(), "ready");
});

test("what is known of a tier that is not ready is renewed while the page is looked at", async () => {
  const page = new Page();
  let calls = 0;
  page.answer = () => {
    calls += 1;
    return broken();
  };
  /** @param {number} ms @param {number} expected */
  const look = async (ms, expected) => {
    page.now += ms;
    calls = 0;
    page.prober.renew();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(calls, expected);
  };
  await look(0, 2);
  await look(9_999, 0);
  await look(1, 2);
  page.answer = () => {
    calls += 1;
    return Response.json(READY);
  };
  await look(10_000, 2); // the answer is the edge's, so the cloud is not ready
  assert.equal(page.breaker.readiness, "ready");
  await look(10_000, 1);
});

test("a probe without an answer counts as Python's, but not if the page stood still meanwhile", async () => {
  const page = new Page();
  page.answer = () => {
    page.now += 60_000;
    return broken();
  };
  assert.equal(await page.probe(), "unknown");
  assert.ok(page.breaker.needsProbe, "it is asked again");
  page.answer = () => refusal(504, "deadline_exceeded");
  assert.equal(await page.probe(), "unreachable");
  page.answer = () => Response.json(READY);
  assert.equal(await page.probe(), "ready");
});
