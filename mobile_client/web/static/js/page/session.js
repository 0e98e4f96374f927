// Sign-in with a token, and sign-out.

import { isSendable } from "../client/credentials.js";
import { announce } from "../../shared/announce.js";
import { button, byId, dialog, input } from "./dom.js";

/** @import { MobileClient } from "../client/client.js" */

let cancelled = false;

/** Set up the dialog and the buttons. @param {MobileClient} client */
export function start(client) {
  client.onChange(() => {
    button("open-sign-in").hidden = !client.needsSignIn;
    button("sign-out").hidden = !client.signedIn;
    if (!client.needsSignIn) {
      cancelled = false;
      dialog("sign-in").close(); // another tab has signed in
    } else if (navigator.onLine) {
      ask(); // without a network this device answers, and no token helps
    }
  });
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn(client);
  });
  button("sign-in-cancel").addEventListener("click", () => {
    cancelled = true;
    dialog("sign-in").close();
  });
  dialog("sign-in").addEventListener("cancel", () => {
    cancelled = true;
  });
  dialog("sign-in").addEventListener("close", () => {
    input("token").value = "";
  });
  button("open-sign-in").addEventListener("click", () => {
    cancelled = false;
    ask();
  });
  button("sign-out").addEventListener("click", async () => {
    const deleted = await client.signOut();
    announce("Signed out.");
    byId("sign-out-problem").hidden = deleted;
  });
}

function ask() {
  if (dialog("sign-in").open || cancelled) return;
  byId("sign-in-error").textContent = "";
  dialog("sign-in").showModal();
  input("token").focus();
}

/** @param {MobileClient} client */
async function signIn(client) {
  const field = input("token");
  const token = field.value.trim();
  byId("sign-in-error").textContent = "";
  field.removeAttribute("aria-invalid");
  const problem = isSendable(token)
    ? await client.signIn(token, input("keep-token").checked)
    : "This token is not accepted; check it, and sign in again.";
  if (problem === null) {
    dialog("sign-in").close();
    announce("Signed in.");
    return;
  }
  byId("sign-in-error").textContent = problem;
  field.setAttribute("aria-invalid", "true");
  field.select();
}
