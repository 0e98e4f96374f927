// Copies the files of the packages that the app uses from node_modules to static/vendor. `npm run
// vendor` writes them; with --check it only reports the files that differ, and fails if any does.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, gunzipSync, gzipSync } from "node:zlib";

const HERE = dirname(fileURLToPath(import.meta.url));
const check = process.argv.includes("--check");

/** @type {[string, string][]} File in node_modules, and its place in static/vendor. */
const COPIES = [
  ["onnxruntime-web/dist/ort.wasm.bundle.min.mjs", "onnxruntime-web/ort.wasm.bundle.min.mjs"],
  ["onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", "onnxruntime-web/ort-wasm-simd-threaded.wasm.gz"],
  ["@huggingface/tokenizers/dist/tokenizers.min.mjs", "tokenizers/tokenizers.min.mjs"],
  ["@huggingface/tokenizers/LICENSE", "tokenizers/LICENSE.txt"],
];
const PACKAGES = { "onnxruntime-web": "onnxruntime-web", tokenizers: "@huggingface/tokenizers" };
const TYPES = {
  "onnxruntime-web/ort.wasm.bundle.min.d.mts": 'export * from "onnxruntime-web";\n',
  "tokenizers/tokenizers.min.d.mts": 'export * from "@huggingface/tokenizers";\n',
};

/** @type {string[]} */
const differing = [];

/**
 * Write a file unless it holds the same; compressed files are compared uncompressed, because versions
 * of node compress differently.
 * @param {string} name
 * @param {Buffer} content
 */
async function put(name, content) {
  const file = join(HERE, "static/vendor", name);
  const compressed = name.endsWith(".gz");
  const old = await readFile(file).catch(() => null);
  const oldContent = old !== null && compressed ? gunzipSync(old) : old;
  if (oldContent !== null && oldContent.equals(content)) return;
  differing.push(name);
  if (check) return;
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, compressed ? gzipSync(content, { level: constants.Z_BEST_COMPRESSION }) : content);
}

for (const [from, to] of COPIES) await put(to, await readFile(join(HERE, "node_modules", from)));
for (const [name, content] of Object.entries(TYPES)) await put(name, Buffer.from(content));
for (const [folder, name] of Object.entries(PACKAGES)) {
  const facts = JSON.parse(await readFile(join(HERE, "node_modules", name, "package.json"), "utf8"));
  const text =
    `${name} ${facts.version}, licence ${facts.license}, from the npm registry.\n` +
    "Copied by mobile_client/web/vendor.mjs (make web); see LICENSE.txt.\n";
  await put(`${folder}/README.txt`, Buffer.from(text));
}

for (const name of differing) console.log(`static/vendor/${name} ${check ? "differs" : "written"}`);
if (check && differing.length > 0) process.exitCode = 1;
