// The service worker, which keeps the app for offline use, and its installation on the home screen.

import { announce } from "./announce.js";
import { button, byId, el } from "./dom.js";

/** Register the service worker; the page works without it, but does not open offline. */
export async function start() {
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
  const controlled = navigator.serviceWorker.controller !== null;
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    if (controlled) location.reload(); // the new version has taken over
  });
  const registration = await navigator.serviceWorker.register("service-worker.js").catch(() => null);
  if (registration === null) return;
  if (registration.waiting) offer(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const found = registration.installing;
    found?.addEventListener("statechange", () => {
      if (found.state === "installed" && navigator.serviceWorker.controller !== null) offer(found);
    });
  });
}

/** Offer to use a new version of the app. @param {ServiceWorker} waiting */
function offer(waiting) {
  const use = el("button", { type: "button", class: "button" }, "Use it now");
  use.addEventListener("click", () => waiting.postMessage("use"));
  byId("new-version").replaceChildren(el("div", { class: "banner" }, "A new version of this app is here.", use));
  announce("A new version of this app is here.");
}
