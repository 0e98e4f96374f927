// Reads the responses in the file that argv names, and prints what each means for an attempt.

import { readFileSync } from "node:fs";

import { readResponse } from "../../mobile_client/web/static/js/client/tier-response.js";

const { rules, attempt, roundTripMs, responses } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const read = responses.map((/** @type {{status: number, body: string}} */ { status, body }) => {
  const { delivery, answer, error } = readResponse(rules, status, body, attempt, roundTripMs, null);
  return { delivery, answered: answer !== null, error: error === null ? null : error.code };
});
console.log(JSON.stringify(read));
