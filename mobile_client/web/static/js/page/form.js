// The form: a text with its options, and the call of the client.

import { POLICY_NAMES } from "../core/policies.js";
import { MODES } from "../core/options.js";
import { showFailure, showOutcome } from "./answer.js";
import { byId, input, options, replace, select } from "./dom.js";
import { add } from "./history.js";

/** @import { MobileClient } from "../client/client.js" */
/** @import { Manifest } from "../core/domain.js" */
/** @typedef {{text: string, pair?: string | null}} Sample */

/** Key of what was entered before the page was loaded again, in the storage of this tab. */
const DRAFT = "dimee-draft";
const FIELDS = ["text", "pair", "policy", "mode", "deadline", "ceiling"];

/** @type {Sample[]} */
let samples = [];
let shownBundle = "";

/** Set up the form. @param {MobileClient} client */
export function start(client) {
  const form = /** @type {HTMLFormElement} */ (byId("classify-form"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    classify(client);
  });
  // a browser says nothing of a wrong value that it cannot show
  const reveal = (/** @type {Event} */ { target }) => {
    const details = /** @type {Element} */ (target).closest("details");
    if (details !== null) details.open = true;
  };
  form.addEventListener("invalid", reveal, true);
  byId("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
  select("sample").addEventListener("change", () => choose(samples[Number(select("sample").value || -1)]));
  client.onChange(() => {
    if (client.status.phase === "ready") show(client);
  });
}

/** @param {MobileClient} client */
function show({ manifest, config }) {
  const shown = `${manifest?.bundle_id} ${config?.policy} ${config?.mode} ${config?.deadline_ms}`;
  if (manifest === null || config === null || shown === shownBundle) return;
  shownBundle = shown;
  samples = config.samples ?? manifest.samples ?? [];
  byId("pair-field").hidden = !manifest.pairs;
  input("pair").required = manifest.pairs;
  replace(
    select("sample"),
    ...options([["", "Choose a sample …"], ...samples.map(({ text }, at) => choice(at, text))]),
  );
  byId("sample").parentElement?.toggleAttribute("hidden", samples.length === 0);
  if (input("text").value === "") choose(samples[0]);
  fill("policy", POLICY_NAMES, config.policy);
  fill("mode", MODES, config.mode);
  input("deadline").placeholder = String(config.deadline_ms);
  restoreDraft();
}

/**
 * Keep what was entered while this page is loaded again; return false if the browser cannot.
 * @returns {boolean}
 */
export function keepDraft() {
  if (shownBundle === "") return true; // nothing could be entered
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify(FIELDS.map((id) => input(id).value)));
    return true;
  } catch {
    return false;
  }
}

function restoreDraft() {
  try {
    const values = JSON.parse(sessionStorage.getItem(DRAFT) ?? "[]");
    sessionStorage.removeItem(DRAFT);
    for (const [at, id] of FIELDS.entries()) if (typeof values[at] === "string") input(id).value = values[at];
    // a policy may be gone, and the gateway's is the first
    for (const id of ["policy", "mode"]) select(id).selectedIndex = Math.max(0, select(id).selectedIndex);
  } catch {
    // storage is blocked: there is none
  }
}

/** @param {number} at @param {string} text @returns {[string, string]} */
function choice(at, text) {
  return [String(at), text.length > 60 ? `${Array.from(text).slice(0, 59).join("")}…` : text];
}

/** @param {string} id @param {readonly string[]} names @param {string} inForce */
function fill(id, names, inForce) {
  /** @type {[string, string][]} */
  const pairs = [[inForce, `${inForce} (the gateway's)`]];
  for (const name of names) if (name !== inForce) pairs.push([name, name]);
  replace(select(id), ...options(pairs));
}

/** @param {Sample | undefined} sample */
function choose(sample) {
  if (sample === undefined) return;
  input("text").value = sample.text;
  input("pair").value = sample.pair ?? "";
}

/** @param {MobileClient} client */
async function classify(client) {
  const submit = /** @type {HTMLButtonElement} */ (byId("classify-form").querySelector("[type=submit]"));
  if (submit.disabled) return; // the keyboard submits a form whose button is disabled
  const problem = byId("classify-error");
  problem.hidden = true;
  submit.disabled = true;
  submit.textContent = "Classifying …";
  const text = input("text").value;
  const pair = client.manifest?.pairs ? input("pair").value : null;
  try {
    const outcome = await client.classify(text, pair, given());
    add(outcome);
    showOutcome(outcome);
  } catch (error) {
    const { message, outcome = null } = /** @type {import("../client/request.js").NotClassified} */ (error);
    problem.textContent = `Not classified: ${message}`;
    problem.hidden = false;
    if (outcome !== null) add(outcome);
    showFailure(outcome);
  } finally {
    submit.disabled = false;
    submit.textContent = "Classify";
  }
}

/** Return the options that were chosen; those that were not are the gateway's. */
function given() {
  const [policy, mode] = [select("policy").value, select("mode").value];
  const [deadline, ceiling] = [input("deadline").value, input("ceiling").value];
  return {
    ...(policy && { policy }),
    ...(mode && { mode: /** @type {import("../core/domain.js").Mode} */ (mode) }),
    ...(deadline && { deadlineMs: Number(deadline) }),
    ...(ceiling && { maxCostLambda: Number(ceiling) }),
  };
}
