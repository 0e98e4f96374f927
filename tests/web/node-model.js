// Loads the mobile bundle in node, from the folder that DIMEE_TEST_BUNDLE names.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { loadModel } from "./model.js";

const VENDOR = fileURLToPath(new URL("../../mobile_client/web/static/vendor", import.meta.url));

/** @param {string} folder @returns {import("./model.js").Read} */
function reader(folder) {
  return async (name) => {
    const content = await readFile(join(folder, name));
    return content.buffer.slice(content.byteOffset, content.byteOffset + content.byteLength);
  };
}

export function loadNodeModel() {
  const folder = process.env.DIMEE_TEST_BUNDLE;
  if (folder === undefined) throw new Error("DIMEE_TEST_BUNDLE names no mobile bundle");
  return loadModel(reader(folder), reader(VENDOR));
}
