// Sign-in with a token, and sign-out. The token is sent once; a cookie that scripts cannot read
// holds the session.

import { announce } from "../shared/announce.js";
import { call } from "./api.js";
import { on } from "./bus.js";
import { byId } from "./dom.js";
import { mayCall, refresh } from "./state.js";

let cancelled = false;

/** Set up the dialog and the button. */
export function start() {
  on("state", (now) => {
    byId("sign-out").hidden = !(now.auth_required && now.signed_in);
    if (mayCall()) cancelled = false;
    else ask();
  });
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn();
  });
  byId("sign-in-cancel").addEventListener("click", () => byId("sign-in").close());
  byId("sign-in").addEventListener("close", () => {
    cancelled = true;
    byId("token").value = "";
  });
  byId("sign-out").addEventListener("click", signOut);
}

/** Open the dialog, also after it was cancelled. */
export function openSignIn() {
  cancelled = false;
  ask();
}

function ask() {
  const dialog = byId("sign-in");
  if (dialog.open || cancelled) return;
  byId("sign-in-error").textContent = "";
  dialog.showModal();
  byId("token").focus();
}

async function signIn() {
  const field = byId("token");
  byId("sign-in-error").textContent = "";
  field.removeAttribute("aria-invalid");
  try {
    await call("/dashboard/sign-in", { method: "POST", token: field.value.trim() });
  } catch (error) {
    byId("sign-in-error").textContent =
      error.status === 401 ? "This token is not accepted; check it, and sign in again." : error.message;
    field.setAttribute("aria-invalid", "true");
    field.select();
    return;
  }
  byId("sign-in").close();
  await refresh();
  announce("Signed in.");
}

async function signOut() {
  await call("/dashboard/sign-out", { method: "POST" }).catch(() => null);
  location.reload(); // nothing that was shown stays
}
