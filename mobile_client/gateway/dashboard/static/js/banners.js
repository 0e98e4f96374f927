// What is wrong now, at the top of the page: stream lost, ledger down, not signed in.

import { announce } from "../shared/announce.js";
import { on } from "./bus.js";
import { byId, el, replace } from "./dom.js";
import { openSignIn } from "./session.js";
import { mayCall, state } from "./state.js";

const STREAM = {
  connecting: ["", "Connecting"],
  live: ["good", "Live"],
  reconnecting: ["bad", "Reconnecting"],
  "signed out": ["warning", "Signed out"],
  "not permitted": ["warning", "No live figures"],
};

let stream = "connecting";
let drawn = "";

/** Set up the banners and the badge of the stream. */
export function start() {
  on("stream", ({ status }) => {
    if (status === "reconnecting") announce("The connection to the gateway was lost; reconnecting.");
    if (status === "live" && stream === "reconnecting") announce("Connected to the gateway again.");
    stream = status;
    const [kind, text] = STREAM[status];
    byId("stream-state").className = `badge ${kind}`;
    byId("stream-state").textContent = text;
    show();
  });
  on("state", show);
}

function show() {
  const problems = [];
  if (stream === "reconnecting") {
    problems.push(["bad", "The connection to the gateway was lost. Reconnecting; figures below are the last known."]);
  }
  if (state()?.ledger) problems.push(["", `Ledger: ${state().ledger}`]);
  if (state() !== null && !mayCall()) problems.push(["", "Sign in to classify and to see figures."]);
  if (stream === "not permitted") {
    problems.push(["", "Your token lacks the scope status: figures, requests, prices of today's requests and links are not shown."]);
  }
  const text = JSON.stringify(problems);
  if (text === drawn) return;
  drawn = text;
  byId("banners").hidden = problems.length === 0;
  replace(
    byId("banners"),
    problems.map(([kind, sentence]) =>
      el("div", { class: `banner ${kind}` }, el("span", {}, sentence), sentence.startsWith("Sign in") ? signInButton() : null),
    ),
  );
}

function signInButton() {
  const button = el("button", { type: "button", class: "button" }, "Sign in");
  button.addEventListener("click", openSignIn);
  return button;
}
