// Runs the shared cases in a browser, or with `?task` the texts of a comparison. The result is
// `document.body.dataset.result`, as JSON.

import { answersOf } from "./compare.js";
import { differences } from "./evaluate.js";
import { loadModel } from "./model.js";

/** @import { CaseFile } from "./evaluate.js" */
/** @typedef {(name: string) => Promise<ArrayBuffer>} Read */

/** @param {string} folder @returns {Read} */
function reader(folder) {
  return async (name) => {
    const response = await fetch(`${folder}/${name}`);
    if (!response.ok) throw new Error(`${folder}/${name}: status ${response.status}`);
    return response.arrayBuffer();
  };
}

/** @param {string} folder @param {string} name */
async function json(folder, name) {
  return JSON.parse(new TextDecoder().decode(await reader(folder)(name)));
}

async function run() {
  const model = await loadModel(reader("/bundle"), reader("/mobile_client/web/static/vendor"));
  if (location.search === "?task") return answersOf(await json("/bundle", "task.json"), model);
  const file = /** @type {CaseFile} */ (await json("/tests/web", "cases.json"));
  /** @type {Record<string, {run: number, found: string[]}>} */
  const result = {};
  for (const kind of Object.keys(file.bounds)) result[kind] = await differences(file, model, kind);
  return result;
}

run().then(
  (result) => (document.body.dataset.result = JSON.stringify(result)),
  (error) => (document.body.dataset.result = JSON.stringify({ error: String(error?.stack ?? error) })),
);
