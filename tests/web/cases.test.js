// The shared cases in node: the same decisions, tiers, exits and labels as Python.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { difference, differences } from "./evaluate.js";
import { loadNodeModel } from "./node-model.js";

/** @type {import("./evaluate.js").CaseFile} */
const file = JSON.parse(await readFile(new URL("cases.json", import.meta.url), "utf8"));
const model = await loadNodeModel();

for (const kind of Object.keys(file.bounds)) {
  test(`cases of the kind ${kind}`, async () => {
    const { run, found } = await differences(file, model, kind);
    assert.deepEqual(found, []);
    assert.ok(run >= 20, "the file has cases of this kind");
  });
}

test("a difference is found wherever it is", () => {
  const bounds = { "": 0, confidence: 0.1 };
  const expected = { tier: "edge", steps: [{ confidence: 0.5, cost: 1 }] };
  assert.equal(difference({ tier: "edge", steps: [{ confidence: 0.55, cost: 1 }] }, expected, bounds), null);
  for (const wrong of [
    { tier: "cloud", steps: [{ confidence: 0.5, cost: 1 }] },
    { tier: "edge", steps: [{ confidence: 0.7, cost: 1 }] },
    { tier: "edge", steps: [{ confidence: 0.5, cost: 1.01 }] },
    { tier: "edge", steps: [{ confidence: null, cost: 1 }] },
    { tier: "edge", steps: [] },
    { tier: "edge", steps: [{ confidence: 0.5 }] },
  ]) {
    assert.notEqual(difference(wrong, expected, bounds), null);
  }
});
