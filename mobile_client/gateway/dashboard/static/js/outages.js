// Outages of an emulated link, and their names on the page.

/** Name of an outage's button, and its effect. */
export const OUTAGES = {
  stall: ["Stall", "no byte passes"],
  reset: ["Cut", "connections break and new ones are refused"],
  "reset-after-accept": ["Cut after accept", "new connections are accepted and then break"],
};

/** Return true if the link passes no byte. */
export function isOutage(link) {
  return link.outage !== null && link.outage !== undefined;
}

/** Return the name of the link's outage within a sentence. */
export function outageName(link) {
  return (OUTAGES[link.outage]?.[0] ?? link.outage).toLowerCase();
}
