// The service worker, which keeps the app for offline use, newer versions of the app, and its
// installation on the home screen.

import { announce } from "../../shared/announce.js";
import { button, byId, el } from "./dom.js";
import { keepDraft } from "./form.js";

/** @import { MobileClient } from "../client/client.js" */

/**
 * Register the service worker; the page works without it, but does not open offline.
 * @param {MobileClient} client
 */
export async function start(client) {
  addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault();
    const install = button("install");
    install.hidden = false;
    install.onclick = async () => {
      install.hidden = true;
      await /** @type {any} */ (event).prompt();
    };
  });
  if (!("serviceWorker" in navigator)) return;
  let controlled = navigator.serviceWorker.controller !== null;
  let pressed = false;
  const use = (/** @type {ServiceWorker} */ waiting) =>
    offer("A new version of this app is here.", "Use it now", client, () => {
      pressed = true;
      waiting.postMessage("use");
    });
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    // the first service worker has the version of this page
    if (controlled) replaced(client, pressed);
    controlled = true;
  });
  const registration = await navigator.serviceWorker.register("service-worker.js").catch(() => null);
  if (registration === null) return;
  if (registration.waiting) use(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const found = registration.installing;
    found?.addEventListener("statechange", () => {
      if (found.state === "installed" && navigator.serviceWorker.controller !== null) use(found);
    });
  });
}

/**
 * A new version has taken over in all tabs: the tab of the button is loaded again, the others if the
 * user wishes, because a text may be written or classified in them.
 * @param {MobileClient} client
 * @param {boolean} pressed
 */
function replaced(client, pressed) {
  if (pressed && client.inFlight === 0) reload();
  else offer("A new version of this app is ready.", "Reload this page", client, reload);
}

function reload() {
  if (keepDraft()) location.reload();
  else say("This browser does not keep the text of this page. Copy it, and reload the page.");
}

/**
 * Offer a new version; it is not used before the text under way is answered.
 * @param {string} sentence
 * @param {string} label
 * @param {MobileClient} client
 * @param {() => void} use
 */
function offer(sentence, label, client, use) {
  const press = el("button", { type: "button", class: "button" }, label);
  press.addEventListener("click", () => {
    if (client.inFlight === 0) use();
    else say("A text is being classified. Use the new version after its answer.", press);
  });
  say(sentence, press);
}

/** @param {string} sentence @param {...HTMLElement} buttons */
function say(sentence, ...buttons) {
  byId("new-version").replaceChildren(el("div", { class: "banner" }, sentence, ...buttons));
  announce(sentence);
}
