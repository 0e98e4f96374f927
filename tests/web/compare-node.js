// Reads a task of tests/web/compare.py on standard input, and writes the answers.

import { answersOf } from "./compare.js";
import { loadNodeModel } from "./node-model.js";

/** @type {Buffer[]} */
const parts = [];
for await (const part of process.stdin) parts.push(part);
const task = JSON.parse(Buffer.concat(parts).toString("utf8"));
process.stdout.write(JSON.stringify(await answersOf(task, await loadNodeModel())));
