// The page's start: sets up each part, then loads the model.

import { MobileClient } from "../client/client.js";
import { byId, el } from "./dom.js";
import * as form from "./form.js";
import * as install from "./install.js";
import * as loading from "./loading.js";
import * as session from "./session.js";
import * as status from "./status.js";
import * as theme from "../../shared/theme.js";

const INSECURE =
  "This page was opened over plain HTTP, where a browser gives no page the means to keep a model and to " +
  "check it. Open it over https:// (or as localhost on the machine of the gateway).";

theme.start();
if (globalThis.isSecureContext) {
  const client = new MobileClient();
  for (const part of [loading, form, session, status]) part.start(client);
  await client.start();
  // later, so that it does not compete with the model's download
  await install.start(client);
} else {
  byId("loading").hidden = true;
  byId("new-version").replaceChildren(el("div", { class: "banner bad", role: "alert" }, INSECURE));
}
