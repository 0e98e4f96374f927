// The page's start: sets up each part, then reads the state and opens the stream.

import * as banners from "./banners.js";
import { on } from "./bus.js";
import * as charts from "./charts.js";
import * as classify from "./classify.js";
import { byId } from "./dom.js";
import * as events from "./events.js";
import * as links from "./links.js";
import * as live from "./live.js";
import * as prices from "./prices.js";
import * as record from "./record.js";
import * as requests from "./requests.js";
import * as session from "./session.js";
import * as state from "./state.js";
import * as stream from "./stream.js";
import * as theme from "./theme.js";

on("state", (now) => {
  byId("task").textContent = now.task ?? "";
  byId("bundle").textContent = now.bundle_id ? `Bundle ${now.bundle_id}` : "";
  byId("version").textContent = now.version ? `dimee ${now.version}` : "";
  byId("metrics").hidden = !(now.scopes ?? []).includes("metrics");
});

for (const part of [theme, events, banners, session, classify, links, live, charts, requests, prices, record, stream]) {
  part.start();
}
await state.start();
