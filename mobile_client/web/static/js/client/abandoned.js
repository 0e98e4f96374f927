// Ends of the attempts that a page left open when it was closed.

const PROCESS_DIED = "process_died";

/**
 * Return the ends of a closed page's open entries, in their order.
 *
 * The final attempt of each request is its first open one.
 * @param {Record<string, any>[]} entries
 * @returns {Record<string, any>[]}
 */
export function endsOfOpenAttempts(entries) {
  /** @type {Map<string, Record<string, any>>} */
  const first = new Map();
  for (const entry of entries) {
    if (entry.side !== "caller") continue;
    const known = first.get(entry.request_id);
    if (known === undefined || entry.ordinal < known.ordinal) first.set(entry.request_id, entry);
  }
  return entries.map((entry) => {
    const end = { ...entry, state: "abandoned", error_code: PROCESS_DIED };
    if (entry.side !== "caller") return end;
    return { ...end, delivery: "unknown", final: entry === first.get(entry.request_id) };
  });
}
